"""What a reader sees of a rotation, and what is made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest

from tests.benchmarks import fleet
from tests.benchmarks.agents import FILES
from tests.benchmarks.latency import Watch
from tests.benchmarks.rotation import Reading, Rotation, by_data, by_name

OLD = {"key": b"old", "certificate": b"old", "root": b"the same"}
NEW = {"key": b"new", "certificate": b"new", "root": b"the same"}


def read(began, *contents):
    """A read of the three files, a second each."""
    return [
        Reading(name, content, began + number, began + number + 1)
        for number, (name, content) in enumerate(zip(OLD, contents, strict=True))
    ]


def rotation(*reads):
    seen = Rotation(100.0, OLD, NEW)
    for began, *contents in reads:
        assert not seen.is_over
        seen.add(read(began, *contents))
    return seen


def test_the_new_set_is_published_when_it_is_found_whole():
    seen = rotation((101, *OLD.values()), (110, *NEW.values()))

    assert seen.is_over
    # When the last file that changes had been read.
    assert seen.published_after == 12
    assert seen.mixed == 0


def test_a_set_that_is_old_and_new_is_mixed():
    seen = rotation(
        (101, b"new", b"old", b"the same"),
        (111, b"old", b"new", b"the same"),
        (121, b"new", None, b"the same"),
    )

    assert not seen.is_over
    assert seen.mixed == 3


def test_old_files_beside_new_ones_are_told_for_as_long_as_it_is_certain():
    seen = rotation(
        (101, b"new", b"old", b"the same"),  # the key is new at 102
        (111, b"new", b"old", b"the same"),  # the certificate is old at 112
        (121, *NEW.values()),
    )

    assert seen.torn_for == 10


def test_a_swap_in_the_middle_of_a_read_is_not_taken_for_a_torn_set():
    seen = rotation((101, b"old", b"new", b"the same"), (111, *NEW.values()))

    assert seen.mixed == 1
    assert seen.torn_for == 0


@pytest.fixture
def volume(tmp_path):
    """istiod's layout, in which the links at the top still lead to an older set."""
    for name in FILES:
        (tmp_path / name).write_text("old")
    (tmp_path / "..new").mkdir()
    for name in FILES:
        (tmp_path / "..new" / name).write_text("new")
    return tmp_path


def contents(readings):
    return {each.name: each.content for each in readings}


def test_files_are_read_by_their_names(volume):
    assert contents(by_name(volume)) == dict.fromkeys(FILES, b"old")


def test_a_file_that_is_missing_is_nothing(volume):
    (volume / FILES[0]).unlink()

    assert contents(by_name(volume))[FILES[0]] is None


def test_a_link_to_the_set_is_resolved_once(volume):
    (volume / "..data").symlink_to("..new")
    reading = iter(by_data(volume))
    found = [next(reading)]
    (volume / "..data").unlink()
    found += reading

    assert contents(found) == dict.fromkeys(FILES, b"new")


def test_without_such_a_link_files_are_read_by_their_names(volume):
    assert contents(by_data(volume)) == dict.fromkeys(FILES, b"old")


@dataclass
class Secret:
    """A secret that remembers when it was written."""

    files: dict = field(default_factory=dict)
    writes: int = 0

    def push(self):
        self.writes += 1
        self.files = dict.fromkeys(FILES, str(self.writes).encode())


@pytest.fixture
def secret():
    return Secret()


def publish(secret, volume):
    for name, content in secret.files.items():
        (volume / name).write_bytes(content)


def test_each_write_has_its_own_latency(secret, volume):
    watch = Watch(secret, volume, interval=10.0, writes=2)

    watch.step(100.0, 40.0)
    watch.step(101.0, 40.0)
    publish(secret, volume)
    watch.step(102.5, 40.0)
    watch.step(102.5, 40.0)
    assert secret.writes == 1  # the next one waits for its part of the interval
    watch.step(112.5, 40.0)
    publish(secret, volume)
    watch.step(113.0, 40.0)

    assert watch.latencies == [2.5, 0.5]
    assert watch.is_over


def test_what_is_not_published_in_time_is_given_up(secret, volume):
    watch = Watch(secret, volume, interval=10.0, writes=5)

    watch.step(100.0, 40.0)
    watch.step(140.0, 40.0)
    assert not watch.is_over
    watch.step(140.1, 40.0)
    watch.step(141.0, 40.0)

    assert watch.latencies == [math.inf]
    assert watch.is_over
    assert secret.writes == 1


@pytest.mark.parametrize(
    ("most", "sizes"),
    [(1, (1,)), (10, (1, 10)), (30, (1, 10, 30)), (200, (1, 10, 50, 200))],
)
def test_fleets_grow_to_the_greatest_that_is_asked_for(most, sizes):
    assert fleet.counts(most) == sizes


@pytest.mark.parametrize(
    ("most", "asked", "seconds"), [(200, 1.0, 20.0), (45, 1.0, 5.0), (1, 30.0, 30.0), (10, 0.1, 1)]
)
def test_all_fleets_poll_so_seldom_that_the_greatest_does_not_fill_the_machine(
    most, asked, seconds
):
    assert fleet.interval(most, asked) == seconds
