"""One judge of what may ever be found in a published directory, whatever goes wrong meanwhile.

A reader finds nothing yet, or one whole set that was pushed, byte for byte, and that verifies:

    with Oracle(directory, first=files(good), second=files(better)) as oracle:
        ...                           # agents that start, are killed, and start again
        oracle.until("second")
    assert oracle.found == ["first", "second"]

It reads from `with` to its end, a thousand times a second, and raises there what it found wrong.
"""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from certagent.errors import MaterialRefused
from certagent.layouts import DATA
from certagent.material.kinds import CA, Kind
from tests.support.process import DEADLINE, until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

NOTHING = "nothing"
PAUSE = 0.001
"""Seconds between two reads."""


class Oracle:
    """Reads a directory in the background, and knows the sets that may be found there, by names.

    `link` leads to the present set: `..data`, or `current` for gateways; it is resolved once a
    read. What was found once must never be gone; `may_vanish` tells that somebody other than the
    agent takes it away, file by file, and `found` tells the end of that as "nothing". Sets may also
    be added later (`expect`), before they are pushed.
    """

    def __init__(
        self,
        directory: Path,
        *,
        link: str = DATA,
        kind: Kind = CA,
        may_vanish: bool = False,
        **sets: Mapping[str, bytes],
    ) -> None:
        self.directory = directory
        self.found: list[str] = []
        self.reads = 0
        self._link = link
        self._kind = kind
        self._may_vanish = may_vanish
        self._sets: dict[str, dict[str, bytes]] = {}
        self._faults: list[str] = []
        self._last: dict[str, bytes] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        for name, files in sets.items():
            self.expect(name, files)

    def expect(self, name: str, files: Mapping[str, bytes]) -> None:
        """Add a set that may be found from now on."""
        self._sets.setdefault(name, dict(files))

    @property
    def now(self) -> str:
        """The name of the set that was found last, or "nothing"."""
        return self.found[-1] if self.found else NOTHING

    def until(
        self, name: str, within: float = DEADLINE, explain: Callable[[], str] = lambda: ""
    ) -> None:
        """Wait until a set is found."""
        until(lambda: self.now == name, within, lambda: f"found {self.found}; {explain()}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)
        assert not self._faults, "\n".join(self._faults)
        assert self.reads, "nothing was ever read"

    def _watch(self) -> None:
        try:
            while not self._ended.wait(PAUSE):
                self._look()
            self._look()  # what the last of all left
        except Exception as error:  # noqa: BLE001 - a judge who has fallen over must not acquit
            self._blame(f"the reader failed: {error!r}")

    def _look(self) -> None:
        self.reads += 1
        files = self._read()
        if files is None or files == self._last:
            return
        if files:
            self._judge(files)
        elif self._may_vanish and self._last:
            self.found.append(NOTHING)
        elif self._last:
            self._blame(f"{self.now!r} has gone, and nothing is there")
        self._last = files

    def _read(self) -> dict[str, bytes] | None:
        """Return the present set, empty where there is none; None where a swap overtook us."""
        link = self.directory / self._link
        try:
            version = os.open(link, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        try:
            read = {name: _content(name, version) for name in self._kind.files.values()}
            files = {name: data for name, data in read.items() if data is not None}
            if files in self._sets.values() or _is_present(link, version):
                return files
        finally:
            os.close(version)
        # Only a version that has gone may lack a file; a mixture has no excuse at all.
        self._judge_parts(files)
        return None

    def _judge(self, files: Mapping[str, bytes]) -> None:
        name = next((name for name, wanted in self._sets.items() if wanted == files), "")
        if not name:
            if not (self._may_vanish and self._is_part(files)):
                self._blame(f"no set that was pushed: {self._told(files)}")
            return
        try:
            self._kind.verify(self._kind.bundle_of(files), datetime.now(UTC))
        except MaterialRefused as refused:
            self._blame(f"{name!r} does not verify: {refused.message}")
        self.found.append(name)

    def _is_part(self, files: Mapping[str, bytes]) -> bool:
        return any(files.items() <= wanted.items() for wanted in self._sets.values())

    def _judge_parts(self, files: Mapping[str, bytes]) -> None:
        if not self._is_part(files):
            self._blame(f"parts of no set that was pushed: {self._told(files)}")

    def _told(self, files: Mapping[str, bytes]) -> str:
        """Say of each file whose it is; never what is in it."""
        owners = {
            file: [name for name, wanted in self._sets.items() if wanted.get(file) == data]
            for file, data in files.items()
        }
        return ", ".join(f"{file} of {' and '.join(of) or 'none'}" for file, of in owners.items())

    def _blame(self, fault: str) -> None:
        if fault not in self._faults:
            self._faults.append(fault)


def _content(name: str, version: int) -> bytes | None:
    try:
        descriptor = os.open(name, os.O_RDONLY, dir_fd=version)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _is_present(link: Path, version: int) -> bool:
    """Whether the link still leads to the version that we hold open."""
    try:
        return os.path.samestat(link.stat(), os.fstat(version))
    except OSError:
        return False
