"""What agents ask of a store that is away, and how soon they have what was written meanwhile."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.benchmarks import process
from tests.benchmarks.agents import polling
from tests.benchmarks.front import Front
from tests.benchmarks.rotation import holds
from tests.benchmarks.stored import Stored
from tests.benchmarks.table import side_by_side
from tests.support.process import until
from tests.support.scripted import ScriptedServer, answer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.benchmarks.interleaving import Rounds
    from tests.benchmarks.process import Job
    from tests.benchmarks.world import World

OUTAGE = 15.0
"""Seconds that it lasts."""

MINUTE = 60.0


def measure(world: World, rounds: Rounds) -> str:
    """Return the table of outages: a server that answers 503, and one that resets connections.

    All rounds are at the same time, each with agents of its own: it is their patience that is
    measured, not what they cost. Every agent has a front of its own, so that each is counted.
    """
    secret = Stored(world, world.access("outage"))
    with ExitStack() as stack:
        sealed = stack.enter_context(ScriptedServer(lambda *_: answer(503, {"errors": ["sealed"]})))
        faults = {"503": sealed.port, "resets": None}
        parties = [
            _party(world, secret, name, fault, stack, rounds)
            for _ in range(rounds.count)
            for name in polling(world, rounds.every)
            for fault in faults
        ]
        stack.enter_context(process.together([party.job for party in parties]))
        began = time.monotonic()
        for party in parties:
            party.front.lead(faults[party.fault])
        secret.push()
        time.sleep(OUTAGE)
        restored = time.monotonic()
        for party in parties:
            party.front.lead(world.openbao.port)
        _wait(parties, secret)
    results: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for party in parties:
        asked = sum(began <= moment < restored for moment in party.front.arrivals)
        measures = results[party.name]
        measures[f"{party.fault}: requests a minute"].append(asked / (restored - began) * MINUTE)
        measures[f"{party.fault}: over to published, s"].append(party.recovered - restored)
    return side_by_side(f"an outage of {OUTAGE:g} s, a poll every {rounds.every}", results)


@dataclass
class _Party:
    """An agent, and the front that its store is behind; `recovered` is when it had the new set."""

    name: str
    fault: str
    front: Front
    job: Job
    recovered: float = 0.0

    @property
    def volume(self) -> Path:
        (volume,) = self.job.volumes
        return volume


def _party(
    world: World, secret: Stored, name: str, fault: str, stack: ExitStack, rounds: Rounds
) -> _Party:
    front = stack.enter_context(Front(world.openbao.port))
    access = replace(secret.access, address=front.address)
    return _Party(name, fault, front, polling(world, rounds.every)[name](access))


def _wait(parties: list[_Party], secret: Stored) -> None:
    """Note for each when it publishes the newest set."""
    waiting = list(parties)

    def all_recovered() -> bool:
        for party in [each for each in waiting if holds(each.volume, secret.files)]:
            party.recovered = time.monotonic()
            waiting.remove(party)
        return not waiting

    until(all_recovered, process.DEADLINE + 2 * OUTAGE)
