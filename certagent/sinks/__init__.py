"""Where material goes: one set, made visible at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Publication:
    """A set to be published.

    `files` are the contents by name, `private` the names of those that hold keys. `record` is what
    the agent must remember of it (`version`, `source`, …): short strings without secrets.
    """

    files: Mapping[str, bytes] = field(repr=False)
    private: frozenset[str]
    record: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a reader finds: always one whole publication."""

    files: Mapping[str, bytes] = field(repr=False)
    record: Mapping[str, str]
    published_at: datetime


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
