"""What speaks against a push: decided from the history alone, without a store."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from msgspec.structs import replace

from certagent.chronicle import judge
from certagent.cli.proposal import Proposal
from certagent.cli.show import windows
from certagent.material.finding import Severity
from certagent.material.history import Policy
from certagent.sources import Revision
from certagent.sources.writing import Retention
from tests.support.material import NOW, make_root

A, B = make_root(subject="CN=Root A"), make_root(subject="CN=Root B")
HOUR = timedelta(hours=1)
POLICY = Policy()


def judged(version: int, raw, *, hours_ago: float, withdrawn: str = ""):
    at = NOW - hours_ago * HOUR
    return judge(Revision(str(version), at, lambda: raw, withdrawn=withdrawn), NOW)


def proposal(new, *history, **changes) -> Proposal:
    """`new` pushed now, after `history`, newest first."""
    number = len(history) + 1
    proposed = judged(number, new, hours_ago=0)
    given = {"retention": Retention(10), **changes}
    return Proposal(proposed.revision, history, NOW, POLICY, **given)


def codes(proposed: Proposal, severity: Severity, **flags: bool) -> list[str]:
    found = proposed.findings(**{"force": False, "rollback": False, **flags})
    return [finding.code for finding in found if finding.severity is severity]


class TestRetention:
    """C16: how many versions a change of roots still needs."""

    def history(self, *ages: float):
        """Sets of root A, the newest first."""
        raws = [A.intermediate("cluster1").raw() for _ in ages]
        numbers = range(len(ages), 0, -1)
        return [
            judged(number, raw, hours_ago=age)
            for number, raw, age in zip(numbers, raws, ages, strict=True)
        ]

    def test_a_version_within_the_window_must_not_be_cut_off(self):
        proposed = proposal(B.intermediate().raw(), *self.history(1, 70), retention=Retention(1))

        assert codes(proposed, Severity.ERROR) == ["history-cut"]

    def test_the_last_version_in_force_before_the_window_is_needed_too(self):
        proposed = proposal(B.intermediate().raw(), *self.history(1, 100), retention=Retention(3))
        assert codes(proposed, Severity.ERROR) == []

        proposed = proposal(B.intermediate().raw(), *self.history(1, 100), retention=Retention(2))
        assert codes(proposed, Severity.ERROR) == ["history-cut"]

    def test_a_version_that_a_newer_one_made_superfluous_may_go(self):
        history = self.history(76, 100)

        proposed = proposal(B.intermediate().raw(), *history, retention=Retention(2))

        assert codes(proposed, Severity.ERROR) == []

    def test_a_refused_version_may_go(self):
        bad = judged(1, replace(A.intermediate().raw(), chain=b""), hours_ago=100)
        good = self.history(80, 101)[0]

        proposed = proposal(B.intermediate().raw(), good, bad, retention=Retention(2))

        assert codes(proposed, Severity.ERROR) == []

    @pytest.mark.parametrize(
        ("retention", "warned"),
        [
            (None, ["retention-unknown"]),
            (Retention(9), ["few-versions"]),
            (Retention(10, "768h0m0s"), ["versions-deleted"]),
            (Retention(10), []),
            (Retention(), []),
        ],
    )
    def test_what_will_cut_the_history_off_one_day_is_warned_of(self, retention, warned):
        proposed = proposal(A.intermediate().raw(), *self.history(100), retention=retention)

        assert codes(proposed, Severity.WARNING) == warned


class TestOlder:
    def test_the_newest_good_set_may_be_pushed_again_over_a_bad_one(self):
        good = A.intermediate().raw()
        history = [
            judged(2, replace(good, chain=b""), hours_ago=1),
            judged(1, good, hours_ago=100),
        ]

        assert codes(proposal(good, *history), Severity.ERROR) == []

    def test_it_may_be_pushed_again_although_it_was_there_twice(self):
        good = A.intermediate().raw()
        history = [
            judged(3, replace(good, chain=b""), hours_ago=1),
            judged(2, good, hours_ago=50),
            judged(1, good, hours_ago=100),
        ]

        assert codes(proposal(good, *history), Severity.ERROR) == []

    def test_rollback_makes_it_a_warning(self):
        old, new = A.intermediate().raw(), A.intermediate().raw()
        proposed = proposal(old, judged(2, new, hours_ago=1), judged(1, old, hours_ago=100))

        assert codes(proposed, Severity.ERROR) == ["older-than-stored"]
        assert codes(proposed, Severity.ERROR, rollback=True) == []
        assert codes(proposed, Severity.WARNING, rollback=True) == ["older-than-stored"]


class TestWithdrawn:
    def test_after_versions_that_were_all_withdrawn_anything_goes(self):
        history = [judged(1, None, hours_ago=100, withdrawn="destroyed")]

        proposed = proposal(A.intermediate().raw(), *history)

        assert codes(proposed, Severity.ERROR) == []


class TestOnTheWay:
    """C22: a set that works alone, and not while it is joined with the one before."""

    def test_lists_of_the_old_ca_alone_would_refuse_everybody_under_the_new_one(self):
        old = A.intermediate("cluster1")
        history = judged(1, old.raw(crls=old.crl() + A.crl()), hours_ago=100)
        assert history.revision

        proposed = proposal(B.intermediate().raw(), history)

        assert "crl-missing" in codes(proposed, Severity.ERROR)
        assert "crl-missing" in codes(proposed, Severity.WARNING, force=True)
        (found,) = [
            each
            for each in proposed.findings(force=False, rollback=False)
            if each.code == "crl-missing"
        ]
        assert found.message.startswith("In phase switch (")

    def test_a_change_that_works_in_every_phase_has_no_findings(self):
        history = judged(1, A.intermediate().raw(), hours_ago=100)

        assert proposal(B.intermediate().raw(), history).findings(force=False, rollback=False) == ()


class TestShortLived:
    """C10."""

    def soon(self, ca):
        return ca.intermediate(not_after=NOW + 26.5 * HOUR).raw()

    def test_it_is_refused_where_an_older_one_lives_longer(self):
        history = judged(1, A.intermediate().raw(), hours_ago=100)

        assert codes(proposal(self.soon(B), history), Severity.ERROR) == ["expires-before-switch"]

    def test_it_is_taken_where_there_is_none(self):
        assert codes(proposal(self.soon(B)), Severity.ERROR) == []


class TestWithoutStaging:
    def test_immediate_asks_for_no_history(self):
        history = judged(1, A.intermediate().raw(), hours_ago=1)
        proposed = dataclasses.replace(
            proposal(B.intermediate().raw(), history, remembers=False),
            policy=Policy(immediate=True),
        )

        assert "root-dropped" not in codes(proposed, Severity.ERROR)
        assert proposed.phases()[0][1].phase == "settled"


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (Policy(), "distribute 25h, retire 25h, slack 1h"),
        (
            Policy(timedelta(minutes=90), timedelta(seconds=6), timedelta(milliseconds=500)),
            "distribute 90m, retire 6s, slack 0.5s",
        ),
        (Policy(immediate=True), "strategy immediate"),
    ],
)
def test_windows_are_told_in_their_unit(policy, told):
    assert windows(policy) == told
