"""A store and a volume in memory, for the agent's own decisions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from certagent.sinks import Publication, Snapshot
from certagent.sources import Revision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from certagent.material.raw import RawBundle


@dataclass
class MemorySource:
    """Revisions, newest first; `reads` counts those asked for, `fault` is raised instead."""

    name: str = "memory:"
    versions: list[Revision] = field(default_factory=list)
    fault: Exception | None = None
    reads: int = 0

    def push(
        self,
        raw: RawBundle | Exception,
        *,
        created_at: datetime | None = None,
        version: str = "",
    ) -> None:
        def load() -> RawBundle:
            if isinstance(raw, Exception):
                raise raw
            return raw

        number = version or str(len(self.versions) + 1)
        self.versions.insert(0, Revision(number, created_at, load, is_first=number == "1"))

    def withdraw(self, how: str = "deleted") -> None:
        newest = self.versions[0]
        self.versions[0] = Revision(newest.version, newest.created_at, newest.load, withdrawn=how)

    def revisions(self) -> Iterator[Revision]:
        if self.fault:
            raise self.fault
        for revision in tuple(self.versions):
            self.reads += 1
            yield revision


@dataclass
class MemorySink:
    """A volume; `fault` is raised by every use, `writes` counts publications."""

    snapshot: Snapshot | None = None
    fault: Exception | None = None
    writes: int = 0
    closed: int = 0
    tidied: int = 0

    def read(self) -> Snapshot | None:
        if self.fault:
            raise self.fault
        return self.snapshot

    def publish(self, publication: Publication) -> Snapshot:
        if self.fault:
            raise self.fault
        self.writes += 1
        self.snapshot = Snapshot(publication.files, publication.record, datetime.now(UTC))
        return self.snapshot

    def remember(self, record: Mapping[str, str]) -> None:
        assert self.snapshot is not None
        self.snapshot = replace(self.snapshot, record=dict(record))

    def tidy(self) -> None:
        self.tidied += 1

    def close(self) -> None:
        self.closed += 1


@dataclass
class MemoryConnection:
    """A login that counts."""

    requests: Counter[str] = field(default_factory=Counter)
    logins: Counter[str] = field(default_factory=Counter)
    closed: int = 0

    def close(self) -> None:
        self.closed += 1


class Silence:
    """A listener that does nothing."""

    def changing(self, bundle: str) -> None:
        pass

    def changed(self, change: object) -> None:
        pass
