"""The gateways' layout while the process dies, or a system call fails, at every point it can.

The oracle: what a gateway finds, by path or as `status` does, is the old set or the new one, whole.
"""

import errno
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certagent.errors import OutputError
from certagent.sinks.directory import AtomicDirectory
from certagent.sinks.layouts import GATEWAY
from certagent.sinks.reading import read_directory
from tests.support.effort import effort
from tests.support.publishing import (
    MUTUAL_TLS,
    TLS,
    Crash,
    FaultyOs,
    entries,
    files_in_current,
    install,
    publication,
    same,
)

OLD, NEW, NEXT = 1, 2, 3
ERRNOS = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO)
EACH = effort((errno.ENOSPC, errno.EDQUOT, errno.EACCES), ERRNOS)


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk():
    """These tests sync thousands of times; that it is asked for is the other layout's test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


def _empty(path):
    return None


def _published(path):
    sink = AtomicDirectory(path, layout=GATEWAY)
    sink.publish(publication(OLD, TLS))
    sink.close()
    return publication(OLD, TLS)


def _with_leftovers(path):
    old = _published(path)
    (path / "v2").mkdir()
    (path / "v2" / ".certagent.json").write_text("{}")
    (path / "v2" / "tls.key").write_text("half a k")
    (path / "v2" / "current").symlink_to("v2")
    (path / "v3").mkdir()
    return old


STATES = {
    "nothing": (_empty, TLS),
    "published": (_published, TLS),
    "leftovers": (_with_leftovers, TLS),
    "a CA for clients comes": (_published, MUTUAL_TLS),
}


def _run(path, names, number):
    """Do what an agent does in its passes."""
    sink = AtomicDirectory(path, layout=GATEWAY)
    try:
        sink.read()
        sink.publish(publication(number, names))
        sink.read()
        sink.tidy()
    finally:
        sink.close()


def _trail(monkeypatch, path, names, number=NEW, **options):
    faulty = FaultyOs(**options)
    with monkeypatch.context() as patch:
        install(patch, faulty)
        try:
            _run(path, names, number)
        except (Crash, OutputError) as failure:
            return faulty, failure
    return faulty, None


def _check_whole(path, old, new):
    """What is found is one whole set, old or new; return whether it is the new one."""
    found = read_directory(path)
    assert same(found, old) or same(found, new), f"neither set: {found}"
    wanted = {} if found is None else dict.fromkeys(found.files, int(found.record["version"]))
    assert files_in_current(path) == wanted
    return same(found, new)


def _check_next(path):
    """The next run publishes, and leaves nothing behind of those before."""
    _run(path, TLS, NEXT)
    assert same(read_directory(path), publication(NEXT, TLS))
    assert entries(path) == ["current", str((path / "current").readlink())]
    assert entries(path / "current") == sorted([".certagent.json", *TLS])


@pytest.mark.parametrize(("state", "names"), STATES.values(), ids=STATES)
def test_death_at_any_system_call_leaves_a_whole_set(tmp_path, monkeypatch, state, names):
    outcomes = set()
    at = 0
    while True:
        at += 1
        path = tmp_path / str(at) / "ingress"
        old = state(path)
        faulty, _ = _trail(monkeypatch, path, names, at=at, failure=Crash())
        outcomes.add(_check_whole(path, old, publication(NEW, names)))
        _check_next(path)
        if not faulty.failed:
            break
    # The search went through all of it: before the swap, after it, and to the end.
    assert outcomes == {False, True}
    assert {"mkdir", "write", "fchmod", "fsync", "symlink", "rename"} <= set(faulty.trail)
    assert at == faulty.count + 1


@pytest.mark.parametrize(
    ("number", "state", "names"),
    [
        *((errno.EIO, *state) for state in STATES.values()),
        *((number, *STATES["published"]) for number in EACH),
    ],
    ids=[*STATES, *map(errno.errorcode.get, EACH)],
)
def test_an_error_at_any_system_call_leaves_a_whole_set(
    tmp_path, monkeypatch, state, names, number
):
    at = 0
    while True:
        at += 1
        path = tmp_path / str(at) / "ingress"
        old = state(path)
        error = OSError(number, os.strerror(number))
        faulty, failure = _trail(monkeypatch, path, names, at=at, failure=error)
        is_new = path.exists() and _check_whole(path, old, publication(NEW, names))
        if failure is None:
            assert is_new
        else:
            assert isinstance(failure, OutputError)
        if not faulty.failed:
            break
        _check_next(path)


def test_a_failure_after_the_swap_is_made_good_by_the_tidying_of_the_same_run(
    tmp_path, monkeypatch
):
    """A gateway with Istio 1.28 learns of the rotation by the removal: it must not wait for it."""
    at = 0
    while True:
        at += 1
        path = tmp_path / str(at) / "ingress"
        _published(path)
        error = OSError(errno.EIO, os.strerror(errno.EIO))
        calls = ("unlink", "rmdir", "listdir")
        faulty, failure = _trail(monkeypatch, path, TLS, at=at, failure=error, calls=calls)
        if not faulty.failed:
            break
        if failure is None:
            assert len(entries(path)) == 2
    assert at > 5


@settings(max_examples=40, suppress_health_check=[HealthCheck.differing_executors])
@given(
    runs=st.lists(
        st.tuples(
            st.sampled_from([TLS, MUTUAL_TLS]),
            st.integers(min_value=1, max_value=200),
            st.sampled_from([Crash(), *(OSError(number, "injected") for number in ERRNOS)]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_history_of_failures_leaves_a_whole_set_and_numbers_that_grow(runs):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "ingress"
        before, highest = None, 0
        for number, (names, at, failure) in enumerate(runs):
            _trail(patch, path, names, number, at=at, failure=failure)
            found = read_directory(path)
            assert found == before or same(found, publication(number, names))
            if found is not None:
                generations = dict.fromkeys(found.files, int(found.record["version"]))
                assert files_in_current(path) == generations
                version = int((path / "current").readlink().name[1:])
                assert version > highest or found == before
                highest = version
            before = found
        _check_next(path)
