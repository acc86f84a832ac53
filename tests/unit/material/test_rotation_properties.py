"""What holds for every history and every clock."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certagent.material.history import HistoricRevision, Policy
from certagent.material.rotation import Phase, forecast, plan
from certagent.material.timeline import reaches_back, window
from tests.support import specification
from tests.support.effort import effort
from tests.support.histories import (
    START,
    TICK,
    at,
    policy,
    random_history,
    random_moment,
    random_windows,
    revisions,
    told,
)

SEEDED = effort(2_000, 200_000)
"""How many histories the oracle is asked about beside those that Hypothesis looks for."""


def content(decision):
    return decision.signer, decision.roots, decision.phase


def drawn(rng: random.Random, most: int = 7):
    """Draw a policy that keeps to the assumptions (slack <= r), a history, and a moment."""
    windows = random_windows(rng)
    windows = windows._replace(slack=min(windows.slack, windows.r))
    history = random_history(rng, windows, most)
    return windows, history, random_moment(rng, history, windows)


def agree(rng: random.Random) -> None:
    windows = random_windows(rng)
    history = random_history(rng, windows)
    now = random_moment(rng, history, windows)

    expected = specification.plan(history, now, windows)

    assert told(plan(revisions(history), at(now), policy(windows))) == expected


class TestOracle:
    """The specification, in other words and by other means, comes to the same answers."""

    @given(st.randoms(use_true_random=False))
    @settings(max_examples=effort(80, 15000))
    def test_any_history(self, rng):
        agree(rng)

    def test_very_many_histories(self):
        rng = random.Random(20_260_701)
        for _ in range(SEEDED):
            agree(rng)


class TestChange:
    @given(st.randoms(use_true_random=False))
    @settings(max_examples=effort(80, 15000))
    def test_the_answer_is_the_same_until_it_says_that_it_changes(self, rng):
        windows, history, now = drawn(rng)
        past, rules = revisions(history), policy(windows)
        decision = plan(past, at(now), rules)
        until = min(at(now + 300), decision.changes_at or at(now + 300))

        moment = at(now)
        while (moment := moment + TICK) < until:
            later = plan(past, moment, rules)
            assert content(later) == content(decision)
            assert later.changes_at == decision.changes_at
            assert later.kept == decision.kept

    def test_who_is_too_old_to_sign_changes_nothing_by_becoming_valid(self):
        windows = specification.Windows(d=24, r=24, slack=1, margin=1)
        root = frozenset("A")
        past = revisions(
            [
                specification.Rev(0, 25, 10**12, root, root),
                specification.Rev(-1, -1, -1, tomb=True, gone=None),
            ]
        )

        decision, later = (plan(past, at(moment), policy(windows)) for moment in (0, 24))

        assert decision.changes_at == later.changes_at

    @given(st.randoms(use_true_random=False))
    @settings(max_examples=effort(60, 10000))
    def test_the_forecast_shows_every_change_and_ends(self, rng):
        windows, history, now = drawn(rng)
        past, rules = revisions(history), policy(windows)

        steps = list(forecast(past, at(now), rules))

        assert steps[0][0] == at(now)
        for (_, before), (when, after) in pairwise(steps):
            assert content(before) != content(after)
            assert content(plan(past, when - TICK, rules)) == content(before)
        assert content(plan(past, at(10**13), rules)) == content(steps[-1][1])

    def test_the_forecast_is_bounded(self):
        history = revisions([specification.Rev(n, n, 10**12, frozenset("A")) for n in range(200)])

        assert len(list(forecast(history, START - TICK, Policy(), steps=5))) <= 5


class TestMemory:
    @given(st.randoms(use_true_random=False))
    @settings(max_examples=effort(120, 25000))
    def test_what_is_older_than_the_window_changes_nothing(self, rng):
        """Now or later: a reader that goes back from the newest may stop at `reaches_back`."""
        windows, history, now = drawn(rng, most=12)
        past, rules = revisions(history), policy(windows)
        past = [each for each in past if each.stored_at <= at(now)]
        read = []
        for revision in reversed(past):
            read.insert(0, revision)
            if reaches_back(read, at(now), rules):
                break

        for later in (0, 1, windows.d, windows.d + windows.r, 200):
            whole = plan(past, at(now + later), rules)
            assert content(plan(read, at(now + later), rules)) == content(whole)

    @pytest.mark.parametrize(
        ("rules", "expected"),
        [(Policy(), timedelta(hours=75)), (Policy(immediate=True), timedelta(0))],
    )
    def test_the_window_is_two_distributions_and_a_retirement(self, rules, expected):
        assert window(rules) == expected

    @given(st.randoms(use_true_random=False))
    @settings(max_examples=effort(60, 10000))
    def test_a_push_of_a_new_root_does_not_change_who_signs(self, rng):
        """So a bad decision of an operator has d to be taken back: roots are added, no more."""
        windows, history, now = drawn(rng)
        alive = [each for each in history if now >= each.T >= each.nb and not each.tomb]
        history = [replace(each, na=10**12) for each in alive]
        fresh = specification.Rev(now, now, 10**12, frozenset("Z"), frozenset("Z"))
        before = plan(revisions(history), at(now), policy(windows))

        after = plan(revisions([*history, fresh]), at(now), policy(windows))

        if before.phase not in {Phase.EARLY, Phase.HOLD}:
            assert after.signer == before.signer
            assert after.roots >= before.signer.anchors | {"Z"}


MOMENTS = st.datetimes(timezones=st.just(UTC)) | st.sampled_from(
    [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
)
SETS = st.frozensets(st.sampled_from("AB"))
REVISIONS = st.tuples(
    st.just("1"),
    MOMENTS,
    MOMENTS,
    MOMENTS,
    SETS,
    SETS,
    st.sampled_from(["", "", "deleted"]),
    st.none() | MOMENTS,
).map(lambda parts: HistoricRevision(*parts))
SPANS = st.timedeltas() | st.sampled_from([timedelta(0), timedelta(hours=25)])


class TestTotality:
    @given(
        st.lists(REVISIONS, max_size=5),
        MOMENTS,
        st.tuples(SPANS, SPANS, SPANS, SPANS, st.booleans()).map(lambda parts: Policy(*parts)),
    )
    @settings(max_examples=effort(120, 25000))
    def test_any_history_at_any_time_under_any_policy_has_an_answer(self, history, now, rules):
        decision = plan(history, now, rules)

        assert decision.why
        assert "None" not in decision.why
        assert (decision.signer is None) == (decision.phase is Phase.HOLD)
        if decision.signer:
            assert decision.signer.anchors <= decision.roots
            assert decision.signer.not_before <= now < decision.signer.not_after
        if decision.changes_at:
            assert decision.changes_at > now
