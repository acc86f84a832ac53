"""What an agent knows of a store's history: every version judged once, read back as needed.

Versions are immutable, so a verdict stands; what can change is that one is withdrawn. While a
change of roots is under way the versions that it depends on are therefore read again at every poll
(a GET of the current version does not tell that an older one was destroyed); otherwise a poll is
one request.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from certagent.errors import MaterialRefused
from certagent.material.history import HistoricRevision, Policy
from certagent.material.kinds import CA, Kind
from certagent.material.pinning import unpinned
from certagent.material.timeline import reaches_back

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta

    from certagent.material.certificates import Certificate
    from certagent.material.finding import Finding
    from certagent.material.verification import VerifiedBundle
    from certagent.sources import Revision, Source

LOOKBACK = 50
"""How many revisions are read at most: five times what KV v2 keeps by default."""


class Judged(Struct, frozen=True):
    """One version of a store, judged once and for ever.

    `revision` is None where it was refused, and `findings` say why; of a good one they are
    warnings. `created_at` is the store's time, or None where it tells none. `expires_at`,
    `is_first` and `is_mixture` are those of `sources.Revision`; `is_issued` tells that nobody
    stored it, `dated_here` that its time is when this process saw it, by its own clock.
    """

    version: str
    created_at: datetime | None
    revision: HistoricRevision[Certificate] | None
    findings: tuple[Finding, ...] = ()
    expires_at: datetime | None = None
    is_first: bool = False
    is_mixture: bool = False
    is_issued: bool = False
    dated_here: bool = False

    @property
    def bundle(self) -> VerifiedBundle | None:
        """The material that verified."""
        return self.revision.bundle if self.revision else None

    @property
    def unrenewed(self) -> Judged:
        """It, once no other certificate is issued in its place."""
        if not self.is_issued or self.revision is None:
            return self
        return replace(self, revision=self.revision.unrenewed)

    def moved(self, by: timedelta) -> Judged:
        """Return it after the clock by which it was dated was set."""
        if not self.dated_here or self.revision is None:
            return self
        return replace(self, revision=self.revision.stored(self.revision.stored_at + by))

    @property
    def withdrawn(self) -> str:
        """How the store took the version back; empty where it did not."""
        return self.revision.withdrawn if self.revision else ""


def judge(
    revision: Revision,
    now: datetime,
    pins: frozenset[str] = frozenset(),
    kind: Kind = CA,
    *,
    seen: datetime | None = None,
) -> Judged:
    """Verify a revision as of the moment it came into force, so that the verdict stands for ever.

    A store without times is judged as of when its content was first `seen`, which is `now` unless
    told; one whose clock is ahead of ours as of `now`, because istiod will read the set by our
    clock. `pins` are the SHA-256
    (hex) of the roots that may be trusted; none means any.
    """
    version, created_at = revision.version, revision.created_at
    stored = created_at or seen or now
    told = partial(
        Judged,
        version,
        created_at,
        expires_at=revision.expires_at,
        is_first=revision.is_first,
        is_mixture=revision.is_mixture,
        is_issued=revision.renewable_until is not None,
    )
    if revision.withdrawn:
        tombstone: HistoricRevision[Certificate] = HistoricRevision.tombstone(
            version, stored, revision.withdrawn, revision.withdrawn_at
        )
        return told(tombstone)
    try:
        bundle = kind.decode(revision.load())
        verified = kind.verify(bundle, max(min(stored, now), bundle.not_before))
    except MaterialRefused as refused:
        return told(None, refused.findings)
    if strangers := tuple(unpinned(bundle, pins)):
        return told(None, strangers)
    good = HistoricRevision.good(version, stored, verified)
    if revision.expires_at is not None:
        # Not a tombstone: its root stays trusted as long as its leafs may live (C8, C9).
        good = replace(good, not_after=min(good.not_after, revision.expires_at))
    if revision.renewable_until is not None:
        good = good.renewable(revision.renewable_until)
    return told(good, verified.warnings)


class Chronicle(Struct):
    """The history of one source, newest first, as far as it has been read.

    `on_judged` is told every new verdict. `first_seen` is when each version of a store that tells
    no times was first seen, by this process or the one before it. `is_cut` says that the plan needs
    more than is known: what was before the oldest revision cannot be told.
    """

    source: Source
    policy: Policy
    pins: frozenset[str] = frozenset()
    kind: Kind = CA
    on_judged: Callable[[Judged], None] = lambda _: None
    entries: tuple[Judged, ...] = ()
    first_seen: dict[str, datetime] = field(default_factory=dict)
    is_cut: bool = False
    _dated_here: str = ""
    _was_set: bool = False

    @property
    def revisions(self) -> list[HistoricRevision[Certificate]]:
        """The good ones and the tombstones, oldest first."""
        return [each.revision for each in reversed(self.entries) if each.revision]

    def known_at(self, now: datetime) -> list[HistoricRevision[Certificate]]:
        """Return what `plan` needs: the revisions, none of them stored later than now.

        A store whose clock is ahead of ours delays nothing. The store's own time stays known: once
        our clock is set right, the windows count from it, as every other agent's do.
        """
        return [each.stored(now) if each.stored_at > now else each for each in self.revisions]

    def clock_was_set(self, by: timedelta) -> None:
        """Take up that the clock was set forward since the last read; a negative `by` is back.

        What this process dated by it moves along, and its windows go on as they were. A store that
        tells times is read again as far as the windows reach: by a clock that was ahead, what is
        within them now was too old to be kept.
        """
        self.entries = tuple(each.moved(by) for each in self.entries)
        self.first_seen = {
            version: seen + by if version == self._dated_here else seen
            for version, seen in self.first_seen.items()
        }
        self._was_set = True

    def read(self, now: datetime, *, again: bool = False) -> None:
        """Bring the history up to date; `again` reads known versions of an open window as well.

        Raises what the source raises, and then nothing is changed: a history that could not be
        read whole is not one.
        """
        found: list[Judged] = []
        told: list[Judged] = []
        remembered: tuple[Judged, ...] | None = None
        for revision in self.source.revisions():
            known = self._known(revision)
            if known is None:
                told.append(self._judge(revision, now))
            found.append(told[-1] if known is None else self.entries[known])
            is_read_again = (again or self._was_set) and revision.created_at
            if known is not None and not is_read_again:
                remembered = self.entries[known + 1 :]
                break
            if self._is_enough(found, now) or len(found) >= LOOKBACK:
                remembered = ()
                break
        before, self._was_set = self.entries, False
        if remembered is None:
            remembered = self._gone_from_the_store(found)
        self.entries = (*found, *remembered)[:LOOKBACK]
        complete = bool(self.entries) and self.entries[-1].is_first
        self.is_cut = not (complete or self._is_enough(self.entries, now))
        for judged in told:
            if judged not in before:
                self.on_judged(judged)

    def _judge(self, revision: Revision, now: datetime) -> Judged:
        if revision.created_at is not None:
            return judge(revision, now, self.pins, self.kind)
        seen = self._seen(revision, now)
        judged = judge(revision, now, self.pins, self.kind, seen=seen)
        return replace(judged, dated_here=revision.version == self._dated_here)

    def _is_enough(self, found: Sequence[Judged], now: datetime) -> bool:
        read = [each.revision for each in found if each.revision]
        return reaches_back(read, now, self.policy)

    def _known(self, revision: Revision) -> int | None:
        """Return the index of what was judged before.

        Versions are immutable, unless withdrawn, and but for how long they may be used; one of the
        same number and another time is of a secret that was deleted whole and made again. A store
        without times has only the present content: what it held before and holds again is a new
        revision.
        """
        entries = self.entries if revision.created_at else self.entries[:1]
        wanted = (
            revision.version,
            revision.created_at,
            revision.withdrawn,
            None if revision.withdrawn else revision.expires_at,
        )
        for index, known in enumerate(entries):
            expires_at = None if known.withdrawn else known.expires_at
            if (known.version, known.created_at, known.withdrawn, expires_at) == wanted:
                # Without the store's time, what our own clock refused may be good by the same
                # clock set right; and of what a former process saw, only the times are known.
                is_unsure = revision.created_at is None and known.bundle is None
                return None if is_unsure else index
        return None

    def _gone_from_the_store(self, found: Sequence[Judged]) -> tuple[Judged, ...]:
        """Return what is remembered and was not found: cut off, or the store keeps no history.

        Where certificates are issued, it is those that are not renewed any more.
        """
        again = {(each.version, each.created_at) for each in found if each.created_at}
        judged_again = found[0].version if found else ""
        return tuple(
            each.unrenewed
            for index, each in enumerate(self.entries)
            if (each.version, each.created_at) not in again
            and not (index == 0 and each.bundle is None and each.version == judged_again)
        )

    def _seen(self, revision: Revision, now: datetime) -> datetime:
        """Return when a version was first seen, where the store does not tell when it was stored.

        An earlier process may have seen it first. Only the newest is remembered: what comes back
        after another was seen now.
        """
        if revision.version not in self.first_seen:
            self._dated_here = revision.version
        seen = self.first_seen.get(revision.version, now)
        self.first_seen = {revision.version: seen}
        return seen
