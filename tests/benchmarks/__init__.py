"""certagent beside `bao agent` at the same work, as whole processes: `python -m tests.benchmarks`.

Each scenario runs its contenders in turn (A B A B …) against one server and prints a Markdown table
of medians, spreads and ratios. Nothing here asserts a figure: what a machine can do is its own.
"""
