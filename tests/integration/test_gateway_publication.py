"""The gateways' layout against the kernel: real readers, real watches, real kills."""

import json
import random
import subprocess
import time

import pytest

from certagent.sinks.directory import AtomicDirectory
from certagent.sinks.layouts import GATEWAY
from certagent.sinks.reading import read_directory
from tests.support.inotify import CREATE, DELETE, MOVED_TO, Inotify
from tests.support.process import started
from tests.support.publishing import (
    MUTUAL_TLS,
    TLS,
    entries,
    files_in_current,
    publication,
    same,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ingress"


@pytest.fixture
def sink(path):
    opened = AtomicDirectory(path, layout=GATEWAY)
    yield opened
    opened.close()


def test_a_tight_reader_never_finds_a_mixed_set_or_a_missing_file(sink, path):
    rotations = 350
    sink.publish(publication(0, MUTUAL_TLS))
    with started("tests.support.readers", "gateway", path, rotations) as reader:
        for number in range(1, rotations + 1):
            sink.publish(publication(number, MUTUAL_TLS, size=2000))
        found = json.loads(reader.communicate(timeout=60)[0])
    assert found["faults"] == []
    assert found["ordered"]
    assert found["last"] == [rotations]
    assert found["generations"] >= 3
    assert found["overtaken"] < found["reads"] / 2


def test_the_status_reader_finds_whole_sets_while_another_process_publishes(path):
    with started("tests.support.publisher", path, 1, "gateway"):
        deadline = time.monotonic() + 60
        seen = set()
        while len(seen) < 50:
            assert time.monotonic() < deadline
            found = read_directory(path)
            number = int(found.record["version"])
            assert same(found, publication(number, MUTUAL_TLS if number % 2 else TLS, size=3000))
            seen.add(number)


def test_a_publisher_that_is_killed_leaves_a_whole_set_each_time(path):
    chance = random.Random(20260822)
    number = 1
    for _ in range(50):
        with (
            started("tests.support.publisher", path, number, "gateway") as publisher,
            pytest.raises(subprocess.TimeoutExpired),
        ):
            publisher.wait(timeout=chance.uniform(0, 0.03))
        found = read_directory(path)
        assert found is not None
        last = int(found.record["version"])
        assert last >= number
        assert same(found, publication(last, MUTUAL_TLS if last % 2 else TLS, size=3000))
        assert files_in_current(path) == dict.fromkeys(found.files, last)
        number = last + 1
    sink = AtomicDirectory(path, layout=GATEWAY)
    sink.publish(publication(number, TLS))
    sink.close()
    assert entries(path) == ["current", str((path / "current").readlink())]


def test_a_rotation_is_one_move_for_who_watches_the_directory(sink, path):
    sink.publish(publication(1, TLS))
    with Inotify(path) as watch:
        sink.publish(publication(2, TLS))
        events = watch.events()
    assert events == [(CREATE, "v2"), (MOVED_TO, "current"), (DELETE, "v1")]


def test_reading_is_no_event(sink, path):
    sink.publish(publication(1, TLS))
    with Inotify(path) as watch:
        assert sink.read() == read_directory(path)
        assert watch.events() == []
