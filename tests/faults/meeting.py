"""What is asked of a store while something is wrong, and what the agent says of it."""

from __future__ import annotations

import time

from tests.faults.stores import INTERVAL
from tests.faults.table import ERRORS


class Meanwhile:
    """What is asked of a store from now on; `most` are the requests that an attempt may make."""

    def __init__(self, store, most):
        self._store, self._most = store, most
        self._before, self._began = self._asked, time.monotonic()

    @property
    def _asked(self):
        # Where no request comes through, the connections tell.
        return max(len(self._store.exchanges), self._store.accepted)

    @property
    def again(self):
        """Whether it was asked, and asked again, for long enough to tell how often."""
        waited = time.monotonic() - self._began
        return self._asked - self._before >= 3 and waited > 6 * INTERVAL

    def end(self):
        """See that no more was asked than an attempt at every interval may ask."""
        took, asked = time.monotonic() - self._began, self._asked - self._before
        assert asked <= self._most * (took / INTERVAL + 3), f"{asked} in {took:.1f} s"


class Met(Meanwhile):
    """A fault at a store from now until its `end`, and what is asked of the store meanwhile."""

    def __init__(self, store, fault):
        super().__init__(store, fault.most * store.requests_of_an_attempt)
        store.begin(fault)

    def end(self):
        self._store.end()
        self._ended_at = time.time()
        super().end()

    @property
    def polls_to_recover(self):
        """How many polls have begun between its end and the last publication."""
        published_at = (self._store.directory / "..data").lstat().st_mtime
        return self._store.polls(self._ended_at, published_at)


def has_told(agent, code, published):
    """Whether the log has told of the error of an exit code, and of what is published meanwhile."""
    records = agent.logged("", fault=ERRORS[code])
    return any(record["published"].startswith(published) for record in records)
