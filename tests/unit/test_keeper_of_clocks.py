"""A keeper whose clock is set right after it was wrong: windows count as every other agent's do."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certagent.assignment import Assignment, Reader
from certagent.errors import CertagentError
from certagent.keeper import Keeper
from tests.support.material import NOW, make_root
from tests.support.stores import MemorySink, MemorySource, Silence

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture(scope="module")
def old():
    return make_root(subject="CN=Old").intermediate()


@pytest.fixture(scope="module")
def new():
    return make_root(subject="CN=New").intermediate()


@pytest.fixture
def source():
    return MemorySource()


@pytest.fixture
def sink():
    return MemorySink()


@pytest.fixture
def reborn(source, sink):
    """A keeper of a new process on the same volume, beside a reader that runs."""

    def make(now):
        assignment = Assignment("a", source, sink, reader=Reader(may_run=True))
        keeper = Keeper(assignment, Silence())
        keeper.adopt(now)
        return keeper

    return make


@pytest.fixture
def keeper(reborn):
    return reborn(NOW)


def state(sink) -> tuple[bytes, int]:
    """The published signer, and how many roots; a bridge may hold one of them twice."""
    published = sink.snapshot.files
    return published["ca-cert.pem"], len(set(published["root-cert.pem"].split(b"-----BEGIN")[1:]))


def set_right(keeper, wrong) -> None:
    """What the agent tells its keeper once the clock, which was wrong by so much, is right."""
    keeper.clock_was_set(-wrong)


@pytest.mark.parametrize("wrong", [-400 * DAY, -2 * DAY, -HOUR, HOUR, 2 * DAY, 400 * DAY])
def test_a_distribution_counts_from_the_stores_time_whatever_the_clock_was(
    keeper, source, sink, old, new, wrong
):
    source.push(old.raw(), created_at=NOW - 80 * HOUR)
    keeper.refresh(NOW)
    source.push(new.raw(), created_at=NOW)
    keeper.clock_was_set(wrong)
    keeper.refresh(NOW + wrong)
    set_right(keeper, wrong)

    for hours, wanted in ((1, (old.pem, 2)), (24, (old.pem, 2)), (26, (new.pem, 2))):
        keeper.refresh(NOW + hours * HOUR)
        assert state(sink) == wanted, f"{hours} h after the push"


@pytest.mark.parametrize("wrong", [-400 * DAY, -2 * DAY, -HOUR, HOUR, 2 * DAY, 400 * DAY])
def test_what_a_wrong_clock_dated_is_distributed_for_as_long_as_ever(
    keeper, source, sink, old, new, wrong
):
    """In a store without times, it is dated by the agent's own clock."""
    source.push(old.raw(), version="sha256:old")
    keeper.refresh(NOW)
    seen = NOW + 80 * HOUR
    source.versions.clear()
    source.push(new.raw(), version="sha256:new")
    keeper.clock_was_set(wrong)
    keeper.refresh(seen + wrong)
    set_right(keeper, wrong)

    for hours, wanted in ((0, (old.pem, 2)), (24, (old.pem, 2)), (25, (new.pem, 2))):
        keeper.refresh(seen + hours * HOUR)
        assert state(sink) == wanted, f"{hours} h after it was seen"


@pytest.mark.parametrize("wrong", [-2 * DAY, 2 * DAY])
def test_a_moment_with_a_wrong_clock_changes_nothing_of_a_distribution(
    reborn, source, sink, old, new, wrong
):
    keeper = reborn(NOW)
    source.push(old.raw(), version="sha256:old")
    keeper.refresh(NOW)
    seen = NOW + 80 * HOUR
    source.versions.clear()
    source.push(new.raw(), version="sha256:new")
    keeper.refresh(seen)
    keeper.clock_was_set(wrong)
    keeper.refresh(seen + wrong)
    assert state(sink) == (old.pem, 2)
    set_right(keeper, wrong)
    keeper.refresh(seen + HOUR)
    assert state(sink) == (old.pem, 2)

    for hours, wanted in ((24, (old.pem, 2)), (25, (new.pem, 2))):
        keeper = reborn(seen + hours * HOUR)
        keeper.refresh(seen + hours * HOUR)
        assert state(sink) == wanted, f"{hours} h after it was seen"


def test_what_an_earlier_process_dated_does_not_move_with_this_ones_clock(
    reborn, source, sink, old, new
):
    keeper = reborn(NOW)
    source.push(old.raw(), version="sha256:old")
    keeper.refresh(NOW)
    seen = NOW + 80 * HOUR
    source.versions.clear()
    source.push(new.raw(), version="sha256:new")
    keeper.refresh(seen)
    keeper = reborn(seen - 2 * DAY)
    keeper.refresh(seen - 2 * DAY)
    set_right(keeper, -2 * DAY)

    for hours, wanted in ((1, (old.pem, 2)), (24, (old.pem, 2)), (25, (new.pem, 2))):
        keeper.refresh(seen + hours * HOUR)
        assert state(sink) == wanted, f"{hours} h after it was seen"


@pytest.mark.parametrize("wrong", [-365 * 3 * DAY, 365 * 20 * DAY], ids=["before", "after"])
def test_outside_of_its_validity_a_set_stays_and_is_used_again_inside(
    keeper, source, sink, old, wrong
):
    source.push(old.raw(), created_at=NOW)
    keeper.refresh(NOW)
    with pytest.raises(CertagentError):
        keeper.refresh(NOW + wrong)
    keeper.refresh(NOW)

    assert keeper.status.ready
    assert sink.writes == 1
