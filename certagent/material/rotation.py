"""What to publish now, so that no two workloads of a mesh ever refuse each other.

In words: added roots are published at once; a signer signs once its root has been published
everywhere for d; a root that somebody signed under goes d + r after he was superseded; all other
roots follow the newest revision; nobody signs who was not in force within the last d. There are no
special cases for "same roots", "contains" or "roll-back". The rules are numbered as the functions
below are; C1 to C27 are the counterexamples to simpler ones, each a test of that name in
tests/unit/material/test_rotation_counterexamples.py.

**Why it is safe.** A certificate that was signed at t0 and a trust set that was taken at t1 meet
only while |t0 - t1| is less than the lifetime of a certificate: whoever took the set renews both
within it. So it is enough that what s signs at t is trusted by every set that is published in
[t - d, t + r], with d and r no shorter than that lifetime. Let s sign at t.

1. It was ready (rule 4): its anchors are in the roots of every moment in [t - d, t].
2. It was in force within [t - d, t] (rule 4), so it was superseded no earlier than t - d, and its
   anchors are kept (rule 3) until (t - d) + d + r = t + r at least.

There is always a ready one while nothing expires and nothing is withdrawn: the one that was in
force at t - d. Clocks, lags and the spread of a push over clusters shift the two sides by `slack`
at most, which d and r contain. A push that is seen late only extends older roots; the one place
where a clock acts against a push that another agent has not seen yet is the retirement of a root,
and there rule 4 does not count on the last `slack` of it (C19).

**What it assumes.**

1. d and r are at least the longest workload lifetime + slack; slack is at least poll and reload lag
   + 3 clock offsets + a verifier's skew + the error of the store's clock + 2 spreads of a push, and
   at most r. All agents of the mesh have the same policy and the same rules of verification.
2. Every replica sees each push, and its istiod takes each publication, within that lag.
3. The stores of all clusters get the same sequence of roots.
4. The history reaches back over the `window` (or the agent remembers), and no version that signed
   is withdrawn inside of it.
5. A CA lives longer than d + slack + margin when it is pushed, and the one before it until the new
   one is ready. Otherwise somebody must sign too soon: phase `early`, the one phase that can be
   noticed by workloads.

`plan` is pure and total: any history and any clock have an answer, and agents that know the same
history give the same one, restarts and pods that are born in the middle included.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Generic

from msgspec import Struct

from certagent.material import reasons
from certagent.material.history import HistoricRevision, Policy, RootT
from certagent.material.timeline import NEVER, Moment, Stretch, Timeline, Windows, moment, time_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime


class Phase(StrEnum):
    """Where a change of roots stands."""

    DISTRIBUTE = "distribute"
    """The newest revision's root is published; an older one signs until it is known everywhere."""
    SWITCH = "switch"
    """The newest signs; the roots of older ones are kept for what they signed."""
    SETTLED = "settled"
    """The newest revision is published as it is."""
    EARLY = "early"
    """Somebody signs whose root is not yet known everywhere, because nobody else can: an alarm."""
    HOLD = "hold"
    """Nothing may be published: what is out there stays, and an alarm."""


class Plan(Struct, Generic[RootT], frozen=True):
    """What to publish now: the set of `signer`, with `roots`; nothing new where it is None.

    `why` is a sentence for the log. The answer is the same until `changes_at` (UTC), if nothing is
    pushed; None is never. `kept` are the revisions whose anchors are kept in the roots, oldest
    first: the newest good one and those superseded less than d + r ago. Their revocation lists
    belong with them (C22).
    """

    signer: HistoricRevision[RootT] | None
    roots: frozenset[RootT]
    phase: Phase
    why: str
    changes_at: datetime | None
    kept: tuple[HistoricRevision[RootT], ...] = ()


class _Candidate(Struct, Generic[RootT], frozen=True):
    """Who might sign, and the moment from which everybody has known its root for d."""

    stretch: Stretch[RootT]
    ready: Moment


def plan(history: Sequence[HistoricRevision[RootT]], now: datetime, policy: Policy) -> Plan[RootT]:
    """Return what to publish at `now` (aware); `history` is in version order, oldest first.

    Never raises. Reading a store newest first may stop where `reaches_back` says so.
    """
    windows, at = Windows.of(policy), moment(now)
    view = Timeline.of(history, at, windows)
    if not view.good:
        changes_at = time_of(min(view.coming, default=NEVER))
        return Plan(None, frozenset(), Phase.HOLD, reasons.nothing(view), changes_at)
    newest, kept = view.good[-1], view.kept
    roots = _roots(view)
    candidates = _candidates(view)
    changes_at = time_of(_next_edge(view, candidates))
    revisions = tuple(each.revision for each in kept)
    chosen = _signer(candidates, view)
    if chosen is None:
        return Plan(None, roots, Phase.HOLD, reasons.nothing(view), changes_at, revisions)
    roots |= chosen.stretch.anchors
    ready = next((each.ready for each in candidates if each.stretch is newest), NEVER)
    phase = _phase(chosen, ready, roots, view)
    why = _why(phase, chosen, ready, view)
    return Plan(chosen.stretch.revision, roots, phase, why, changes_at, revisions)


