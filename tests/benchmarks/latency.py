"""How long a write waits until it is published: KV v1 and v2, at an interval and by default.

`bao agent` reads KV v2 again after 0.85 to 0.95 of its interval, 5 minutes by default, and KV v1
after as much of the lease, a month: `static_secret_render_interval` says nothing of secrets with a
lease. Nobody waits for that here: who has published nothing after a while is noted as not seen.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.benchmarks import process
from tests.benchmarks.agents import bao_agent, certagent, polling, vault
from tests.benchmarks.figures import phase
from tests.benchmarks.rotation import holds
from tests.benchmarks.stored import Stored
from tests.benchmarks.table import side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.benchmarks.interleaving import Rounds
    from tests.benchmarks.process import Job
    from tests.benchmarks.world import Access, World

PATIENCE = 40.0
"""Seconds that are waited for a write to be published, or two intervals where they are longer.

More than certagent's default interval; `bao agent`'s is 255 s at least.
"""

TICK = 0.005


def measure(world: World, rounds: Rounds) -> str:
    """Return the table of writes to secrets that all agents poll side by side.

    By default there is one write only, right after the start: it waits for a part of an interval.
    """
    patience = max(PATIENCE, 2 * rounds.interval)
    told, untold = polling(world, rounds.every), _by_default(world)
    watches: dict[str, dict[str, Watch]] = {name: {} for name in told}
    jobs = []
    for how, makers, writes in (
        (f"a poll every {rounds.every}", told, rounds.count),
        ("by default", untold, 1),
    ):
        for kv, (name, make) in itertools.product((2, 1), makers.items()):
            secret = Stored(world, world.access(f"latency-{len(jobs)}", kv=kv))
            jobs.append(make(secret.access))
            (volume,) = jobs[-1].volumes
            watches[name][f"KV v{kv}, {how}"] = Watch(secret, volume, rounds.interval, writes)
    with process.together(jobs):
        _follow([watch for each in watches.values() for watch in each.values()], patience)
    results = {
        name: {measure: watch.latencies for measure, watch in each.items()}
        for name, each in watches.items()
    }
    return side_by_side(f"write to published, s (watched for {patience:g})", results)


def _follow(watches: Sequence[Watch], patience: float) -> None:
    while not all(watch.is_over for watch in watches):
        for watch in watches:
            watch.step(time.monotonic(), patience)
        time.sleep(TICK)


def _by_default(world: World) -> dict[str, Callable[[Access], Job]]:
    """Return what makes agents that stay and are not told how often to poll."""
    words = ("run", "--server", "127.0.0.1:0")
    return {
        "certagent": lambda access: certagent(world, vault(access), *words),
        "bao agent": lambda access: bao_agent(world, access),
    }


@dataclass
class Watch:
    """An agent's directory, while set after set is written to its secret."""

    secret: Stored
    volume: Path
    interval: float
    writes: int
    latencies: list[float] = field(default_factory=list)
    """Seconds from each write to its publication; infinite where that was not seen."""
    _wrote: float | None = None
    _due: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether all that was to be written has been published, or given up."""
        return len(self.latencies) == self.writes or math.inf in self.latencies

    def step(self, now: float, patience: float) -> None:
        """Write, or look, or give up: what it is time for now (monotonic, in seconds)."""
        if self.is_over:
            return
        if self._wrote is None:
            if now >= self._due:
                self._wrote = now
                self.secret.push()
        elif holds(self.volume, self.secret.files):
            self.latencies.append(now - self._wrote)
            self._wrote, self._due = None, now + phase(len(self.latencies)) * self.interval
        elif now > self._wrote + patience:
            self.latencies.append(math.inf)
