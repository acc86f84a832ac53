"""Which revisions a store has held, and which of them was in force when.

`rotation` decides by this alone, so it must not depend on who looks: a revision is judged once, and
what leaves a trace in the timeline is settled by the revision and by those before it.

Inside, moments and spans are whole microseconds (moments since 1970), so that no sum overflows, and
`ALWAYS` and `NEVER` are moments like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from certagent.material.certificates import Certificate
    from certagent.material.verification import VerifiedBundle

RootT = TypeVar("RootT")
"""Whatever stands for a root certificate, and can be in a set."""

Moment = float
"""Whole microseconds since 1970 (an `int`), or `ALWAYS`, or `NEVER`."""

ALWAYS: Moment = float("-inf")
NEVER: Moment = float("inf")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Policy:
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


@dataclass(frozen=True, slots=True)
class HistoricRevision(Generic[RootT]):
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
    bundle: VerifiedBundle | None = field(default=None, repr=False, compare=False)

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


@dataclass(frozen=True, slots=True)
class Windows:
    """A policy in microseconds. `keep` is d + r; `surely` is what clocks cannot cut from it."""

    distribute: int
    retire: int
    slack: int
    margin: int

    @classmethod
    def of(cls, policy: Policy) -> Windows:
        """Return the windows of a policy: all of them 0 where it is `immediate`."""
        if policy.immediate:
            return cls(0, 0, 0, 0)
        spans = (policy.distribute, policy.retire, policy.slack, policy.margin)
        return cls(*(span // _MICROSECOND for span in spans))

    @property
    def keep(self) -> int:
        """How long a root stays after the last revision that signed under it was superseded."""
        return self.distribute + self.retire

    @property
    def surely(self) -> int:
        """How long it stays by every clock of the mesh."""
        return self.keep - self.slack


@dataclass(frozen=True, slots=True)
class Stretch(Generic[RootT]):
    """The time during which a revision is the newest: from `since` to `until`, both included."""

    revision: HistoricRevision[RootT]
    since: Moment
    until: Moment

    @property
    def good(self) -> bool:
        """Whether it has material."""
        return not self.revision.withdrawn

    @property
    def roots(self) -> frozenset[RootT]:
        """The roots that it lists."""
        return self.revision.roots if self.good else frozenset()

    @property
    def anchors(self) -> frozenset[RootT]:
        """The roots that it signs under."""
        return self.revision.anchors if self.good else frozenset()

    @property
    def valid_from(self) -> Moment:
        """Its certificates' notBefore."""
        return moment(self.revision.not_before)

    @property
    def expires(self) -> Moment:
        """Its certificates' notAfter."""
        return moment(self.revision.not_after)


def moment(time: datetime) -> Moment:
    """Return an aware time as a `Moment`."""
    return (time - _EPOCH) // _MICROSECOND


def time_of(when: Moment) -> datetime | None:
    """Return a moment as a time (UTC), or None where no calendar has it."""
    try:
        return _EPOCH + timedelta(microseconds=when)
    except OverflowError:
        return None


def stretches(
    history: Sequence[HistoricRevision[RootT]], now: Moment, windows: Windows
) -> tuple[list[Stretch[RootT]], list[Moment]]:
    """Return what has come into force until `now`, oldest first, and when the others will.

    A revision is in force until the next one is; where the clock of a store stepped back, the later
    version counts. The walk is over revisions, not over times: two may have the same (C25). The
    first one that is known was always there, unless it is a tombstone.
    """
    lasting = list(_lasting(history, windows))
    begins: list[Moment] = []
    earliest = NEVER
    for _, start in reversed(lasting):
        earliest = min(earliest, start)
        begins.append(earliest)
    begins.reverse()
    arrived = sum(begin <= now for begin in begins)
    ends = [*begins[1:arrived], NEVER]
    found = [
        Stretch(revision, begin, end)
        for (revision, _), begin, end in zip(lasting[:arrived], begins, ends, strict=False)
    ]
    if found and found[0].good:
        found[0] = Stretch(found[0].revision, ALWAYS, found[0].until)
    return found, begins[arrived:]


def _lasting(
    history: Sequence[HistoricRevision[RootT]], windows: Windows
) -> Iterator[tuple[HistoricRevision[RootT], Moment]]:
    """Rule 1: leave out what could never sign under a root of its own, with its start.

    - A tombstone that was withdrawn or superseded before its distribution was over (C12). The
      `slack` is for the clocks: nowhere had it begun to sign. Any other is a tombstone in the
      timeline, never a hole that brings an older key back (C13).
    - A set that dies before its own distribution is over, where an older one lives longer: nobody
      could sign after it, while replicas go on with the older and its root runs out (C10).
    """
    starts = [moment(revision.start) for revision in history]
    outlived = False
    for revision, start, next_start in zip(history, starts, [*starts[1:], NEVER], strict=False):
        distributed = start + windows.distribute
        if revision.withdrawn:
            told = revision.withdrawn_at
            gone = min(NEVER if told is None else moment(told), next_start)
            if gone > distributed - windows.slack:
                yield revision, start
            continue
        lives = dies_later(revision, windows)
        if lives or not outlived:
            yield revision, start
        outlived = outlived or lives


def dies_later(revision: HistoricRevision[RootT], windows: Windows) -> bool:
    """Whether a set is still good for signing when its own distribution is over (C10)."""
    distributed = moment(revision.start) + windows.distribute
    return moment(revision.not_after) - windows.margin > distributed + windows.slack


def window(policy: Policy) -> timedelta:
    """Return how far back a history must be read: 2 d + r.

    A root is known for d, and one that somebody signed under is kept for d + r before that.
    """
    return timedelta(0) if policy.immediate else 2 * policy.distribute + policy.retire


def reaches_back(history: Sequence[HistoricRevision[RootT]], now: datetime, policy: Policy) -> bool:
    """Whether nothing that is older than this history could change the plan at `now` or later.

    True as soon as it has a good revision, not one of those that leave no trace, that was in force
    before the `window`. A reader that goes back from the newest may stop there.
    """
    oldest = moment(now) - window(policy) // _MICROSECOND
    windows = Windows.of(policy)
    return any(
        not each.withdrawn and moment(each.start) <= oldest and dies_later(each, windows)
        for each in history
    )
