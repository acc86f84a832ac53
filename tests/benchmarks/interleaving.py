"""Contenders in turn: what else the machine does meanwhile hits all of them alike."""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.benchmarks.table import Samples

    Run = Callable[[], Mapping[str, float | list[float]]]
    """Takes a turn, and returns by the names of the measures what it cost, once or each time."""

Name = TypeVar("Name")


@dataclass(frozen=True)
class Rounds:
    """How often everybody's turn comes, and the seconds between two polls of who stays.

    Warm-ups come before and do not count: they leave bytecode and pages in the caches, as the
    second pod on a node finds them.
    """

    count: int
    interval: float
    warm_ups: int = 1
    agents: int = 50
    """How many agents the greatest fleet has."""

    def at_most(self, count: int) -> Rounds:
        """Return these rounds, or so many where one of them takes long."""
        return replace(self, count=min(self.count, count))

    @property
    def every(self) -> str:
        """The interval as both agents read it."""
        return f"{self.interval:g}s"


def interleave(contenders: Mapping[Name, Run], rounds: Rounds) -> dict[Name, Samples]:
    """Return the samples of all rounds that count (A B, A B, …)."""
    results: dict[Name, dict[str, list[float]]] = {name: defaultdict(list) for name in contenders}
    for number in range(-rounds.warm_ups, rounds.count):
        for name, run in contenders.items():
            print(f"{name}: {number + 1} of {rounds.count}", file=sys.stderr)
            costs = run()
            if number >= 0:
                for measure, value in costs.items():
                    results[name][measure] += value if isinstance(value, list) else [value]
    return results
