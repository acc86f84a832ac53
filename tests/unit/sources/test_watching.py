"""Being told that a directory changed, by real changes in a real directory."""

import logging
import shutil
import subprocess
import sys
import threading
import time

import pytest

from certagent.sources import watching
from certagent.sources.watching import watch

DEADLINE = 15.0


class Wakes:
    """Counts the calls, and waits for one more."""

    def __init__(self):
        self._more = threading.Semaphore(0)

    def __call__(self):
        self._more.release()

    def wait(self, seconds=DEADLINE):
        return self._more.acquire(timeout=seconds)

    def until(self, act):
        """Act again and again until it is told: nobody says when a watch has begun."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            act()
            if self.wait(0.5):
                return True
        return False


@pytest.fixture
def wakes():
    return Wakes()


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "_SHORTEST_DELAY", 0.05)
    monkeypatch.setattr(watching, "_STEP_MS", 20)
    monkeypatch.setattr(watching, "_LOOK_MS", 100)
    path = tmp_path / "watched"
    path.mkdir()
    return path


@pytest.fixture
def watched(directory, wakes):
    stop = watch(str(directory), wakes)
    assert wakes.wait(), "the beginning of a watch is a change: what was before, nobody saw"
    yield directory
    stop()


def _touch(directory):
    (directory / "ca-key.pem").write_text(str(time.monotonic_ns()))


def test_a_change_wakes(watched, wakes):
    _touch(watched)
    assert wakes.wait()
    assert wakes.until(lambda: _touch(watched))


def test_a_swap_wakes(watched, wakes):
    def swap():
        (watched / "..data_tmp").symlink_to("..1")
        (watched / "..data_tmp").rename(watched / "..data")

    assert wakes.until(swap)


def test_a_directory_that_is_removed_is_told_once_and_watched_again(watched, wakes, caplog):
    assert wakes.until(lambda: _touch(watched))
    with caplog.at_level(logging.WARNING, logger=watching.__name__):
        shutil.rmtree(watched)
        deadline = time.monotonic() + DEADLINE
        while "Cannot watch" not in caplog.text:
            assert time.monotonic() < deadline
            wakes.wait(0.05)
        # It is looked for several times in this while.
        assert not wakes.wait(0.5)
        watched.mkdir()
        assert wakes.wait()
    assert wakes.until(lambda: _touch(watched))
    assert caplog.text.count("Cannot watch") == 1


def test_a_directory_that_is_replaced_wakes_and_is_watched_again(watched, wakes):
    assert wakes.until(lambda: _touch(watched))
    watched.rename(watched.with_name("old"))
    watched.mkdir()
    assert wakes.wait()
    assert wakes.until(lambda: _touch(watched))


def test_a_directory_that_comes_later_wakes(directory, wakes):
    stop = watch(directory / "later", wakes)
    (directory / "later").mkdir()
    assert wakes.wait()
    assert wakes.until(lambda: _touch(directory / "later"))
    stop()


def test_nothing_happens_after_the_stop(directory, wakes):
    stop = watch(directory, wakes)
    assert wakes.until(lambda: _touch(directory))
    stop()
    assert "watch-files" not in [thread.name for thread in threading.enumerate()]


def test_watchfiles_is_not_loaded_before_a_watch_is_asked_for():
    modules = "certagent.sources.files, certagent.sources.watching"
    code = f"import sys, {modules}; print('watchfiles' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
