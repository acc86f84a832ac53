"""The atomic directory that istiod reads and watches, in the layout of kubelet's AtomicWriter."""

from __future__ import annotations

import logging
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from certagent.errors import OutputError
from certagent.sinks import Snapshot
from certagent.sinks.held import OPEN_DIRECTORY, HeldDirectory, exists, explained, opened, target
from certagent.sinks.version import (
    DIRECTORY_MODE,
    Damaged,
    Modes,
    annotate,
    load,
    prepare,
    remove,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from certagent.sinks import Publication
    from certagent.sinks.version import Entry

_log = logging.getLogger(__name__)

DATA = "..data"
_STAMP = re.compile(r"\.\.[0-9]{8}T[0-9]{6}\.[0-9]{6}-[0-9a-f]{8}")
_RESERVED = {
    # pilot/pkg/bootstrap/istio_ca.go: detectSigningCABundleAndCRL, createIstioCA
    "tls.crt": "With it istiod reads the kubernetes.io/tls layout and none of certagent's files.",
    "istio-generated": "With it istiod may take the set for its own self-signed one.",
}


class AtomicDirectory:
    """A sink in istiod's layout: one set of files, swapped by one rename.

        ..20260822T101500.123456-9f3a61c2/   the files, and the agent's record of them
        ..data -> ..20260822T101500.123456-9f3a61c2
        ca-key.pem -> ..data/ca-key.pem      and so on; nothing else of ours stands at the top

    `key_mode` and `mode` are the permission bits of keys and of all other files. The directory is
    opened, made where it is missing, and locked at the first use, until `close`; who wants to read
    only calls `read_directory`. What to publish is decided elsewhere: a set equal to the present
    one is published again.
    """

    def __init__(self, path: str | Path, key_mode: int = 0o600, mode: int = 0o644) -> None:
        self.path = Path(path)
        self._held = HeldDirectory(self.path)
        self._modes = Modes(private=key_mode, public=mode)
        self._previous = ""

    def read(self) -> Snapshot | None:
        """Return what is published now, or None; a damaged set counts as none.

        Damaged is a set with a missing file or link, with other bytes or modes than it should have,
        or without a readable record. Raises `OutputError` as `publish` does.
        """
        with explained(f"Cannot use {self.path}"):
            top = self._hold()
            stamp = self._current(top)
            if not stamp:
                return None
            try:
                return self._load(stamp, top)
            except (Damaged, OSError) as damage:
                _log.warning("The set in %s is damaged: %s", self.path, damage)
                return None

    def publish(self, publication: Publication) -> Snapshot:
        """Make the set visible at once, or leave what was there.

        (1) Prepare contents and record in memory: istiod's timer runs from step 4 on, 100 ms.
        (2) Refuse a place that is not ours: other entries under our names, or `tls.crt`, which
            changes what istiod reads.
        (3) Sweep what a killed run left, and the version before the present one.
        (4) Make the version directory `..<stamp>`.
        (5) Make the link that will be `..data` inside of it, where no watcher of the top sees it.
        (6) Write the files and the record: mode set explicitly, fsync, fsync of the directory.
        (7) Make the links that are missing; until step 8 they lead nowhere, which is not there.
        (8) Fsync the top, and rename the link to the top's `..data`: this is the publication.
        (9) Fsync the top, and remove the links whose files are gone. The version before stays for
            readers that have resolved `..data` already, until `tidy` or the next publication.

        A failure up to step 8 raises `OutputError`, and what was made is removed; one after it
        leaves a whole new set, and is a warning.
        """
        published_at = datetime.now(UTC)
        entries = prepare(publication, published_at, self._modes, reserved=_RESERVED)  # (1)
        with explained(f"Cannot publish to {self.path}"):
            top = self._hold()
            before = self._current(top)
            self._refuse_foreign(publication.files, top)  # (2)
            self._previous = ""
            self._sweep(top)  # (3)
            try:
                self._swap(entries, publication.files, _stamp(published_at), top)
            except OSError:
                self._sweep(top)
                raise
        self._previous = before
        self._settle(top)  # (9)
        return Snapshot(dict(publication.files), dict(publication.record), published_at)

    def remember(self, record: Mapping[str, str]) -> None:
        """Replace the record of the published set; raises `OutputError`."""
        with explained(f"Cannot write to {self.path}"):
            top = self._hold()
            try:
                with opened(self._current(top), top) as version:
                    annotate(record, version)
            except Damaged as damage:
                raise OutputError(f"The set in {self.path} is damaged: {damage}.") from damage

    def tidy(self) -> None:
        """Remove the set before the present one; what cannot be removed is a warning."""
        if self._previous:
            self._previous = ""
            with explained(f"Cannot tidy {self.path}"):
                self._sweep(self._hold())

    def close(self) -> None:
        """Release the directory, for another agent to take."""
        self._held.close()

    def _hold(self) -> int:
        fresh = not self._held.is_held
        top = self._held.descriptor()
        for name, effect in _RESERVED.items():
            if exists(name, top):
                raise OutputError(
                    f"{self.path} contains {name!r}. {effect}",
                    hint="Give certagent a directory of its own, or remove the file.",
                )
        if fresh:
            self._sweep(top)
        return top

    def _load(self, stamp: str, top: int) -> Snapshot:
        with opened(stamp, top) as version:
            snapshot = load(version, self._modes)
        self._refuse_foreign(snapshot.files, top)
        if missing := _missing_links(snapshot.files, top):
            raise Damaged(f"the link {missing[0]} is missing")
        return snapshot

    def _current(self, top: int) -> str:
        stamp = target(DATA, top)
        if stamp is not None and not _STAMP.fullmatch(stamp):
            raise OutputError(
                f"{self.path}/{DATA} was not made by certagent.",
                hint="Something else publishes there (kubelet, a CSI driver).\n"
                "Give certagent a directory of its own: an emptyDir, not a mounted Secret.",
            )
        return stamp or ""

    def _refuse_foreign(self, names: Iterable[str], top: int) -> None:
        for name in names:
            if target(name, top) not in (None, _link(name)):
                raise OutputError(
                    f"{self.path}/{name} was not made by certagent, and is left alone.",
                    hint="Give certagent a directory of its own, or remove the file.",
                )

    def _swap(self, entries: tuple[Entry, ...], names: Iterable[str], stamp: str, top: int) -> None:
        os.mkdir(stamp, DIRECTORY_MODE, dir_fd=top)  # (4)
        with opened(stamp, top) as version:
            os.symlink(stamp, DATA, dir_fd=version)  # (5)
            write(entries, version)  # (6)
            for name in _missing_links(names, top):
                os.symlink(_link(name), name, dir_fd=top)  # (7)
            os.fsync(top)
            os.rename(DATA, DATA, src_dir_fd=version, dst_dir_fd=top)  # (8)

    def _settle(self, top: int) -> None:
        try:
            os.fsync(top)
        except OSError as error:
            _log.warning("The set in %s may not outlive a power cut: %s", self.path, error)
        self._sweep(top)

    def _sweep(self, top: int) -> None:
        """Remove what is ours and in no use; a failure is a warning, and hinders nothing."""
        try:
            for name in self._unused(top):
                self._remove(name, top)
        except (OSError, OutputError) as error:
            _log.warning("Cannot look for old versions in %s: %s", self.path, error)

    def _unused(self, top: int) -> list[str]:
        keep = (self._current(top), self._previous)
        return [
            name
            for name in os.listdir(top)
            if (_STAMP.fullmatch(name) and name not in keep) or _leads_nowhere(name, top)
        ]

    def _remove(self, name: str, top: int) -> None:
        try:
            if _STAMP.fullmatch(name):
                remove(name, top)
            else:
                os.unlink(name, dir_fd=top)
        except OSError as error:
            _log.warning("Cannot remove %s from %s: %s", name, self.path, error)


def read_directory(path: str | Path) -> Snapshot | None:
    """Return what a reader finds in a published directory, or None where no whole set is.

    Needs no lock: `..data` is resolved once, and once more only if it was swapped meanwhile.
    Raises `OutputError` where the directory cannot be read.
    """
    with explained(f"Cannot read {path}"):
        try:
            top = os.open(path, OPEN_DIRECTORY)
        except FileNotFoundError:
            return None
        try:
            return _read_current(top)
        finally:
            os.close(top)


def _read_current(top: int) -> Snapshot | None:
    while True:
        try:
            version = os.open(DATA, OPEN_DIRECTORY, dir_fd=top)
        except FileNotFoundError:
            return None
        try:
            return load(version)
        except Damaged:
            # Two swaps while we read remove what we read: every further turn needs two more.
            if _is_current(version, top):
                return None
        finally:
            os.close(version)


def _is_current(version: int, top: int) -> bool:
    try:
        return os.path.samestat(os.fstat(version), os.stat(DATA, dir_fd=top))
    except FileNotFoundError:
        return True


def _stamp(moment: datetime) -> str:
    """Return a name that was never used: the time is for the eye, the rest for uniqueness."""
    return f"..{moment:%Y%m%dT%H%M%S.%f}-{os.urandom(4).hex()}"


def _link(name: str) -> str:
    return f"{DATA}/{name}"


def _missing_links(names: Iterable[str], top: int) -> list[str]:
    return [name for name in names if target(name, top) is None]


def _leads_nowhere(name: str, top: int) -> bool:
    return target(name, top) == _link(name) and not exists(_link(name), top)
