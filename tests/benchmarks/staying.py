"""What an agent costs that has published and polls on, with nothing new to find."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks import process
from tests.benchmarks.agents import PATH, polling
from tests.benchmarks.figures import MIB
from tests.benchmarks.interleaving import interleave
from tests.benchmarks.table import side_by_side
from tests.support.process import until

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence

    from tests.benchmarks.interleaving import Rounds
    from tests.benchmarks.process import Job
    from tests.benchmarks.world import World

SETTLING = 2
"""Polls before the window: what is loaded, compiled or collected late is there by then."""

POLLS = 5
"""Polls in the window."""

HOUR = 3600.0


@dataclass(frozen=True)
class Store:
    """Where the polls go: `asked()` counts all requests that its server has had, by path.

    `polled` are the paths that an agent asks for once a poll, whatever else it asks for.
    """

    asked: Callable[[], Counter[str]]
    polled: Sequence[str]

    def polls(self, asked: Counter[str]) -> float:
        """Return how many polls were among these requests: the average over the paths."""
        return sum(asked[path] for path in self.polled) / len(self.polled)


def measure(world: World, rounds: Rounds) -> str:
    """Return the table of `certagent run` and `bao agent`, both polling at the same interval."""
    access = world.secret(PATH)
    store = Store(world.asked, [access.asked])
    contenders = {
        name: partial(stay, partial(job, access), store, rounds.interval)
        for name, job in polling(world, rounds.every).items()
    }
    title = f"staying, a poll every {rounds.every}"
    return side_by_side(title, interleave(contenders, rounds))


def stay(job: Callable[[], Job], store: Store, interval: float) -> dict[str, float]:
    """Let a new job stay for some polls of its store, and return what they cost."""
    with process.staying(job()) as agent:
        _wait_for_polls(store, SETTLING, interval)
        before, cpu, began = store.asked(), agent.cpu, time.monotonic()
        _wait_for_polls(store, POLLS, interval)
        seconds, cpu = time.monotonic() - began, agent.cpu - cpu
        asked = store.asked() - before
        return {
            "resident memory, MiB": agent.memory("VmRSS") / MIB,
            "anonymous memory, MiB": agent.memory("RssAnon") / MIB,
            "CPU, % of a core": cpu / seconds * 100,
            "requests an hour": asked.total() / seconds * HOUR,
            "requests a poll": asked.total() / store.polls(asked),
        }


def _wait_for_polls(store: Store, count: int, interval: float) -> None:
    wanted = store.polls(store.asked()) + count
    until(lambda: store.polls(store.asked()) >= wanted, 2 * count * interval + process.DEADLINE)
