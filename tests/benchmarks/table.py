"""Tables in Markdown. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.benchmarks.figures import Spread, marginal, ratio, rounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Samples = Mapping[str, Sequence[float]]
    """What was measured of one contender: the samples of each measure, by its name."""


BEGIN, END = "<!-- benchmark -->", "<!-- /benchmark -->"
"""What the tables stand between, also in the README that they are pasted into."""


def shapes(text: str) -> dict[str, list[str]]:
    """Return the measures of each table by its title, whatever the counts, intervals and figures.

    So it tells whether tables come from the same scenarios, and not from which run.
    """
    tables = re.findall(r"(?:^\|.*$\n?)+", text, re.MULTILINE)
    named = [[_shape(row) for row in table.splitlines()] for table in tables]
    return {title: measures for title, _, *measures in named}


def _shape(row: str) -> str:
    return re.sub(r"(?<![\w.])\d[\d.]*", "#", row.split("|")[1].strip())


def side_by_side(title: str, results: Mapping[str, Samples]) -> str:
    """Return the table of two contenders, and how many times the second's cost the first's is."""
    (one, first), (other, second) = results.items()
    rows = []
    for measure in first:
        mine, its = Spread.of(first[measure]), Spread.of(second[measure])
        rows.append([measure, str(mine), str(its), ratio(mine.median, its.median)])
    return markdown([title, one, other, "ratio"], rows)


def growth(title: str, results: Mapping[int, Samples]) -> str:
    """Return how cost grows with a count: three counts, the least first.

    The last two columns say it twice. A further unit between the greater two counts to one between
    the lesser two: 1 is linear. The cost per unit at the most to that at the least: below 1, most
    of it is shared.
    """
    few, some, many = sorted(results)
    rows = []
    for measure in results[few]:
        spreads = {count: Spread.of(results[count][measure]) for count in results}
        costs = [(count, spreads[count].median) for count in (few, some, many)]
        early, late = marginal(*costs[:2]), marginal(*costs[1:])
        per_unit = ratio(costs[2][1] / many, costs[0][1] / few)
        cells = [str(spreads[count]) for count in (few, some, many)]
        rows.append([measure, *cells, rounded(early), rounded(late), ratio(late, early), per_unit])
    further = [f"each further to {some}", f"each further to {many}", "ratio"]
    per_unit = f"per bundle, {many} : {few}"
    return markdown([title, *map(str, (few, some, many)), *further, per_unit], rows)


def fleets(title: str, results: Mapping[int, Mapping[str, Samples]]) -> str:
    """Return how cost grows with a count for two contenders, and their ratio at each count."""
    names = [*next(iter(results.values()))]
    first = next(iter(results.values()))[names[0]]
    rows = []
    for measure in first:
        spreads = [[Spread.of(each[name][measure]) for each in results.values()] for name in names]
        rows += [
            [f"{measure}, {name}", *map(str, each)]
            for name, each in zip(names, spreads, strict=True)
        ]
        ratios = [ratio(one.median, other.median) for one, other in zip(*spreads, strict=True)]
        rows.append([f"{measure}, ratio", *ratios])
    return markdown([title, *map(str, results)], rows)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table whose first column is text, and whose others are figures."""
    rule = ["---", *["---:" for _ in header[1:]]]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])
