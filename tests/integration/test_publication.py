"""Publication against the kernel: real readers, real watches, real kills, real full disks."""

import json
import os
import random
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from certagent.errors import OutputError
from certagent.sinks.directory import AtomicDirectory
from certagent.sinks.reading import read_directory
from tests.support.inotify import CREATE, DELETE, MOVED_TO, Inotify
from tests.support.process import started
from tests.support.publishing import (
    FIVE,
    FOUR,
    KEY,
    current,
    expected_entries,
    links_at_top,
    publication,
    same,
    versions,
)
from tests.support.volumes import mounted


@pytest.fixture
def path(tmp_path):
    return tmp_path / "istio-ca"


@pytest.fixture
def sink(path):
    opened = AtomicDirectory(path)
    yield opened
    opened.close()


# Readers


@pytest.mark.parametrize("manner", ["resolver", "istiod"])
def test_a_tight_reader_never_finds_a_mixed_set_or_a_missing_file(sink, path, manner):
    rotations = 350
    sink.publish(publication(0))
    with started("tests.support.readers", manner, path, rotations) as reader:
        for number in range(1, rotations + 1):
            sink.publish(publication(number, FIVE if number % 5 == 0 else FOUR, size=2000))
        found = json.loads(reader.communicate(timeout=60)[0])
    assert found["faults"] == []
    assert found["ordered"]
    assert found["last"] == [rotations]
    assert found["generations"] >= 3
    assert found["overtaken"] < found["reads"] / 2


def test_the_status_reader_finds_whole_sets_while_another_process_publishes(path):
    with started("tests.support.publisher", path, 1):
        deadline = time.monotonic() + 60
        seen = set()
        while len(seen) < 50:
            assert time.monotonic() < deadline
            found = read_directory(path)
            number = int(found.record["version"])
            names = FIVE if number % 2 else FOUR
            assert same(found, publication(number, names, size=3000))
            seen.add(number)


# Watchers


def test_a_rotation_is_three_events_for_a_watcher_and_the_swap_is_one(sink, path):
    sink.publish(publication(1))
    old = current(path).name
    with Inotify(path) as watch:
        sink.publish(publication(2))
        swap = watch.events()
        sink.tidy()
        tidying = watch.events()
    assert swap == [(CREATE, current(path).name), (MOVED_TO, "..data")]
    assert tidying == [(DELETE, old)]


def test_a_hundred_rotations_without_tidying_are_three_events_each(sink, path):
    sink.publish(publication(0))
    with Inotify(path) as watch:
        for number in range(1, 101):
            sink.publish(publication(number))
        assert len(watch.events()) == 100 * 3 - 1


def test_a_list_of_revocations_that_comes_is_one_event_more(sink, path):
    sink.publish(publication(1))
    with Inotify(path) as watch:
        sink.publish(publication(2, FIVE))
        names = [event.name for event in watch.events()]
    assert names == [current(path).name, "ca-crl.pem", "..data"]


def test_reading_is_no_event(sink, path):
    sink.publish(publication(1))
    with Inotify(path) as watch:
        assert sink.read() == read_directory(path)
        assert watch.events() == []


def test_the_first_set_appears_with_one_rename(sink, path):
    path.mkdir()
    with Inotify(path) as watch:
        sink.publish(publication(1))
        events = watch.events()
    assert events[-1] == (MOVED_TO, "..data")
    assert sorted(event.name for event in events[1:-1]) == sorted(FOUR)


# Death


def test_a_publisher_that_is_killed_leaves_a_whole_set_each_time(path):
    chance = random.Random(20260822)
    number = 1
    for _ in range(50):
        with (
            started("tests.support.publisher", path, number) as publisher,
            pytest.raises(subprocess.TimeoutExpired),
        ):
            publisher.wait(timeout=chance.uniform(0, 0.03))
        found = read_directory(path)
        assert found is not None
        last = int(found.record["version"])
        assert last >= number
        assert same(found, publication(last, FIVE if last % 2 else FOUR, size=3000))
        assert links_at_top(path) == dict.fromkeys(found.files, last)
        number = last + 1
    sink = AtomicDirectory(path)
    sink.publish(publication(number))
    sink.tidy()
    sink.close()
    assert sorted(entry.name for entry in path.iterdir()) == expected_entries(path)


