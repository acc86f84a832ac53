"""What is asked of a store while something is wrong, and what the agent says of it."""

from __future__ import annotations

import time

from tests.faults.stores import INTERVAL
from tests.faults.table import ERRORS


class Met:
    """A fault at a store from now until its `end`, and what is asked of the store meanwhile."""

    def __init__(self, store, fault):
        self._store, self._fault = store, fault
        self._before, self._began = self._asked, time.monotonic()
        store.begin(fault)

    @property
    def _asked(self):
        # Where no request comes through, the connections tell.
        return max(len(self._store.exchanges), self._store.accepted)

    @property
    def again(self):
        """Whether it was met, and met again, for long enough to tell how often."""
        waited = time.monotonic() - self._began
        return self._asked - self._before >= 3 and waited > 6 * INTERVAL

    def end(self):
        """End it; what was asked meanwhile is no more than a poll at every interval may ask."""
        self._store.end()
        self._ended_at = time.time()
        took, asked = time.monotonic() - self._began, self._asked - self._before
        most = self._fault.most * self._store.requests_of_an_attempt
        assert asked <= most * (took / INTERVAL + 3), f"{asked} in {took:.1f} s"

    @property
    def polls_to_recover(self):
        """How many polls have begun between its end and the last publication."""
        published_at = (self._store.directory / "..data").lstat().st_mtime
        return self._store.polls(self._ended_at, published_at)


def has_told(agent, code, published):
    """Whether the log has told of the error of an exit code, and of what is published meanwhile."""
    records = agent.logged("", fault=ERRORS[code])
    return any(record["published"].startswith(published) for record in records)
