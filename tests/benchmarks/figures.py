"""From samples to what a table shows: medians, spreads, ratios. Pure."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

MS = 1000.0
"""Milliseconds in a second."""

MIB = float(1 << 20)
"""Bytes in a mebibyte."""


@dataclass(frozen=True)
class Spread:
    """A median, and the least and the greatest of the samples around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Iterable[float]) -> Self:
        """Return the spread of one sample or more."""
        found = sorted(samples)
        return cls(statistics.median(found), found[0], found[-1])

    def __str__(self) -> str:
        median, low, high = map(rounded, (self.median, self.low, self.high))
        return median if low == high else f"{median} ({low}-{high})"


def rounded(value: float) -> str:
    """Return a number with three digits that count, or all before the point; never as 1e+03.

    Infinite is what was waited for in vain; what could not be measured is not a number.
    """
    if not math.isfinite(value):
        return "-" if math.isnan(value) else "not seen"
    magnitude = f"{abs(value):e}".partition("e")[2]
    return f"{value:.{max(0, 2 - int(magnitude))}f}" if value else "0"


def ratio(of: float, to: float) -> str:
    """Return how many times `to` goes into `of`, or a dash where either is lost or unseen."""
    is_told = to > 0 and of >= 0 and math.isfinite(of) and math.isfinite(to)
    return f"{of / to:.2f}" if is_told else "-"


def peak_to_mean(moments: Iterable[float], began: float, ended: float, width: float) -> float:
    """Return how many times the average the busiest bin has; 0 where none has any.

    Bins have the same width; what is left of the window at its end plays no part.
    """
    bins = int((ended - began) / width)
    numbers = (math.floor((moment - began) / width) for moment in moments)
    counts = Counter(number for number in numbers if 0 <= number < bins)
    return max(counts.values()) / (counts.total() / bins) if counts else 0.0


def phase(number: int) -> float:
    """Return the part of an interval for the event `number`: spread evenly however many come.

    Multiples of the golden ratio (Knuth, The Art of Computer Programming, 6.4): what happens right
    after a poll waits longest, and a few events at random could all be such, or none.
    """
    return number * (math.sqrt(5) - 1) / 2 % 1


def marginal(small: tuple[int, float], large: tuple[int, float]) -> float:
    """Return what each further unit costs between two (count, cost)."""
    return (large[1] - small[1]) / (large[0] - small[0])
