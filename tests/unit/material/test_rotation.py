"""`strategy: immediate`, the sentences for the log, and the timeline."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from certagent.material.history import HistoricRevision, Policy
from certagent.material.rotation import Phase, plan

HOUR = timedelta(hours=1)
START = datetime(2026, 7, 1, tzinfo=UTC)
LATER = START + 10_000 * HOUR
A, B = frozenset("A"), frozenset("B")
IMMEDIATE = Policy(immediate=True)


def good(version, hour, roots, *, valid_from=0, expires=10_000):
    at, start, end = (START + each * HOUR for each in (hour, valid_from, expires))
    return HistoricRevision(version, at, start, end, frozenset(roots), frozenset(roots[-1]))


def withdrawn(version, hour):
    return HistoricRevision.tombstone(version, START + hour * HOUR, "deleted")


class TestImmediate:
    """The windows are nothing: the newest in force signs, with its own roots, or nobody does."""

    def test_the_newest_signs_with_its_roots(self):
        decision = plan([good("1", 0, "A"), good("2", 5, "B")], START + 5 * HOUR, IMMEDIATE)

        assert (decision.signer.version, decision.roots) == ("2", B)
        assert decision.phase is Phase.SETTLED

    def test_one_that_starts_later_waits_until_then(self):
        history = [good("1", 0, "A"), good("2", 1, "B", valid_from=5)]

        decision = plan(history, START + 4 * HOUR, IMMEDIATE)

        assert (decision.signer.version, decision.roots) == ("1", A)
        assert decision.changes_at == START + 5 * HOUR
        assert plan(history, decision.changes_at, IMMEDIATE).signer.version == "2"

    def test_a_withdrawn_newest_does_not_bring_back_the_one_before(self):
        decision = plan([good("1", 0, "A"), withdrawn("2", 1)], START + 2 * HOUR, IMMEDIATE)

        assert decision.signer is None
        assert decision.phase is Phase.HOLD
        assert decision.why == "version 2 was deleted"

    def test_an_expired_one_is_not_replaced_by_an_older_one(self):
        history = [good("1", 0, "A"), good("2", 1, "A", expires=9)]

        decision = plan(history, START + 9 * HOUR, IMMEDIATE)

        assert decision.signer is None
        assert decision.why == "version 2 expired at 2026-07-01T09:00:00Z"

    def test_no_revision_is_a_hold(self):
        assert plan([], START, IMMEDIATE).phase is Phase.HOLD
