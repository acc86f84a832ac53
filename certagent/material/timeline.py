"""Which revision of a history was in force when: rules 1 and 2 of `rotation`.

The timeline must not depend on who looks. What leaves a trace in it is settled by the revision, by
those before it, and by when the next one came.

Moments and spans are whole microseconds (moments since 1970), so that no sum overflows, and
`ALWAYS` and `NEVER` are moments like any other.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Generic

from msgspec import Struct

from certagent.material.history import HistoricRevision, RootT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from certagent.material.history import Policy

Moment = float
"""Whole microseconds since 1970 (an `int`), or `ALWAYS`, or `NEVER`."""

ALWAYS: Moment = float("-inf")
NEVER: Moment = float("inf")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Windows(Struct, frozen=True):
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


class Stretch(Struct, Generic[RootT], frozen=True):
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


class Timeline(Struct, Generic[RootT], frozen=True):
    """A history as it stands at `now`: rules 1 and 2.

    `stretches` are what has come into force, oldest first, `coming` when the others will. `gaps`
    are the times (from, until) of versions that were withdrawn before they could sign: then the
    roots that the version before them only *listed* were not published.
    """

    stretches: tuple[Stretch[RootT], ...]
    coming: tuple[Moment, ...]
    gaps: tuple[tuple[Moment, Moment], ...]
    now: Moment
    windows: Windows

    @classmethod
    def of(
        cls, history: Sequence[HistoricRevision[RootT]], now: Moment, windows: Windows
    ) -> Timeline[RootT]:
        """Rule 2: a revision is in force until the next one is.

        Where the clock of a store stepped back, the later version counts. The walk is over
        revisions, not over times: two may have the same (C25). The first one that is known was
        always there, unless it is a tombstone.
        """
        lasting, gaps = _traces(history, windows)
        begins = [moment(revision.start) for revision in lasting]
        for index in range(len(begins) - 1, 0, -1):
            begins[index - 1] = min(begins[index - 1], begins[index])
        arrived = sum(begin <= now for begin in begins)
        coming = tuple(begins[arrived:])
        if lasting and not lasting[0].withdrawn:
            begins[0] = ALWAYS
        ends = [*begins[1:arrived], NEVER]
        in_force = zip(lasting[:arrived], begins, ends, strict=False)
        return cls(tuple(Stretch(*each) for each in in_force), coming, gaps, now, windows)

    @property
    def good(self) -> list[Stretch[RootT]]:
        """Those with material."""
        return [each for each in self.stretches if each.good]

    @property
    def recent(self) -> list[Stretch[RootT]]:
        """The good ones that were in force at some moment of the last d."""
        return [each for each in self.good if each.until >= self.now - self.windows.distribute]

    @property
    def kept(self) -> list[Stretch[RootT]]:
        """The good ones that were in force at some moment of the last d + r."""
        return [each for each in self.good if each.until > self.now - self.windows.keep]


def _traces(
    history: Sequence[HistoricRevision[RootT]], windows: Windows
) -> tuple[list[HistoricRevision[RootT]], tuple[tuple[Moment, Moment], ...]]:
    """Rule 1: leave out what could never sign under a root of its own; return the rest, and gaps.

    - A tombstone that was withdrawn or superseded before its distribution was over (C12). The
      `slack` is for the clocks: nowhere had it begun to sign. While it stood, though, it took away
      the roots that the version before it listed, and that is a gap (C28). Any other tombstone
      stays in the timeline: it is no hole that brings an older key back (C13).
    - A set that dies before its own distribution is over, where an older one lives longer: nobody
      could sign after it, while replicas go on with the older and its root runs out (C10). Only an
      older one counts, so that a push never changes what was decided before it (C27).
    """
    lasting: list[HistoricRevision[RootT]] = []
    gaps: list[tuple[Moment, Moment]] = []
    outlived = False
    starts = [moment(revision.start) for revision in history]
    for revision, start, following in zip(history, starts, [*starts[1:], NEVER], strict=False):
        if revision.withdrawn:
            told = revision.withdrawn_at
            gone = min(following, NEVER if told is None else moment(told))
            if gone > start + windows.distribute - windows.slack:
                lasting.append(revision)
            else:
                gaps.append((start, gone))
            continue
        lives = dies_later(revision, windows)
        if lives or not outlived:
            lasting.append(revision)
        outlived = outlived or lives
    return lasting, tuple(gaps)


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
