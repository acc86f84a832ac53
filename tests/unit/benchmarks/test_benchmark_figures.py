"""How samples become what a table shows."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from tests.benchmarks.figures import Spread, marginal, peak_to_mean, phase, ratio, rounded
from tests.benchmarks.table import fleets, growth, markdown, shapes, side_by_side


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]


def test_a_spread_is_the_median_between_the_least_and_the_greatest():
    assert Spread.of([3.0, 9.0, 1.0]) == Spread(median=3.0, low=1.0, high=9.0)


def test_the_median_of_an_even_number_lies_between_the_two_in_the_middle():
    assert Spread.of([1.0, 2.0, 4.0, 40.0]).median == 3.0


@pytest.mark.parametrize(
    ("samples", "shown"),
    [
        ([75.0, 71.2, 90.0], "75.0 (71.2-90.0)"),
        ([4.0, 4.001], "4.00"),
        ([math.nan, math.nan], "-"),
    ],
)
def test_a_spread_of_samples_that_look_alike_is_shown_as_one_number(samples, shown):
    assert str(Spread.of(samples)) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.04321, "0.0432"),
        (1.0, "1.00"),
        (75.04, "75.0"),
        (123.4, "123"),
        (358239.2, "358239"),
        (-2.664, "-2.66"),
        (math.inf, "not seen"),
        (math.nan, "-"),
    ],
)
def test_numbers_have_three_digits_that_count_and_all_before_the_point(value, shown):
    assert rounded(value) == shown


def test_a_ratio_says_how_many_times_the_peers_cost_it_is():
    assert ratio(150.0, 75.0) == "2.00"


@pytest.mark.parametrize(
    ("of", "to"),
    [(1.0, 0.0), (1.0, -2.0), (-1.0, 2.0), (math.inf, 2.0), (1.0, math.inf), (math.nan, 1.0)],
)
def test_a_ratio_of_or_to_what_is_lost_or_unseen_says_nothing(of, to):
    assert ratio(of, to) == "-"


def test_a_spread_tells_that_some_were_not_seen():
    assert str(Spread.of([math.inf, 2.0, 1.0])) == "2.00 (1.00-not seen)"


def test_requests_that_come_evenly_have_a_peak_like_the_mean():
    assert peak_to_mean([0.5, 1.5, 2.5, 3.5], 0.0, 4.0, 1.0) == 1.0


def test_requests_that_come_at_once_have_a_peak_of_all_bins():
    assert peak_to_mean([2.1, 2.2, 2.3], 0.0, 4.0, 1.0) == 4.0


def test_requests_outside_the_window_do_not_count():
    assert peak_to_mean([-0.1, 4.0, 9.0], 0.0, 4.0, 1.0) == 0.0
    assert peak_to_mean([-0.1, -0.2, 1.0], 0.0, 4.0, 1.0) == 4.0


def test_bins_are_whole_ones():
    assert peak_to_mean([0.5, 1.5, 2.5, 2.6, 2.7], 0.0, 2.9, 1.0) == 1.0


@pytest.mark.parametrize("count", [4, 10, 50])
def test_a_few_writes_meet_all_parts_of_an_interval(count):
    """Between two neighbours, and from the last around to the first, is no great gap."""
    phases = sorted(phase(number) for number in range(count))

    gaps = [after - before for before, after in pairwise([*phases, phases[0] + 1])]
    assert phases[0] == 0
    assert max(gaps) < 2 / count


def test_the_marginal_cost_leaves_out_what_is_shared():
    assert marginal((1, 50.0 + 2), (10, 50.0 + 20)) == 2.0


def test_side_by_side_compares_the_medians_of_each_measure():
    results = {
        "certagent": {"CPU, ms": [40.0, 20.0, 30.0], "peak, MiB": [45.0]},
        "bao agent": {"CPU, ms": [60.0, 60.0, 60.0], "peak, MiB": [90.0]},
    }

    assert cells(side_by_side("once", results)) == [
        ["once", "certagent", "bao agent", "ratio"],
        ["---", "---:", "---:", "---:"],
        ["CPU, ms", "30.0 (20.0-40.0)", "60.0", "0.50"],
        ["peak, MiB", "45.0", "90.0", "0.50"],
    ]


def test_linear_growth_has_the_ratio_one_whatever_is_shared():
    results = {count: {"CPU, ms": [300.0 + 5 * count]} for count in (1, 10, 100)}

    header, _, row = cells(growth("bundles", results))

    assert dict(zip(header, row, strict=True)) == {
        "bundles": "CPU, ms",
        "1": "305",
        "10": "350",
        "100": "800",
        "each further to 10": "5.00",
        "each further to 100": "5.00",
        "ratio": "1.00",
        "per bundle, 100 : 1": "0.03",
    }


def test_growth_faster_than_linear_has_a_ratio_above_one():
    results = {count: {"CPU, ms": [float(count**2)]} for count in (1, 10, 100)}

    header, _, row = cells(growth("bundles", results))

    shown = dict(zip(header, row, strict=True))
    assert float(shown["ratio"]) > 1
    assert float(shown["per bundle, 100 : 1"]) == 100


def test_fleets_have_both_contenders_and_their_ratio_at_each_count():
    results = {
        1: {"certagent": {"CPU": [2.0]}, "bao agent": {"CPU": [1.0]}},
        10: {"certagent": {"CPU": [3.0, 5.0, 4.0]}, "bao agent": {"CPU": [8.0]}},
    }

    assert cells(fleets("agents", results)) == [
        ["agents", "1", "10"],
        ["---", "---:", "---:"],
        ["CPU, certagent", "2.00", "4.00 (3.00-5.00)"],
        ["CPU, bao agent", "1.00", "8.00"],
        ["CPU, ratio", "2.00", "0.50"],
    ]


def test_the_shape_of_tables_is_that_of_any_run_of_the_same_scenarios():
    def run(every, count):
        return f"""
        on a machine, in some words
        {markdown([f"a poll every {every}", "a"], [["KV v2, ms", "1"], ["KV v1, ms", "3"]])}

        {markdown([f"{count} agents (for {every})", "b"], [[f"503 and {every}", "5"]])}
        """.replace(" " * 8, "")

    assert shapes(run("1s", 10)) == shapes(run("0.5s", 200))
    assert shapes(run("1s", 10)) == {
        "a poll every #s": ["KV v2, ms", "KV v1, ms"],
        "# agents (for #s)": ["# and #s"],
    }


def test_markdown_aligns_figures_to_the_right():
    assert markdown(["what", "a"], [["x", "1"]]) == "| what | a |\n| --- | ---: |\n| x | 1 |"
