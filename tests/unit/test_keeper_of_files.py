"""A directory has no history: who watches it publishes what plan() says of what was seen."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from certagent.assignment import Assignment, Reader
from certagent.errors import PublicationHeld
from certagent.keeper import Keeper
from certagent.material.bundle import KeyCertBundle
from certagent.material.history import HistoricRevision, Policy
from certagent.material.kinds import CA
from certagent.material.roots import joined
from certagent.material.rotation import plan
from certagent.material.verification import verify
from certagent.sources.files import DirectorySource
from tests.support.effort import effort
from tests.support.material import NOT_BEFORE, NOW, files, make_root
from tests.support.stores import MemorySink, Silence

HOUR = timedelta(hours=1)
HELD: dict[str, bytes] = {}
END = 60  # hours after the last push: every window is over


@pytest.fixture(scope="module")
def sets():
    """Three roots, two intermediates each; the roots' order in time is not that of the pushes."""
    roots = [
        make_root(subject=f"CN=Root {name}", not_before=NOT_BEFORE + timedelta(days=days))
        for name, days in (("A", 1), ("B", 0), ("C", 2))
    ]
    return [root.intermediate().raw() for root in roots for _ in range(2)]


pushes = st.lists(
    st.tuples(st.sampled_from([1, 2, 24, 25, 26, 49, 50, 51, 76]), st.integers(0, 5)),
    min_size=1,
    max_size=4,
).map(lambda drawn: [push for push, _ in itertools.groupby(drawn, key=lambda each: each)])


class Volume:
    """A directory that is pushed to, and a keeper that looks at it every hour."""

    def __init__(self, place: Path, *, may_run: bool) -> None:
        self.sink = MemorySink()
        self._place = place
        self._assignment = Assignment(
            "a", DirectorySource(place), self.sink, reader=Reader(may_run=may_run)
        )
        self._keeper = self._born()

    def _born(self) -> Keeper:
        return Keeper(self._assignment, Silence())

    def look(self, now) -> dict[str, bytes]:
        self._keeper.refresh(now)
        return dict(self.sink.snapshot.files)

    def look_again(self, now, expected) -> dict[str, bytes]:
        """As a new process, which knows what lies in the directory and on the volume."""
        self._keeper = self._born()
        self._keeper.adopt(now)
        known = [(self._place / "ca-cert.pem").read_bytes()]
        if self.sink.snapshot:
            known.append(self.sink.snapshot.files["ca-cert.pem"])
        try:
            return self.look(now)
        except PublicationHeld:
            assert expected["ca-cert.pem"] not in known
            return HELD


@pytest.mark.timeout(0)
@settings(max_examples=effort(2, 500), suppress_health_check=list(HealthCheck))
@example(drawn=[(26, 3), (49, 2), (1, 1), (25, 4)])
@example(drawn=[(1, 3), (25, 0), (1, 4), (49, 3)])
@example(drawn=[(1, 2), (25, 4)])
@example(drawn=[(1, 2), (25, 4), (1, 0)])
@given(drawn=pushes)
def test_the_plan_is_that_of_the_history_that_was_seen(sets, drawn):
    """Signer, roots and bytes: for a keeper that runs on, and for one that restarts every hour.

    The history is emulated here, from the times of the pushes; so the planner depends on no store.
    The one that restarts cannot sign with a key that has gone from the directory and never was on
    its volume: then it holds what it has, which is trusted, and catches up. A reader that runs
    finds consecutive root files that contain one another.
    """
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        steady = Volume(place, may_run=False)
        reborn = Volume(place, may_run=False)
        guarded = Volume(place, may_run=True)
        history, current, hour = [], None, 0
        roots_before = last = None
        schedule = {}
        for gap, index in [(0, 0), *drawn]:
            hour += gap
            schedule[hour] = index
        for hour in range(max(schedule) + END):
            now = NOW + hour * HOUR
            index = schedule.get(hour, current)
            if index != current:
                current = index
                _write(place, sets[index])
                history.append(_revision(sets[index], len(history), now))

            expected = CA.files_of(joined(plan(history, now, Policy())))

            assert steady.look(now) == expected
            assert reborn.look_again(now, expected) in (expected, HELD)
            last = (reborn.sink.snapshot.files, expected)
            roots = guarded.look(now)["root-cert.pem"]
            assert roots_before is None or roots in roots_before or roots_before in roots
            roots_before = roots
        assert last[0] == last[1], "every hold has ended"


def _revision(raw, number: int, now) -> HistoricRevision:
    return HistoricRevision.good(str(number), now, verify(KeyCertBundle.decode(raw), now))


def _write(place: Path, raw) -> None:
    fresh = place / "fresh"
    fresh.mkdir()
    for name, data in files(raw).items():
        (fresh / name).write_bytes(data)
        (fresh / name).rename(place / name)
    shutil.rmtree(fresh)
