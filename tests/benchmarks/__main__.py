"""The command; the tables go to stdout, what is under way to stderr."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys

from tests.benchmarks import (
    bundles,
    fleet,
    idle,
    keyvault,
    latency,
    outage,
    rotation,
    start,
    staying,
)
from tests.benchmarks.interleaving import Rounds
from tests.benchmarks.machine import description
from tests.benchmarks.table import BEGIN, END
from tests.benchmarks.world import World

SCENARIOS = {
    "start": start.measure,
    "staying": staying.measure,
    "idle": idle.measure,
    "rotation": rotation.measure,
    "latency": latency.measure,
    "outage": outage.measure,
    "keyvault": keyvault.measure,
    "bundles": bundles.measure,
    "fleet": fleet.measure,
}


def main() -> None:
    """Run the scenarios that were asked for, all by default."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="certagent beside `bao agent` at the same work: tables in Markdown.",
    )
    parser.add_argument("--runs", type=int, default=5, help="rounds that count (5)")
    parser.add_argument(
        "--interval",
        type=float,
        default=1.0,
        help="seconds between two polls of who stays (1); `bao agent` counts whole ones",
    )
    parser.add_argument(
        "--agents",
        type=int,
        default=50,
        help=f"agents in the greatest fleet (50; {fleet.MOST} at most)",
    )
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="a scenario; repeatable")
    asked = parser.parse_args()
    if asked.runs < 1 or asked.interval <= 0:
        parser.error("--runs and --interval must be greater than zero")
    if not 1 <= asked.agents <= fleet.MOST:
        parser.error(f"--agents must be from 1 to {fleet.MOST}")
    rounds = Rounds(asked.runs, asked.interval, agents=asked.agents)
    # Who stops it leaves no server, no agent and no key behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with World() as world:
        print(f"{BEGIN}\n{description(world.openbao.version)}\n")
        print(f"`{shlex.join(['python', '-m', 'tests.benchmarks', *sys.argv[1:]])}`", end=": ")
        print("medians (least-greatest); ratios: the first to the second.", flush=True)
        for name in asked.only or SCENARIOS:
            print(f"\n{SCENARIOS[name](world, rounds)}", flush=True)
        print(END)


if __name__ == "__main__":
    main()
