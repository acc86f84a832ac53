"""How cost grows with the number of agents on one server, all of which begin at the same moment."""

from __future__ import annotations

import math
import os
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

from tests.benchmarks import process
from tests.benchmarks.agents import PATH, polling
from tests.benchmarks.figures import MIB, MS, peak_to_mean
from tests.benchmarks.interleaving import interleave
from tests.benchmarks.table import fleets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.benchmarks.interleaving import Rounds
    from tests.benchmarks.process import Job, Staying
    from tests.benchmarks.world import Access, World

COUNTS = (1, 10, 50, 200)
"""Fleets on the way to the greatest that is asked for."""

MOST = 200

POLLS = 2
"""Polls of each agent in the window."""

BINS = 10
"""Bins in an interval, to find the peak in. One agent alone fills one of them."""

POLLS_A_SECOND = 10.0
"""What all agents together may ask for: the machine that they share is not to be what limits.

They are to have begun, too, long before they poll: their logins keep a core busy for a while.
"""


def measure(world: World, rounds: Rounds) -> str:
    """Return the table of fleets of certagent, and of `bao agent`."""
    sizes = counts(rounds.agents)
    rounds = replace(rounds.at_most(2), interval=interval(rounds.agents, rounds.interval))
    access = world.by_approle(world.secret(PATH))
    results = {}
    for count in sizes:
        contenders = {
            f"{count} of {name}": partial(_fleet, world, access, make, count, rounds.interval)
            for name, make in polling(world, rounds.every).items()
        }
        samples = interleave(contenders, replace(rounds, warm_ups=0))
        results[count] = {name.partition(" of ")[2]: each for name, each in samples.items()}
    return fleets(f"agents on one server, a poll every {rounds.every}, bins of a tenth", results)


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
    with _gates(world, access, count) as gates:
        jobs = [make(replace(access, token_file=gate.path)) for gate in gates]
        moments = []

        def begin() -> bool:
            if not all(gate.is_awaited for gate in gates):
                return False
            moments.append(time.time())
            for gate in gates:
                gate.open()
            return True

        with process.together(jobs, begin) as agents:
            return {**_costs(world, agents, moments[0], every), **_memory(agents)}


def _costs(world: World, agents: list[Staying], released: float, every: float) -> dict[str, float]:
    """Let agents that have just published poll for a while; return what was asked, and CPU."""
    published = time.time()
    # Between two polls of those who began together, so that the window has as many as it is long.
    time.sleep(every / 2)
    began = time.time()
    server, cpu = process.cpu(world.openbao.pid), _cpu(agents)
    time.sleep(POLLS * every)
    ended = time.time()
    seconds = ended - began
    server, cpu = process.cpu(world.openbao.pid) - server, _cpu(agents) - cpu
    asked = [moment for moment in world.arrivals() if released <= moment < ended]
    width = every / BINS
    return {
        "begin to all published, ms": (published - released) * MS,
        "requests a second": sum(moment >= began for moment in asked) / seconds,
        "peak to mean from the begin": peak_to_mean(asked, released, ended, width),
        "peak to mean of the polls": peak_to_mean(asked, began, ended, width),
        "CPU an agent, % of a core": cpu / seconds / len(agents) * 100,
        "CPU of the server, % of a core": server / seconds * 100,
    }


def _memory(agents: list[Staying]) -> dict[str, float]:
    return {
        "memory an agent, PSS, MiB": _share(agents) / MIB,
        "anonymous memory an agent, MiB": fmean(each.memory("RssAnon") for each in agents) / MIB,
    }


def _cpu(agents: list[Staying]) -> float:
    return sum(agent.cpu for agent in agents)


def _share(agents: list[Staying]) -> float:
    """Return the bytes of memory by agent, or NaN where only root may know what is shared."""
    try:
        return fmean(agent.share for agent in agents)
    except PermissionError:
        return math.nan


class Gate:
    """A secret id that is not there yet: who opens its file waits.

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
def _gates(world: World, access: Access, count: int) -> Iterator[list[Gate]]:
    directory = world.volume()
    gates = [Gate(directory / f"token-{number}", access.token_file) for number in range(count)]
    try:
        yield gates
    finally:
        for gate in gates:
            gate.close()
