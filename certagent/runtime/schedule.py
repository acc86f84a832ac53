"""When to ask a store again: pure rules, so that they can be proved.

A mesh restarts its pods together (an upgrade, a drained node, a store that comes back), and what
they then do together hits the store as one wave. Therefore nothing here is a fixed time:

- after a process's first success, any part of the interval: who started together polls apart;
- after any other, the interval, give or take a tenth;
- after a restart, a random part of the interval's tenth before the first request;
- after a failure, exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter",
  AWS Architecture Blog, 2015) from `SHORTEST_PAUSE` up to the interval, so that a store that is
  down is soon asked little more often than one that is up, never twice within `SHORTEST_PAUSE`,
  and one that is back is found within one interval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

JITTER = 0.1
"""By what part of itself an interval is shortened or lengthened at random."""

SHORTEST_PAUSE = 1.0
"""Seconds that pass after a failure at least, or the whole interval where that is shorter."""

LONGEST_RETRY_AFTER = 300.0
"""Seconds for which a store's `Retry-After` is believed.

Five minutes: enough for a store to recover, and less than a typo or a hostile proxy could ask for.
"""

LONGEST_SPREAD = 30.0
"""Seconds over which restarted agents are spread at most, however long their interval is."""

_DOUBLINGS = 32
"""After so many failures the backoff grows no more: it is over a century, and floats are finite."""


class Schedule(Struct, frozen=True):
    """The pauses between requests, in seconds.

    `interval` is what the operator asked for, over 0. `random` returns a number in [0, 1) and is
    asked once a pause.
    """

    interval: float
    random: Callable[[], float]

    def first(self) -> float:
        """Return how long a restarted agent waits before it asks for the first time.

        This is for one that found a good set in its output directory. Where there is none,
        somebody waits for it: ask at once.
        """
        return min(self.interval * JITTER, LONGEST_SPREAD) * self.random()

    def after_success(self, *, first: bool = False) -> float:
        """Return the pause after a pass in which the store answered, the process's `first` or not.

        Those who began together part after the first: a tenth of an interval at each poll would
        spread them over the whole of it only in hours.
        """
        if first:
            return self._between(self.interval, self.random())
        return self.interval * (1 - JITTER + 2 * JITTER * self.random())

    def after_failure(self, failures: int, retry_after: float | None = None) -> float:
        """Return the pause after `failures` (1 or more) failed passes in a row.

        It lies between the shortest pause and twice that after the first failure, four times that
        after the second, and so on up to the interval. With an interval under `SHORTEST_PAUSE`
        there is nothing to back off to, and every pause is the interval.

        `retry_after` is what the store asked for, in seconds (RFC 9110, section 10.2.3). It is a
        lower bound, believed up to `LONGEST_RETRY_AFTER`; up to a tenth is added, because
        everybody else who was turned away was told the same.
        """
        dice = self.random()
        doubled = min(SHORTEST_PAUSE, self.interval) * 2.0 ** min(failures, _DOUBLINGS)
        pause = self._between(min(self.interval, doubled), dice)
        if retry_after is None:
            return pause
        return max(pause, min(retry_after, LONGEST_RETRY_AFTER) * (1 + JITTER * dice))

    def _between(self, longest: float, dice: float) -> float:
        """Return a pause between the shortest and the longest; `dice` is in [0, 1)."""
        shortest = min(SHORTEST_PAUSE, self.interval)
        return shortest + (longest - shortest) * dice