def forecast(
    history: Sequence[HistoricRevision[RootT]], now: datetime, policy: Policy, steps: int = 64
) -> Iterator[tuple[datetime, Plan[RootT]]]:
    """Yield what is published from `now` on, and each later change with its time, if nobody pushes.

    Moments at which signer, roots and phase stay as they are (a key leaves the reserve, say) are
    passed over; at most `steps` moments are looked at.
    """
    shown = None
    for _ in range(steps):
        decision = plan(history, now, policy)
        content = (decision.signer, decision.roots, decision.phase)
        if content != shown:
            yield now, decision
            shown = content
        if decision.changes_at is None:
            return
        now = decision.changes_at


# Rule 3: roots


def _roots(view: Timeline[RootT]) -> frozenset[RootT]:
    """Return what the newest lists, and the anchors of each until d + r after it was superseded.

    It may sign for d after that (until the next is ready), and what it signed last lives for r (C2,
    C4, C5, C24). Counted from when the next comes *into force* (C7), also where the next has the
    same roots (C3). A root that nobody signed under is not kept: it is safe to remove it at once. A
    tombstone keeps nothing: who destroys a version ends the trust in it (C14).
    """
    return view.good[-1].roots.union(*(each.anchors for each in view.kept))


# Rule 4: signer


def _published_since(anchors: frozenset[RootT], view: Timeline[RootT]) -> Moment:
    """Return since when one of the anchors has been in the published roots without a gap.

    Readiness belongs to the root, not to the revision (C3): a new intermediate under a known root
    signs at once. NEVER, where it is not published now.
    """
    since = NEVER
    for index in reversed(range(len(view.stretches))):
        stretch = view.stretches[index]
        signed_under = stretch.anchors & anchors or _still_kept(anchors, index, view)
        if not (signed_under or stretch.roots & anchors):
            break
        if not signed_under:
            # Listed alone, a root was away while a later version stood that was withdrawn (C28).
            # The ends count: what was superseded at once may have been all that some agent saw.
            gaps = [
                end for start, end in view.gaps if start <= stretch.until and end >= stretch.since
            ]
            if gaps:
                return min(since, max(gaps))
        since = stretch.since
    return since


def _still_kept(anchors: frozenset[RootT], index: int, view: Timeline[RootT]) -> bool:
    """Whether one of the anchors was kept for an older revision until the end of the stretch.

    `surely`: an agent whose clock is ahead has dropped it already (C19).
    """
    end = min(view.stretches[index].until, view.now)
    return any(
        older.anchors & anchors and older.until + view.windows.surely >= end
        for older in view.stretches[:index]
    )


def _candidates(view: Timeline[RootT]) -> list[_Candidate[RootT]]:
    """Return who may sign: in force within the last d, and neither too young nor expired.

    Who was superseded longer ago does not come back, whatever expires or is withdrawn since: his
    root may be gone elsewhere, and his key was replaced for a reason (C9, C12). A revision that was
    superseded before its notBefore is not yet valid within that d: istiod would refuse it (C26).
    """
    return [
        _Candidate(each, _published_since(each.anchors, view) + view.windows.distribute)
        for each in view.recent
        if each.valid_from <= view.now < each.expires
    ]


def _signer(
    candidates: Sequence[_Candidate[RootT]], view: Timeline[RootT]
) -> _Candidate[RootT] | None:
    """Return the newest whose root everybody has known for d (C1, C3 to C7).

    It must live for `margin` yet: leafs of minutes would storm istiod. Where nobody is ready, the
    one whose root has been known for longest signs early (C11); where all are about to expire, the
    newest goes on to its end.
    """
    lasting = [each for each in candidates if view.now < each.stretch.expires - view.windows.margin]
    ready = [each for each in lasting if each.ready <= view.now]
    if ready:
        return ready[-1]
    if lasting:
        return min(reversed(lasting), key=lambda each: each.ready)
    return candidates[-1] if candidates else None


# Rule 5: when to look again, and what to call it


def _next_edge(view: Timeline[RootT], candidates: Sequence[_Candidate[RootT]]) -> Moment:
    """Return the first moment after `now` at which any of the rules may say something else."""
    windows = view.windows
    edges = (
        *view.coming,
        *(each.until + windows.keep for each in view.good),
        # Who is too old by then to sign at all changes nothing by becoming valid.
        *(
            each.valid_from
            for each in view.recent
            if each.valid_from <= each.until + windows.distribute
        ),
        *(each.ready for each in candidates),
        *(each.stretch.until + windows.distribute + 1 for each in candidates),
        *(each.stretch.expires for each in candidates),
        *(each.stretch.expires - windows.margin for each in candidates),
    )
    return min((edge for edge in edges if edge > view.now), default=NEVER)


def _phase(
    chosen: _Candidate[RootT], newest_ready: Moment, roots: frozenset[RootT], view: Timeline[RootT]
) -> Phase:
    newest = view.good[-1]
    if chosen.ready > view.now:
        return Phase.EARLY
    if chosen.stretch is not newest and newest_ready > view.now:
        return Phase.DISTRIBUTE
    return Phase.SWITCH if roots != newest.roots else Phase.SETTLED


def _why(
    phase: Phase, chosen: _Candidate[RootT], newest_ready: Moment, view: Timeline[RootT]
) -> str:
    if phase is Phase.EARLY:
        return reasons.early(chosen.stretch, chosen.ready, view)
    if chosen.stretch is not view.good[-1]:
        return reasons.not_the_newest(chosen.stretch, newest_ready, view)
    return reasons.switched(view) if phase is Phase.SWITCH else reasons.settled(view)