# Two agents


def test_another_process_is_refused_until_the_first_one_dies(sink, path):
    with (
        started("tests.support.publisher", path, 1),
        pytest.raises(OutputError, match="Another certagent publishes to"),
    ):
        sink.publish(publication(0))
    sink.publish(publication(0))
    assert links_at_top(path) == dict.fromkeys(FOUR, 0)


# Volumes


def test_a_volume_that_is_full_keeps_the_old_set_and_nothing_of_the_new_one(sink, path):
    path.mkdir()
    with mounted(path, "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        sink.publish(publication(1))
        before = sorted(path.iterdir())
        with pytest.raises(OutputError, match="the volume is full") as raised:
            sink.publish(publication(2, size=40_000))
        assert "sizeLimit" in raised.value.hint
        assert sorted(path.iterdir()) == before
        assert same(sink.read(), publication(1))
        sink.publish(publication(3))
        assert links_at_top(path) == dict.fromkeys(FOUR, 3)
        sink.close()


def test_a_volume_that_is_out_of_inodes_keeps_the_old_set(sink, path):
    path.mkdir()
    with mounted(path, "-t", "tmpfs", "-o", "nr_inodes=16", "tmpfs"):
        sink.publish(publication(1))
        with pytest.raises(OutputError, match="the volume is full"):
            sink.publish(publication(2))
        assert same(sink.read(), publication(1))
        assert len(versions(path)) == 1
        sink.close()


def test_a_volume_that_is_mounted_read_only_says_so(sink, path):
    sink.publish(publication(1))
    sink.close()
    with mounted(path, "--bind", "-o", "ro", str(path)):
        assert same(sink.read(), publication(1))
        with pytest.raises(OutputError, match="read-only") as raised:
            sink.publish(publication(2))
        assert "readOnly" in raised.value.hint
        assert same(sink.read(), publication(1))
        sink.close()


@pytest.fixture
def unprivileged():
    """Act as a user whom modes hold back, as root is not."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@contextmanager
def acting_as(user):
    """Be this user, of the group of the same number, as containers of a pod are."""
    os.setegid(user)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
def test_on_an_empty_dir_the_key_is_for_one_user_and_the_roots_are_for_all():
    """emptyDir is root's, and everybody may write to it; istiod and the agent are 1337."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        volume = Path(folder, "istio-ca")
        volume.mkdir()
        volume.chmod(0o777)
        with acting_as(1337):
            sink = AtomicDirectory(volume)
            sink.publish(publication(1))
            sink.close()

        with acting_as(1337):
            assert links_at_top(volume) == dict.fromkeys(FOUR, 1)
        with acting_as(1001):
            assert (volume / "root-cert.pem").read_bytes()
            with pytest.raises(PermissionError):
                (volume / KEY).read_bytes()
            with pytest.raises(PermissionError):
                (volume / "..data" / "root-cert.pem").write_bytes(b"")


@pytest.fixture
def others_directory():
    """A directory that nobody may write to, in a place where everybody may look."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        found = Path(folder, "istio-ca")
        found.mkdir()
        found.chmod(0o555)
        yield found


@pytest.mark.usefixtures("others_directory", "unprivileged")
def test_a_directory_of_somebody_else_says_as_whom_to_run(others_directory):
    sink = AtomicDirectory(others_directory)
    with pytest.raises(OutputError, match=f"user {os.geteuid()} has no permission") as raised:
        sink.publish(publication(1))
    sink.close()
    assert "fsGroup" in raised.value.hint
    assert list(others_directory.iterdir()) == []


@pytest.mark.usefixtures("others_directory", "unprivileged")
def test_a_directory_that_cannot_be_made_says_as_whom_to_run(others_directory):
    with pytest.raises(OutputError, match=f"user {os.geteuid()} has no permission"):
        AtomicDirectory(others_directory / "deeper").publish(publication(1))
