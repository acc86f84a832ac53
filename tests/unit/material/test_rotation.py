"""`strategy: immediate`, the sentences for the log, and the timeline."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from certagent.material.history import HistoricRevision, Policy
from certagent.material.rotation import Phase, forecast, plan
from tests.support.letters import DAY, decide, history, time

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


class TestWhy:
    """A plan explains itself with versions and times."""

    @pytest.mark.parametrize(
        ("pushes", "hour", "why"),
        [
            (["[A]/A"], 0, "version 1 signs, and its roots alone are published"),
            (
                ["[A]/A", "[B]/B@0"],
                1,
                (
                    "version 2 signs from 2026-07-02T00:00:00Z, when its root has been published"
                    " for 24 h; until then version 1 does"
                ),
            ),
            (
                ["[A]/A", "[B]/B@0"],
                24,
                "version 2 signs; the roots of version 1 stay until 2026-07-03T00:00:00Z",
            ),
            (
                ["[A]/A", "[B]/B@0", "[C]/C@1"],
                30,
                "version 3 signs; the roots of version 1 and 2 stay until 2026-07-03T01:00:00Z",
            ),
            (
                ["[A]/A expires 12", "[B]/B@0"],
                11,
                (
                    "version 2 signs before its root has been published for 24 h at"
                    " 2026-07-02T00:00:00Z, because no other version can"
                ),
            ),
            (
                ["[A]/A@0 expires 20", "[A]/A'@5 expires 12"],
                11,
                "version 1 signs, because version 2 expires at 2026-07-01T12:00:00Z",
            ),
            (["[A]/A expires 5"], 5, "version 1 expired at 2026-07-01T05:00:00Z"),
            (["[A]/A", "[B]/B@-99 gone 0"], 0, "version 2 was deleted"),
            (
                ["[A]/A@0 valid 5"],
                0,
                "no version is good and in force before 2026-07-01T05:00:00Z",
            ),
            ([], 0, "no version is good and in force"),
        ],
    )
    def test_a_sentence(self, pushes, hour, why):
        assert decide(*pushes, at=hour).why == why

    def test_the_only_revision_is_not_yet_valid_when_a_later_one_is_withdrawn(self):
        past = history("[A]/A@0 valid 90", "[B]/B@1 gone 80")

        decision = plan(past, time(80), DAY)

        assert decision.why == "version 2 was deleted"

    @pytest.mark.parametrize(
        ("distribute", "said"), [(6, "6 s"), (90, "90 s"), (120, "2 min"), (0.5, "0.5 s")]
    )
    def test_short_windows_are_told_in_their_unit(self, distribute, said):
        policy = Policy(timedelta(seconds=distribute), timedelta(hours=1), timedelta(0))

        assert f"for {said};" in plan(history("[A]/A", "[B]/B@0"), time(0), policy).why


def test_the_forecast_of_a_root_rotation():
    steps = list(forecast(history("[A]/A", "[B]/B@0"), time(0), DAY))

    assert [(when, step.phase, step.signer.version) for when, step in steps[:3]] == [
        (time(0), Phase.DISTRIBUTE, "1"),
        (time(24), Phase.SWITCH, "2"),
        (time(48), Phase.SETTLED, "2"),
    ]
