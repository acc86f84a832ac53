"""What agents cost that poll as seldom as by default, in a mesh where nothing changes."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

from tests.benchmarks import process
from tests.benchmarks.agents import PATH, polling
from tests.benchmarks.table import side_by_side

if TYPE_CHECKING:
    from tests.benchmarks.interleaving import Rounds
    from tests.benchmarks.world import World

INTERVAL = 30.0
"""Seconds: certagent's default."""

POLLS = 2
"""Intervals that are watched, after one in which the first poll comes."""


def measure(world: World, rounds: Rounds) -> str:
    """Return the table of as many agents of each as there are rounds, all side by side.

    Idle agents are not in each other's way, and one after the other they would take long.
    """
    access, every = world.secret(PATH), f"{INTERVAL:g}s"
    contenders = [*polling(world, every).items()] * rounds.count
    jobs = [(name, job(access)) for name, job in contenders]
    costs: dict[str, list[float]] = defaultdict(list)
    with process.together([job for _, job in jobs]) as agents:
        time.sleep(INTERVAL)
        before, began = [agent.cpu for agent in agents], time.monotonic()
        time.sleep(POLLS * INTERVAL)
        seconds = time.monotonic() - began
        for (name, _), agent, spent in zip(jobs, agents, before, strict=True):
            costs[name].append((agent.cpu - spent) / seconds * 100)
    results = {name: {"CPU, % of a core": samples} for name, samples in costs.items()}
    return side_by_side(f"idle, a poll every {every}", results)
