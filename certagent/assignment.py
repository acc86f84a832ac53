"""What is to be kept published, and what a publication changes: plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct, field

from certagent.material.history import Policy
from certagent.material.kinds import CA, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from certagent.material.verification import VerifiedBundle
    from certagent.sinks import Sink, Snapshot
    from certagent.sources import Source


class Reader(Struct, frozen=True):
    """What the reader of a directory can do with a change of roots.

    `may_run`: it may have read what is published; before its first start anything can be published.
    `takes_roots`: it follows such a change, by a reload or because hooks restart it. `pace` is how
    long it may take to read a set, in seconds: a bridge stands for so long.
    """

    may_run: bool = False
    takes_roots: bool = True
    pace: float = 0.0


class Assignment(Struct, frozen=True):
    """One bundle to keep published: from where, to where, and by which rules.

    `pins` are the SHA-256 (hex) of the roots that may be published, none means any. `fallback` is
    what a start uses that cannot reach its store. `watched`: the source tells when it changes.
    `store` is the same for all bundles whose sources share a `Connection`, and empty where there is
    none.
    """

    name: str
    source: Source
    sink: Sink
    required: bool = True
    policy: Policy = field(default_factory=Policy)
    pins: frozenset[str] = frozenset()
    reader: Reader = Reader()
    fallback: Source | None = None
    watched: bool = False
    kind: Kind = CA
    store: str = ""


class Change(Struct, frozen=True):
    """What a publication changed, for those who are told of it; `at` is monotonic, in seconds."""

    bundle: str
    kind: Kind
    verified: VerifiedBundle
    record: Mapping[str, str]
    before: Snapshot | None
    files: frozenset[str]
    at: float

    @property
    def roots(self) -> bool:
        """Whether the reader's trust changed."""
        return self.kind.roots_file in self.files


class Listener(Protocol):
    """Who is told of publications; it never blocks for long, and never raises."""

    def changing(self, bundle: str) -> None:
        """Take note that a bundle is about to change."""
        ...

    def changed(self, change: Change) -> None:
        """Take note of a publication."""
        ...


def changes(before: Snapshot | None, files: Mapping[str, bytes]) -> str:
    """Return the names of the files that a publication changes, with spaces between."""
    old = before.files if before else {}
    names = sorted(old.keys() | files.keys())
    return " ".join(name for name in names if old.get(name) != files.get(name))
