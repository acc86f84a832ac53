"""Where material goes: one set, made visible at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from certagent.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class Publication(Struct, frozen=True):
    """A set to be published.

    `files` are the contents by name, `private` the names of those that hold keys. `record` is what
    the agent must remember of it (`version`, `source`, …): short strings without secrets.
    """

    files: Mapping[str, bytes]
    private: frozenset[str]
    record: Mapping[str, str]

    def __repr__(self) -> str:
        """Show what is neither secret nor long."""
        return shown(self, "private", "record")


class Snapshot(Struct, frozen=True):
    """What a reader finds: always one whole publication."""

    files: Mapping[str, bytes]
    record: Mapping[str, str]
    published_at: datetime

    def __repr__(self) -> str:
        """Show what is neither secret nor long."""
        return shown(self, "record", "published_at")


class Sink(Protocol):
    """A place that holds one published set."""

    def read(self) -> Snapshot | None:
        """Return what is published now, or None; a damaged set counts as none.

        Raises `OutputError` where the place is not what it must be.
        """
        ...

    def publish(self, publication: Publication) -> Snapshot:
        """Make the set visible at once, or leave what was there; raises `OutputError`."""
        ...

    def remember(self, record: Mapping[str, str]) -> None:
        """Replace the record of the published set, whose files stay; raises `OutputError`."""
        ...

    def tidy(self) -> None:
        """Remove the set before the present one, which slow readers may have held open."""
        ...

    def close(self) -> None:
        """Let go of the place, for another agent to take; the next use takes hold of it again."""
        ...
