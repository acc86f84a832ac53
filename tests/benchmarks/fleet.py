"""How cost grows with the number of agents on one server, all of which begin at the same moment."""

from __future__ import annotations

import math
import os
import statistics
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks import process
from tests.benchmarks.agents import PATH, polling
from tests.benchmarks.figures import MIB, MS, peak_to_mean
from tests.benchmarks.interleaving import interleave
from tests.benchmarks.table import fleets
from tests.support.process import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.benchmarks.interleaving import Rounds
    from tests.benchmarks.process import Job, Staying
    from tests.benchmarks.world import Access, World

COUNTS = (1, 10, 50, 200)
"""Fleets on the way to the greatest that is asked for."""

MOST = 200

POLLS = 3
"""Polls of each agent in the window."""

BINS = 10
"""Bins in an interval, to find the peak in."""

POLLS_A_SECOND = 20.0
"""What all agents together may ask for: the machine that they share is not to be what limits."""


def measure(world: World, rounds: Rounds) -> str:
    """Return the table of fleets of certagent, and of `bao agent`."""
    sizes = counts(rounds.agents)
    rounds = replace(rounds.at_most(2), interval=interval(rounds.agents, rounds.interval))
    access = world.secret(PATH)
    results = {}
    for count in sizes:
        contenders = {
            f"{count} of {name}": partial(_fleet, world, access, make, count, rounds.interval)
            for name, make in polling(world, rounds.every).items()
        }
        samples = interleave(contenders, replace(rounds, warm_ups=0))
        results[count] = {name.partition(" of ")[2]: each for name, each in samples.items()}
    return fleets(f"agents on one server, a poll every {rounds.every}", results)


def counts(most: int) -> tuple[int, ...]:
    """Return the sizes of fleets up to the greatest."""
    return (*(count for count in COUNTS if count < most), most)


def interval(most: int, least: float) -> float:
    """Return the interval for all fleets, in seconds: whole ones beyond the least."""
    return max(least, float(math.ceil(most / POLLS_A_SECOND)))


def _fleet(
    world: World,
    access: Access,
    make: Callable[[Access], Job],
    count: int,
    every: float,
) -> dict[str, float]:
    """Let a fleet begin, and poll for a while; return what that cost."""
    with _gates(world, count) as gates:
        jobs = [make(replace(access, token_file=gate.path)) for gate in gates]
        released = []

        def release() -> None:
            until(lambda: all(gate.is_awaited for gate in gates), process.DEADLINE + count)
            released.append(time.time())
            for gate in gates:
                gate.open()

        with process.together(jobs, release) as agents:
            started = time.time()
            server, cpu = process.cpu(world.openbao.pid), _cpu(agents)
            time.sleep(POLLS * every)
            seconds = time.time() - started
            server, cpu = process.cpu(world.openbao.pid) - server, _cpu(agents) - cpu
            asked = [moment for moment in world.arrivals() if moment >= released[0]]
            ended, bins = started + seconds, POLLS * BINS
            return {
                "begin to all published, ms": (started - released[0]) * MS,
                "requests a second": sum(moment >= started for moment in asked) / seconds,
                "busiest tenth of an interval to the mean": peak_to_mean(
                    asked, started, ended, bins
                ),
                "CPU an agent, % of a core": cpu / seconds / count * 100,
                "CPU of the server, % of a core": server / seconds * 100,
                **_memory(agents),
            }


def _cpu(agents: list[Staying]) -> float:
    return sum(agent.cpu for agent in agents)


def _memory(agents: list[Staying]) -> dict[str, float]:
    """Return memory by agent; only root may know what of it is shared with whom."""
    anonymous = statistics.mean(agent.memory("RssAnon") for agent in agents)
    memory = {"anonymous memory an agent, MiB": anonymous / MIB}
    try:
        share = statistics.mean(agent.share for agent in agents)
    except PermissionError:
        return memory
    return {**memory, "memory an agent, PSS, MiB": share / MIB}


class Gate:
    """A pod's token that is not projected yet: who opens it waits, as long as it is not there.

    So all agents of a fleet have done by themselves what they do before they log in, however
    few cores start them, and log in at the same moment, as after a common restart on many nodes.
    """

    def __init__(self, path: Path, token: Path) -> None:
        self.path = path
        self._token = token
        self._writer = -1
        os.mkfifo(path)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody has opened it."""
        if self._writer < 0:
            try:
                self._writer = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # ENXIO, fifo(7): nobody reads
                return False
        return True

    def open(self) -> None:
        """Give the token, now and to whom asks again."""
        os.write(self._writer, self._token.read_bytes())
        again = self.path.with_suffix(".again")
        again.write_bytes(self._token.read_bytes())
        again.replace(self.path)
        self.close()

    def close(self) -> None:
        """Let go of it."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1


@contextmanager
def _gates(world: World, count: int) -> Iterator[list[Gate]]:
    directory = world.volume()
    gates = [Gate(directory / f"token-{number}", world.token_file) for number in range(count)]
    try:
        yield gates
    finally:
        for gate in gates:
            gate.close()
