"""What operators write to: a store that takes a whole set, and says how long it remembers.

Nothing of this is imported by an agent, whose login may read and no more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from certagent.sources import Source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from certagent.errors import OutputError
    from certagent.material.raw import RawBundle

NEW = "new"
"""What a version is called that its store will not name."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store holds before a push: what the write is checked against, and all of its fields.

    `version` is the newest one's name, empty where there is none or the store names none;
    `following` is what the pushed one will be called. `ids` are the store's own names of all that
    was there, where parts are versioned one by one. A version that was withdrawn has no fields.
    """

    version: str = ""
    following: str = NEW
    fields: Mapping[str, object] = field(default_factory=dict, repr=False)
    ids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a store keeps versions: how many (None: all), and how long (`768h0m0s`), if it ends.

    KV v2 has both; Key Vault neither.
    """

    max_versions: int | None = None
    delete_after: str = ""


class Store(Source, Protocol):
    """A source that a set can be pushed to."""

    @property
    def keeps_history(self) -> bool:
        """Whether older versions can be read; raises what `revisions` raises."""
        ...

    def read(self) -> Stored:
        """Return what it holds now; raises `AccessDenied` or `SourceUnavailable`."""
        ...

    def fields(self, raw: RawBundle, before: Stored) -> dict[str, object]:
        """Return what is to be stored for a set; fields that are not ours stay.

        Raises `MaterialRefused` or `ConfigurationError` where it cannot hold the set.
        """
        ...

    def write(self, fields: Mapping[str, object], before: Stored) -> str:
        """Store these fields, and return the version's name; empty where the store names none.

        Raises `OutputError` where somebody stored another version since `before`, `AccessDenied`,
        or `SourceUnavailable`. To push again does no harm after any of them.
        """
        ...

    def load(self, version: str) -> RawBundle:
        """Return the parts of a version as it is stored; raises what `revisions` and it raise."""
        ...

    def retention(self) -> Retention | None:
        """Return how long versions are kept, or None where the login may not look."""
        ...

    def conflict(self, version: str) -> OutputError:
        """Return the error for a push that another one overtook: this version is the newest."""
        ...
