"""How samples become what a table shows."""

from __future__ import annotations

import pytest

from tests.benchmarks.figures import Spread, marginal, ratio, rounded
from tests.benchmarks.table import growth, markdown, side_by_side


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]


def test_a_spread_is_the_median_between_the_least_and_the_greatest():
    assert Spread.of([3.0, 9.0, 1.0]) == Spread(median=3.0, low=1.0, high=9.0)


def test_the_median_of_an_even_number_lies_between_the_two_in_the_middle():
    assert Spread.of([1.0, 2.0, 4.0, 40.0]).median == 3.0


@pytest.mark.parametrize(
    ("samples", "shown"), [([75.0, 71.2, 90.0], "75.0 (71.2-90.0)"), ([4.0, 4.0], "4.00")]
)
def test_a_spread_of_equal_samples_is_shown_as_one_number(samples, shown):
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
    ],
)
def test_numbers_have_three_digits_that_count_and_all_before_the_point(value, shown):
    assert rounded(value) == shown


def test_a_ratio_says_how_many_times_the_peers_cost_it_is():
    assert ratio(150.0, 75.0) == "2.00"


@pytest.mark.parametrize(("of", "to"), [(1.0, 0.0), (1.0, -2.0), (-1.0, 2.0)])
def test_a_ratio_of_or_to_less_than_nothing_says_nothing(of, to):
    assert ratio(of, to) == "-"


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


def test_markdown_aligns_figures_to_the_right():
    assert markdown(["what", "a"], [["x", "1"]]) == "| what | a |\n| --- | ---: |\n| x | 1 |"
