"""What a store has held, and the policy by which its roots come and go.

A revision is judged once, when it comes into force, so that a history says the same to everybody
who reads it, whenever he reads it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from certagent.values import Identified, shown

if TYPE_CHECKING:
    from datetime import datetime

    from certagent.material.certificates import Certificate
    from certagent.material.verification import VerifiedBundle

RootT = TypeVar("RootT")
"""Whatever stands for a root certificate, and can be in a set."""


class Policy(Struct, frozen=True):
    """How long a root is distributed before it is signed under, and kept afterwards.

    `distribute` (d) and `retire` (r) are the longest lifetime of a workload certificate in the mesh
    plus `slack`, which covers lag, clock offsets and twice the spread of a push over clusters; a
    signer is replaced `margin` before it expires. All agents of a mesh must have the same policy.
    `immediate` makes every window nothing: the newest revision signs, and its roots are published.
    """

    distribute: timedelta = timedelta(hours=25)
    retire: timedelta = timedelta(hours=25)
    slack: timedelta = timedelta(hours=1)
    margin: timedelta = timedelta(hours=1)
    immediate: bool = False


class HistoricRevision(Identified, Generic[RootT], frozen=True):
    """A version that verified when it came into force, or that was withdrawn since (a tombstone).

    `stored_at` is the store's time, or when it was first seen where the store tells none.
    `not_before` and `not_after` are the latest and the earliest on its path. `anchors` are those of
    its `roots` each of which alone verifies what it signs. A tombstone has none of these: its
    `withdrawn` says what became of it, `withdrawn_at` when, where the store says. All times are
    aware. What never verified is no part of a history.
    """

    version: str
    stored_at: datetime
    not_before: datetime
    not_after: datetime
    roots: frozenset[RootT]
    anchors: frozenset[RootT]
    withdrawn: str = ""
    withdrawn_at: datetime | None = None
    bundle: VerifiedBundle | None = None

    def __repr__(self) -> str:
        """Show what is neither secret nor long."""
        return shown(
            self, "version", "stored_at", "not_before", "not_after", "withdrawn", "withdrawn_at"
        )

    @property
    def identity(self) -> object:
        """All but the bundle."""
        return (
            self.version,
            self.stored_at,
            self.not_before,
            self.not_after,
            self.roots,
            self.anchors,
            self.withdrawn,
            self.withdrawn_at,
        )

    @staticmethod
    def good(
        version: str, stored_at: datetime, verified: VerifiedBundle
    ) -> HistoricRevision[Certificate]:
        """Return the revision of a bundle that verified at max(stored_at, its notBefore)."""
        return HistoricRevision(
            version,
            stored_at,
            verified.not_before,
            verified.not_after,
            frozenset(verified.bundle.roots),
            frozenset(verified.anchors),
            bundle=verified,
        )

    def renewable(self, until: datetime) -> HistoricRevision[RootT]:
        """Return it as of one who is issued another certificate whenever his own gets old.

        It is in force from `stored_at` on, whenever this certificate was made: a pod that is born
        in the middle of a rotation has a fresh one, and must come to the same plan.
        """
        return replace(self, not_before=self.stored_at, not_after=until)

    def stored(self, at: datetime) -> HistoricRevision[RootT]:
        """Return it as if it had been stored at another time.

        With that moves the beginning of a tombstone, and of one who is issued certificates: these
        have no other.
        """
        of_its_own = self.bundle.not_before if self.bundle else self.not_before
        begins_so = bool(self.withdrawn) or of_its_own != self.not_before
        return replace(self, stored_at=at, not_before=at if begins_so else self.not_before)

    @property
    def unrenewed(self) -> HistoricRevision[RootT]:
        """Return it as of one who is not issued another certificate: this one's end is the end."""
        return replace(self, not_after=self.bundle.not_after) if self.bundle else self

    @classmethod
    def tombstone(
        cls, version: str, stored_at: datetime, withdrawn: str, at: datetime | None = None
    ) -> HistoricRevision[RootT]:
        """Return what is left of a version that was deleted, destroyed or disabled."""
        nothing: frozenset[RootT] = frozenset()
        return cls(version, stored_at, stored_at, stored_at, nothing, nothing, withdrawn, at)

    @property
    def start(self) -> datetime:
        """When it comes into force: it is stored and its certificates hold (C7)."""
        return max(self.stored_at, self.not_before)
