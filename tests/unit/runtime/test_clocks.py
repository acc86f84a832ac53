"""Whether the wall clock was set is told by the monotonic one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certagent.runtime.clocks import Instant
from tests.support.material import NOW


def later(wall: float, monotonic: float) -> timedelta:
    """By how much the clock was set, where so many seconds passed by each of the two."""
    before = Instant(NOW, 1000.0)
    return Instant(NOW + timedelta(seconds=wall), 1000.0 + monotonic).set_since(before)


@pytest.mark.parametrize("hours", [-24, -1, 1, 24])
def test_a_clock_that_was_set_is_told_by_how_much(hours):
    assert later(30 + hours * 3600, 30) == timedelta(hours=hours)


@pytest.mark.parametrize("drift", [-0.9, 0, 0.9])
def test_a_clock_that_runs_a_little_faster_or_slower_was_not_set(drift):
    assert later(1800 + drift, 1800) == timedelta()


def test_two_looks_at_the_same_clocks_find_nothing():
    first = Instant.now()
    assert Instant.now().set_since(first) == timedelta()
