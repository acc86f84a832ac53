"""In which order contenders run, and what of it counts."""

from __future__ import annotations

import pytest

from tests.benchmarks.interleaving import Rounds, interleave


def contenders(order):
    def run(name):
        order.append(name)
        return {"turn": float(len(order))}

    return {name: lambda name=name: run(name) for name in "AB"}


def test_contenders_take_turns():
    order = []

    interleave(contenders(order), Rounds(2, 1.0, warm_ups=0))

    assert order == ["A", "B", "A", "B"]


def test_warm_ups_come_first_and_do_not_count():
    order = []

    results = interleave(contenders(order), Rounds(2, 1.0, warm_ups=1))

    assert order == ["A", "B"] * 3
    assert results == {"A": {"turn": [3.0, 5.0]}, "B": {"turn": [4.0, 6.0]}}


def test_a_turn_may_have_several_samples():
    turn = {"once": 1.0, "twice": [2.0, 3.0]}

    results = interleave({"A": lambda: turn}, Rounds(2, 1.0, warm_ups=0))

    assert results == {"A": {"once": [1.0, 1.0], "twice": [2.0, 3.0, 2.0, 3.0]}}


@pytest.mark.parametrize(("asked", "count"), [(9, 3), (2, 2)])
def test_where_a_round_takes_long_there_are_few(asked, count):
    assert Rounds(asked, 0.5, agents=7).at_most(3) == Rounds(count, 0.5, agents=7)


def test_an_interval_is_written_as_both_agents_read_it():
    assert [Rounds(1, interval).every for interval in (30.0, 0.25)] == ["30s", "0.25s"]
