"""The atomic directory that a reader reads and watches, in istiod's layout or in the gateways'."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from certagent.errors import OutputError
from certagent.layouts import target
from certagent.sinks import Snapshot
from certagent.sinks.held import HeldDirectory, existing, exists, explained, opened
from certagent.sinks.layouts import ISTIOD
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
    from certagent.sinks.layouts import Layout
    from certagent.sinks.version import Entry

_log = logging.getLogger(__name__)


class AtomicDirectory:
    """A sink that is one directory: a version directory with a set, swapped by one rename.

    `layout` says how it looks, `key_mode` and `mode` are the permission bits of keys and of all
    other files. The directory is opened, made where it is missing, and locked at the first use,
    until `close`; who wants to read only calls `read_directory`. What to publish is decided
    elsewhere: a set equal to the present one is published again.
    """

    def __init__(
        self,
        path: str | Path,
        key_mode: int = 0o600,
        mode: int = 0o644,
        *,
        layout: Layout = ISTIOD,
    ) -> None:
        self.path = Path(path)
        self._layout = layout
        self._held = HeldDirectory(self.path)
        self._modes = Modes(private=key_mode, public=mode)
        self._previous = ""
        self._is_swept = True

    def read(self) -> Snapshot | None:
        """Return what is published now, or None; a damaged set counts as none.

        Damaged is a set with a missing file or link, with other bytes or modes than it should have,
        or without a readable record. Raises `OutputError` as `publish` does.
        """
        with explained(f"Cannot use {self.path}"):
            top = self._hold()
            version = self._current(top)
            if not version:
                return None
            try:
                return self._load(version, top)
            except (Damaged, OSError) as damage:
                _log.warning("The set in %s is damaged: %s", self.path, damage)
                return None

    def publish(self, publication: Publication) -> Snapshot:
        """Make the set visible at once, or leave what was there.

        (1) Prepare contents and record in memory: istiod's timer runs from step 4 on, 100 ms.
        (2) Refuse a place that is not ours: other entries under our names, or `tls.crt`, which
            changes what istiod reads.
        (3) Sweep what a killed run left, and the version before the present one.
        (4) Make the version directory.
        (5) Make the link that is to be swapped inside of it, where no watcher of the top sees it.
        (6) Write the record and the files: mode set explicitly, fsync, fsync of the directory.
        (7) Make the links that are missing; until step 8 they lead nowhere, which is not there.
        (8) Fsync the top, and rename the link to the top: this is the publication.
        (9) Fsync the top, and remove the links whose files are gone. The version before goes too,
            or stays until `tidy` or the next publication, as the layout's readers need it.

        A failure up to step 8 raises `OutputError`, and what was made is removed; one after it
        leaves a whole new set, and is a warning.
        """
        published_at = datetime.now(UTC)
        reserved = {*self._layout.reserved, self._layout.link}
        entries = prepare(publication, published_at, self._modes, reserved)  # (1)
        with explained(f"Cannot publish to {self.path}"):
            top = self._hold()
            before = self._current(top)
            self._refuse_foreign(publication.files, top)  # (2)
            self._previous = ""
            self._sweep(top)  # (3)
            try:
                version = self._layout.next_version(published_at, top)
                self._swap(entries, publication.files, version, top)
            except OSError:
                self._sweep(top)
                raise
        self._previous = before if self._layout.keeps_previous else ""
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
        """Remove the set before the present one; what cannot be removed is a warning.

        So is what could not be removed earlier: a gateway may learn by its removal of the rotation.
        """
        if self._previous or not self._is_swept:
            self._previous = ""
            with explained(f"Cannot tidy {self.path}"):
                self._sweep(self._hold())

    def examine(self, files: Iterable[str]) -> None:
        """Raise `OutputError` where `publish` would refuse the place for these files.

        It locks and changes nothing, so that an agent may publish there meanwhile.
        """
        with explained(f"Cannot use {self.path}"):
            top = existing(self.path)
            try:
                self._refuse_reserved(top)
                self._current(top)
                self._refuse_foreign(files, top)
            finally:
                os.close(top)

    def close(self) -> None:
        """Release the directory, for another agent to take."""
        self._held.close()

    def _hold(self) -> int:
        fresh = not self._held.is_held
        top = self._held.descriptor()
        self._refuse_reserved(top)
        if fresh:
            self._sweep(top)
        return top

    def _refuse_reserved(self, top: int) -> None:
        for name, effect in self._layout.reserved.items():
            if exists(name, top):
                raise OutputError(
                    f"{self.path} contains {name!r}. {effect}",
                    hint="Give certagent a directory of its own, or remove the file.",
                )

    def _load(self, name: str, top: int) -> Snapshot:
        with opened(name, top) as version:
            snapshot = load(version, self._modes)
        self._refuse_foreign(snapshot.files, top)
        if missing := self._missing_links(snapshot.files, top):
            raise Damaged(f"the link {next(iter(missing))} is missing")
        return snapshot

    def _current(self, top: int) -> str:
        version = target(self._layout.link, top)
        if version is not None and not self._layout.claims(version):
            raise OutputError(
                f"{self.path}/{self._layout.link} was not made by certagent.",
                hint="Something else publishes there (kubelet, a CSI driver).\n"
                "Give certagent a directory of its own: an emptyDir, not a mounted Secret.",
            )
        return version or ""

    def _refuse_foreign(self, files: Iterable[str], top: int) -> None:
        links = self._layout.links(files).items()
        foreign = [name for name, leads_to in links if target(name, top) not in (None, leads_to)]
        foreign += [name for name in self._claimed(top) if not self._layout.owns(name, top)]
        if foreign:
            raise OutputError(
                f"{self.path}/{foreign[0]} was not made by certagent, and is left alone.",
                hint="Give certagent a directory of its own, or remove the file.",
            )

    def _missing_links(self, files: Iterable[str], top: int) -> dict[str, str]:
        links = self._layout.links(files).items()
        return {name: leads_to for name, leads_to in links if target(name, top) is None}

    def _claimed(self, top: int) -> list[str]:
        return [name for name in os.listdir(top) if self._layout.claims(name)]

    def _swap(self, entries: tuple[Entry, ...], files: Iterable[str], name: str, top: int) -> None:
        link = self._layout.link
        os.mkdir(name, DIRECTORY_MODE, dir_fd=top)  # (4)
        with opened(name, top) as version:
            os.symlink(name, link, dir_fd=version)  # (5)
            write(entries, version)  # (6)
            for file, leads_to in self._missing_links(files, top).items():
                os.symlink(leads_to, file, dir_fd=top)  # (7)
            os.fsync(top)
            os.rename(link, link, src_dir_fd=version, dst_dir_fd=top)  # (8)

    def _settle(self, top: int) -> None:
        try:
            os.fsync(top)
        except OSError as error:
            _log.warning("The set in %s may not outlive a power cut: %s", self.path, error)
        self._sweep(top)

    def _sweep(self, top: int) -> None:
        """Remove what is ours and in no use; a failure is a warning, and hinders nothing."""
        self._is_swept = True
        try:
            for name in self._unused(top):
                self._remove(name, top)
        except (OSError, OutputError) as error:
            self._is_swept = False
            _log.warning("Cannot look for old versions in %s: %s", self.path, error)

    def _unused(self, top: int) -> list[str]:
        keep = (self._current(top), self._previous)
        versions = [name for name in self._claimed(top) if name not in keep]
        return [
            *(name for name in versions if self._layout.owns(name, top)),
            *(name for name in os.listdir(top) if self._leads_nowhere(name, top)),
        ]

    def _leads_nowhere(self, name: str, top: int) -> bool:
        link = self._layout.links((name,)).get(name)
        return link is not None and target(name, top) == link and not exists(link, top)

    def _remove(self, name: str, top: int) -> None:
        try:
            if self._layout.claims(name):
                remove(name, top)
            else:
                os.unlink(name, dir_fd=top)
        except OSError as error:
            self._is_swept = False
            _log.warning("Cannot remove %s from %s: %s", name, self.path, error)
