"""When a store is asked again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certagent.runtime.schedule import (
    JITTER,
    LONGEST_RETRY_AFTER,
    LONGEST_SPREAD,
    SHORTEST_PAUSE,
    Schedule,
)

intervals = st.floats(min_value=0.001, max_value=1e9)
dice = st.floats(min_value=0, max_value=1, exclude_max=True)
failures = st.integers(min_value=1, max_value=10**6)
SLACK = 1 + 1e-9  # of floating-point arithmetic


@given(intervals, dice)
def test_a_poll_follows_a_success_by_the_interval_give_or_take_a_tenth(interval, number):
    pause = Schedule(interval, lambda: number).after_success()

    assert interval * (1 - JITTER) / SLACK <= pause <= interval * (1 + JITTER) * SLACK


def test_the_jitter_uses_its_whole_range():
    assert Schedule(30, lambda: 0.0).after_success() == pytest.approx(27)
    assert Schedule(30, lambda: 0.5).after_success() == pytest.approx(30)
    assert Schedule(30, lambda: 1.0).after_success() == pytest.approx(33)


@given(intervals, dice)
def test_a_poll_follows_a_first_success_by_the_interval_at_most(interval, number):
    pause = Schedule(interval, lambda: number).after_success(first=True)

    assert min(SHORTEST_PAUSE, interval) <= pause <= interval * SLACK


def test_agents_that_start_together_poll_apart_over_the_whole_interval():
    pauses = [Schedule(30, lambda n=n: n / 100).after_success(first=True) for n in range(100)]

    for third in range(3):
        assert 30 < sum(third * 10 <= pause < (third + 1) * 10 for pause in pauses) < 37


@given(intervals, dice)
def test_a_restarted_agent_asks_within_a_tenth_of_the_interval(interval, number):
    pause = Schedule(interval, lambda: number).first()

    assert 0 <= pause <= interval * JITTER


def test_a_restarted_agent_with_a_day_between_polls_asks_within_half_a_minute():
    assert Schedule(86400, lambda: 0.999).first() == pytest.approx(LONGEST_SPREAD, rel=0.01)


@given(intervals, dice, failures)
def test_the_backoff_stays_between_the_shortest_pause_and_the_interval(interval, number, count):
    pause = Schedule(interval, lambda: number).after_failure(count)

    assert min(SHORTEST_PAUSE, interval) <= pause <= interval * SLACK


@given(failures)
def test_the_upper_bound_of_the_backoff_never_shrinks(count):
    schedule = Schedule(3600, lambda: 0.999)

    assert schedule.after_failure(count) <= schedule.after_failure(count + 1)


def test_the_upper_bound_doubles_with_each_failure_up_to_the_interval():
    schedule = Schedule(30, lambda: 1.0)

    assert [schedule.after_failure(count) for count in (1, 2, 3, 4, 5, 6)] == [2, 4, 8, 16, 30, 30]


def test_the_jitter_of_the_backoff_is_full():
    schedule = Schedule(30, lambda: 0.0)

    assert [schedule.after_failure(count) for count in (1, 5, 10**6)] == [1, 1, 1]


@given(st.floats(min_value=0.001, max_value=1), dice, failures)
def test_an_interval_under_the_shortest_pause_is_itself_the_pause(interval, number, count):
    assert Schedule(interval, lambda: number).after_failure(count) == interval


@given(dice, failures, st.floats(min_value=0, max_value=LONGEST_RETRY_AFTER))
def test_retry_after_is_a_lower_bound(number, count, asked):
    assert Schedule(30, lambda: number).after_failure(count, retry_after=asked) >= asked


@given(dice, failures, st.floats(min_value=LONGEST_RETRY_AFTER))
def test_retry_after_is_believed_up_to_its_cap(number, count, asked):
    pause = Schedule(30, lambda: number).after_failure(count, retry_after=asked)

    assert LONGEST_RETRY_AFTER <= pause <= LONGEST_RETRY_AFTER * (1 + JITTER)


def test_those_who_were_told_the_same_do_not_come_back_together():
    pauses = {Schedule(30, lambda n=n: n / 10).after_failure(1, retry_after=60) for n in range(10)}

    assert len(pauses) == 10


@pytest.mark.parametrize("nonsense", [-1.0, -math.inf, math.nan])
def test_a_retry_after_that_is_no_time_changes_nothing(nonsense):
    schedule = Schedule(30, lambda: 0.5)

    assert schedule.after_failure(3, retry_after=nonsense) == schedule.after_failure(3)
