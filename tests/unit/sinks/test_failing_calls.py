"""Publishing while the process dies, or a system call fails, at every point where it can.

The oracle: what a reader finds, by whichever way, is the old set or the new one, whole.
"""

import errno
import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certagent.errors import OutputError
from certagent.sinks.directory import AtomicDirectory
from certagent.sinks.reading import read_directory
from tests.support.effort import effort
from tests.support.publishing import (
    CRL,
    FIVE,
    FOUR,
    KEY,
    Crash,
    FaultyOs,
    current,
    expected_entries,
    install,
    links_at_top,
    publication,
    same,
    versions,
)

OLD, NEW, NEXT = 1, 2, 3


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk():
    """These tests sync ten thousand times; that it is asked for, and when, is looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


def _empty(path):
    return None


def _published(names):
    def publish(path):
        sink = AtomicDirectory(path)
        sink.publish(publication(OLD, names))
        sink.close()
        return publication(OLD, names)

    return publish


def _twice_published(path):
    sink = AtomicDirectory(path)
    sink.publish(publication(0))
    sink.publish(publication(OLD))
    sink.close()
    return publication(OLD)


def _with_leftovers(path):
    old = _published(FOUR)(path)
    left = path / "..20200101T000000.000000-00000000"
    left.mkdir()
    (left / KEY).write_text("half a k")
    (left / "..data").symlink_to(left.name)
    (path / CRL).symlink_to(f"..data/{CRL}")
    return old


def _with_a_missing_link(path):
    old = _published(FOUR)(path)
    (path / "ca-cert.pem").unlink()
    return old


STATES = {
    "nothing, four files": (_empty, FOUR),
    "published, four files": (_published(FOUR), FOUR),
    "published twice, four files": (_twice_published, FOUR),
    "leftovers, four files": (_with_leftovers, FOUR),
    "a list of revocations comes": (_published(FOUR), FIVE),
    "a list of revocations goes": (_published(FIVE), FOUR),
    "a link is missing": (_with_a_missing_link, FOUR),
}


def _run(path, names, number):
    """Do what an agent does in its passes."""
    sink = AtomicDirectory(path)
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
    # By the links: with the same answer, but for a link that had been missing before.
    by_links = links_at_top(path)
    wanted = {} if found is None else dict.fromkeys(found.files, int(found.record["version"]))
    lacking = wanted.keys() - by_links.keys()
    assert by_links == {name: number for name, number in wanted.items() if name not in lacking}
    assert lacking <= ({"ca-cert.pem"} if same(found, old) else set())
    return same(found, new)


def _check_next(path):
    """The next run publishes, and leaves nothing behind of those before."""
    sink = AtomicDirectory(path)
    sink.publish(publication(NEXT))
    assert same(sink.read(), publication(NEXT))
    sink.tidy()
    sink.close()
    assert sorted(p.name for p in path.iterdir()) == expected_entries(path)
    assert links_at_top(path) == dict.fromkeys(FOUR, NEXT)
    assert not (current(path) / "..data").is_symlink()


@pytest.mark.parametrize(("state", "names"), STATES.values(), ids=STATES)
def test_death_at_any_system_call_leaves_a_whole_set(tmp_path, monkeypatch, state, names):
    outcomes = set()
    at = 0
    while True:
        at += 1
        path = tmp_path / str(at) / "istio-ca"
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


ERRNOS = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO)
EACH = effort((errno.ENOSPC, errno.EDQUOT, errno.EACCES), ERRNOS)
CHANGING = ("mkdir", "write", "fchmod", "fsync", "symlink", "rename", "unlink", "rmdir", "open")


@pytest.mark.parametrize(
    ("number", "state", "names"),
    [
        *((errno.EIO, *state) for state in STATES.values()),
        *((number, *STATES["a list of revocations comes"]) for number in EACH),
    ],
    ids=[*STATES, *map(errno.errorcode.get, EACH)],
)
def test_an_error_at_any_system_call_leaves_a_whole_set_and_no_key_behind(
    tmp_path, monkeypatch, state, names, number
):
    at = 0
    while True:
        at += 1
        path = tmp_path / str(at) / "istio-ca"
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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_that_stays_broken_leaves_the_old_set_untouched(tmp_path, monkeypatch, number):
    calls = tuple(name for name in CHANGING if name not in ("open", "unlink", "rmdir"))
    at = 0
    while True:
        at += 1
        path = tmp_path / str(at) / "istio-ca"
        old = _published(FOUR)(path)
        error = OSError(number, os.strerror(number))
        faulty, failure = _trail(
            monkeypatch, path, FIVE, at=at, failure=error, calls=calls, for_good=True
        )
        is_new = _check_whole(path, old, publication(NEW, FIVE))
        assert is_new == (failure is None)
        if not faulty.failed:
            break
        if not is_new:
            # Not one entry more than before: neither a version, nor a link without a file.
            assert sorted(p.name for p in path.iterdir()) == expected_entries(path)
    assert at > 10


def test_a_full_volume_leaves_no_part_of_the_new_key(tmp_path, monkeypatch):
    path = tmp_path / "istio-ca"
    _published(FOUR)(path)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    _, failure = _trail(monkeypatch, path, FOUR, at=3, failure=full, calls=("write",))
    assert "the volume is full" in str(failure)
    assert len(versions(path)) == 1


def test_a_set_that_is_visible_is_published_even_if_its_last_fsync_fails(
    tmp_path, monkeypatch, caplog
):
    path = tmp_path / "istio-ca"
    faulty, _ = _trail(monkeypatch, path, FOUR)
    last = faulty.trail.count("fsync")
    path = tmp_path / "other"
    error = OSError(errno.EIO, os.strerror(errno.EIO))
    _, failure = _trail(monkeypatch, path, FOUR, at=last, failure=error, calls=("fsync",))
    assert failure is None
    assert "may not outlive a power cut" in caplog.text
    assert same(read_directory(path), publication(NEW))


def test_all_is_on_disk_before_it_becomes_visible(tmp_path, monkeypatch):
    faulty, _ = _trail(monkeypatch, tmp_path / "istio-ca", FOUR)
    calls = " ".join(faulty.trail)
    # Five files with their modes, then their directory, then the top; after the swap the top again.
    assert re.search(r"(write fchmod fsync close .*){5}fsync .*fsync rename .*fsync", calls)
    assert faulty.trail.count("fsync") == 8


@settings(max_examples=40, suppress_health_check=[HealthCheck.differing_executors])
@given(
    runs=st.lists(
        st.tuples(
            st.sampled_from([FOUR, FIVE]),
            st.integers(min_value=1, max_value=200),
            st.sampled_from([Crash(), *(OSError(number, "injected") for number in ERRNOS)]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_history_of_failures_leaves_a_whole_set(runs):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "istio-ca"
        before = None
        for number, (names, at, failure) in enumerate(runs):
            _trail(patch, path, names, number, at=at, failure=failure)
            found = read_directory(path)
            wanted = publication(number, names)
            assert found == before or same(found, wanted)
            if found is not None:
                generations = dict.fromkeys(found.files, int(found.record["version"]))
                assert links_at_top(path) == generations
            before = found
        _check_next(path)
