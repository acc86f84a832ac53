"""Foreign input: whatever it is, the answer is a typed error or a canonical result.

One module for each target. Its `attempt(data)` puts bytes where foreign bytes come in, and holds
the property of `judging`; its tests try bytes made by `mutations`, and all that lies in
`corpus/<target>/`: seeds, and every input that once broke something.

    pytest tests/fuzz                   # half a minute
    pytest tests/fuzz --long            # as long as it takes to try a hundred times as much
    pip install atheris && python -m tests.fuzz pem -max_total_time=600    # guided by coverage
"""
