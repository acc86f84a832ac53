"""What readers of a directory see while its set is replaced: how soon, how whole, how often told.

A rotation is a new intermediate under the same root: its key, its certificate and its chain
change, three of the four files.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks import process
from tests.benchmarks.agents import FILES, polling
from tests.benchmarks.figures import MS, phase
from tests.benchmarks.interleaving import interleave
from tests.benchmarks.stored import Stored
from tests.benchmarks.table import side_by_side
from tests.support.inotify import Inotify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from tests.benchmarks.interleaving import Rounds
    from tests.benchmarks.world import World

    Reader = Callable[[Path], Iterable["Reading"]]

QUIET = 0.25
"""Seconds without an event in the directory after which a rotation is over."""


def measure(world: World, rounds: Rounds) -> str:
    """Return the table of rotations in a directory of certagent's, and in one of `bao agent`'s."""
    makers = polling(world, rounds.every)
    secrets = {name: Stored(world, world.access(f"rotation-{name[:3]}")) for name in makers}
    jobs = {name: make(secrets[name].access) for name, make in makers.items()}
    with ExitStack() as stack:
        stack.enter_context(process.together([*jobs.values()]))
        contenders = {}
        for name, job in jobs.items():
            (volume,) = job.volumes
            watch = stack.enter_context(Inotify(volume))
            contenders[name] = Turns(secrets[name], volume, watch, rounds.interval)
        results = interleave(contenders, rounds)
    return side_by_side(f"a rotation, a poll every {rounds.every}", results)


class Reading(NamedTuple):
    """What was found under a file's name, or None, and the moments before and after."""

    name: str
    content: bytes | None
    before: float
    after: float


@dataclass
class Turns:
    """One agent's turns: each replaces its set twice, under either kind of reader."""

    secret: Stored
    volume: Path
    watch: Inotify
    interval: float
    _number: itertools.count[int] = field(default_factory=itertools.count, init=False)

    def __call__(self) -> dict[str, float | list[float]]:
        """Take a turn, and return what was seen of it."""
        named, resolved = self._rotate(by_name), self._rotate(by_data)
        # What is tidied up with the next poll only counts in the turn after.
        return {
            "write to published, ms": [each.published_after * MS for each in (named, resolved)],
            "old files beside new ones, ms": [each.torn_for * MS for each in (named, resolved)],
            "mixed sets read, by name": named.mixed,
            "mixed sets read, through `..data` where it is": resolved.mixed,
            "inotify events": self._events() / 2,
        }

    def _rotate(self, read: Reader) -> Rotation:
        """Replace the set at a new part of the interval, and read until the new one is there."""
        time.sleep(phase(next(self._number)) * self.interval)
        old = self.secret.files
        began = time.monotonic()
        rotation = Rotation(began, old, self.secret.push())
        while not rotation.is_over:
            if time.monotonic() > began + process.DEADLINE:
                message = f"nothing new in {self.volume} within {process.DEADLINE} s"
                raise process.Failed(message)
            rotation.add(read(self.volume))
        return rotation

    def _events(self) -> int:
        count = 0
        while news := self.watch.wait(QUIET):
            count += len(news)
        return count


@dataclass
class Rotation:
    """What one reader sees of one set becoming another; times are monotonic, in seconds."""

    began: float
    old: Mapping[str, bytes]
    new: Mapping[str, bytes]
    mixed: int = 0
    """How many reads found neither the old set nor the new one."""
    _old_until: float = field(default=0.0, init=False)
    _new_since: float = field(default=math.inf, init=False)
    _over: float = field(default=math.inf, init=False)

    def add(self, read: Iterable[Reading]) -> None:
        """Note what one read found of all files, one after the other."""
        found = {}
        for name, content, before, after in read:
            found[name] = content
            if self.old[name] == self.new[name]:
                continue
            if content == self.new[name]:
                self._new_since = min(self._new_since, after)
            else:
                self._old_until = max(self._old_until, before)
            last = after
        if found == self.new:
            self._over = last
        elif found != self.old:
            self.mixed += 1

    @property
    def is_over(self) -> bool:
        """Whether the new set has been found, whole."""
        return self._over < math.inf

    @property
    def published_after(self) -> float:
        """Seconds from its begin until the new set was found, whole."""
        return self._over - self.began

    @property
    def torn_for(self) -> float:
        """Seconds in which old files were found although new ones had been: at least so long.

        Where one rename changes all of them there is no such time, whenever the reader comes.
        """
        return max(0.0, self._old_until - self._new_since)


def by_name(volume: Path) -> Iterator[Reading]:
    """Read the four files one after the other, each by its own name."""
    for name in FILES:
        before = time.monotonic()
        content = _content(f"{volume}/{name}")
        yield Reading(name, content, before, time.monotonic())


def holds(volume: Path, files: Mapping[str, bytes]) -> bool:
    """Return whether these files are found, each by its own name."""
    return {each.name: each.content for each in by_name(volume)} == files


def by_data(volume: Path) -> Iterator[Reading]:
    """Read them in the directory that `..data` leads to, resolved once; without it, by name."""
    try:
        resolved = os.readlink(f"{volume}/..data")  # noqa: PTH115 - a tight loop
    except FileNotFoundError:
        resolved = ""
    return by_name(volume / resolved)


def _content(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)
