"""Noticing that the machine's clock was set, by the clock that nobody sets."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from msgspec import Struct

_UNNOTICED = timedelta(seconds=1)
"""By so much the two may drift apart without being told: NTP corrects small errors by running the
clock up to 500 ppm faster or slower (adjtimex(2)), which is under a second in half an hour."""


class Instant(Struct, frozen=True):
    """A moment by both clocks: `wall` may be set at any time, `monotonic` (seconds) never is."""

    wall: datetime
    monotonic: float

    @classmethod
    def now(cls) -> Instant:
        """Return the present moment."""
        return cls(datetime.now(UTC), time.monotonic())

    def set_since(self, earlier: Instant) -> timedelta:
        """Return by how much the wall clock was set forward since then; negative is back.

        A machine that slept looks the same: its monotonic clock stood still.
        """
        passed = timedelta(seconds=self.monotonic - earlier.monotonic)
        step = (self.wall - earlier.wall) - passed
        return step if abs(step) > _UNNOTICED else timedelta()
