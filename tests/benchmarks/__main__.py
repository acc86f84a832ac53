"""The command; the tables go to stdout, what is under way to stderr."""

from __future__ import annotations

import argparse
import signal
import sys

from tests.benchmarks import bundles, keyvault, start, staying
from tests.benchmarks.interleaving import Rounds
from tests.benchmarks.machine import description
from tests.benchmarks.world import World

SCENARIOS = {
    "start": start.measure,
    "staying": staying.measure,
    "keyvault": keyvault.measure,
    "bundles": bundles.measure,
}


def main() -> None:
    """Run the scenarios that were asked for, all by default."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="certagent beside `bao agent` at the same work: tables in Markdown.",
    )
    parser.add_argument("--runs", type=int, default=9, help="rounds that count (9)")
    parser.add_argument(
        "--interval",
        type=float,
        default=1.0,
        help="seconds between two polls of who stays (1); `bao agent` counts whole ones",
    )
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="a scenario; repeatable")
    asked = parser.parse_args()
    if asked.runs < 1 or asked.interval <= 0:
        parser.error("--runs and --interval must be greater than zero")
    rounds = Rounds(asked.runs, asked.interval)
    # Who stops it leaves no server, no agent and no key behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with World() as world:
        print(description(world.openbao.version))
        print(f"\nRounds: {rounds.count}. Medians (least-greatest); ratios: first to second.")
        for name in asked.only or SCENARIOS:
            print(f"\n{SCENARIOS[name](world, rounds)}", flush=True)


if __name__ == "__main__":
    main()
