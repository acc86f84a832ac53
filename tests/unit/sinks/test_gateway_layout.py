"""The gateways' layout: what it looks like, whose entries it takes for its own, and what it keeps.

What holds for every layout (modes, locks, symlinks, damage) is specified in `test_directory.py`.
"""

import errno
import json
import logging
import os

import pytest

from certagent.errors import OutputError
from certagent.sinks import Publication
from certagent.sinks.directory import AtomicDirectory
from certagent.sinks.layouts import GATEWAY, KUBELET
from certagent.sinks.reading import read_directory
from tests.support.publishing import (
    FOUR,
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

RECORD = ".certagent.json"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ingress"


@pytest.fixture
def sink(path):
    opened = AtomicDirectory(path, layout=GATEWAY)
    yield opened
    opened.close()


def _version(path):
    return path / (path / "current").readlink()


# What stands there


def test_only_the_link_and_one_version_stand_at_the_top(sink, path):
    sink.publish(publication(1, MUTUAL_TLS))
    assert entries(path) == ["current", "v1"]
    assert str((path / "current").readlink()) == "v1"
    assert entries(path / "v1") == sorted([RECORD, *MUTUAL_TLS])


def test_a_published_set_is_what_is_read(sink, path):
    published = sink.publish(publication(1, TLS))
    assert sink.read() == published == read_directory(path)
    assert files_in_current(path) == dict.fromkeys(TLS, 1)


def test_nothing_is_published_in_a_new_directory(sink, path):
    assert sink.read() is None
    assert entries(path) == []
    assert read_directory(path) is None


def test_the_key_is_for_its_owner_alone(sink, path):
    sink.publish(publication(1, TLS))
    modes = {name: (path / "current" / name).stat().st_mode & 0o777 for name in TLS}
    assert modes == {"tls.key": 0o600, "tls.crt": 0o644}


def test_a_mesh_ca_is_published_in_it_too(sink, path):
    sink.publish(publication(1, FOUR))
    assert same(read_directory(path), publication(1, FOUR))


# Rotation


def test_the_version_before_goes_with_the_swap(sink, path):
    for number in range(1, 7):
        sink.publish(publication(number, TLS))
        assert entries(path) == ["current", f"v{number}"]
        assert files_in_current(path) == dict.fromkeys(TLS, number)


def test_a_file_that_comes_or_goes_needs_nothing_at_the_top(sink, path):
    for number, names in enumerate([TLS, MUTUAL_TLS, TLS], start=1):
        sink.publish(publication(number, names))
        assert files_in_current(path) == dict.fromkeys(names, number)


def test_tidying_has_nothing_to_do(sink, path, monkeypatch):
    sink.publish(publication(1, TLS))
    sink.publish(publication(2, TLS))
    faulty = FaultyOs()
    install(monkeypatch, faulty)
    sink.tidy()
    assert faulty.count == 0


def test_a_version_that_could_not_be_removed_is_removed_by_the_next_tidying(
    sink, path, monkeypatch, caplog
):
    sink.publish(publication(1, TLS))
    failure = OSError(errno.EIO, os.strerror(errno.EIO))
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        install(patched, FaultyOs(1, failure, calls=("unlink",)))
        sink.publish(publication(2, TLS))
    assert "Cannot remove v1" in caplog.text
    assert entries(path) == ["current", "v1", "v2"]
    sink.tidy()
    assert entries(path) == ["current", "v2"]


def test_versions_that_could_not_be_looked_for_are_removed_by_the_next_tidying(
    sink, path, monkeypatch
):
    sink.publish(publication(1, TLS))
    (path / "v7").mkdir()
    failure = OSError(errno.EIO, os.strerror(errno.EIO))
    with monkeypatch.context() as patched:
        install(patched, FaultyOs(1, failure, calls=("listdir",)))
        sink.close()
        sink.read()
    sink.tidy()
    assert entries(path) == ["current", "v1"]


def test_the_numbers_grow_over_restarts(sink, path):
    sink.publish(publication(1, TLS))
    sink.publish(publication(2, TLS))
    sink.close()
    again = AtomicDirectory(path, layout=GATEWAY)
    again.publish(publication(3, TLS))
    again.close()
    assert entries(path) == ["current", "v3"]


def test_a_number_that_only_the_link_still_names_is_not_used_again(sink, path):
    sink.publish(publication(1, TLS))
    (path / "v1").rename(path / "gone")
    assert sink.read() is None
    sink.publish(publication(2, TLS))
    assert entries(path) == ["current", "gone", "v2"]


def test_numbers_are_counted_and_not_spelled(sink, path):
    for number in range(1, 12):
        sink.publish(publication(number, TLS))
    assert entries(path) == ["current", "v11"]


@pytest.mark.parametrize("left", [(), ("current",), (RECORD,), (RECORD, "current", "tls.key")])
def test_what_a_killed_run_left_is_swept_at_the_first_use(sink, path, left):
    sink.publish(publication(1, TLS))
    sink.close()
    (path / "v2").mkdir()
    for name in left:
        if name == "current":
            (path / "v2" / name).symlink_to("v2")
        else:
            (path / "v2" / name).write_text("hal")
    again = AtomicDirectory(path, layout=GATEWAY)
    assert same(again.read(), publication(1, TLS))
    again.close()
    assert entries(path) == ["current", "v1"]


def test_a_version_is_told_by_its_record_from_the_first_file_to_the_last(sink, path, monkeypatch):
    sink.publish(publication(1, TLS))
    found = []

    class Watching(FaultyOs):
        def __getattribute__(self, name):
            if name in ("open", "unlink", "rmdir", "symlink"):
                for version in path.glob("v*"):
                    names = set(entries(version))
                    found.append(RECORD in names or names <= {"current"})
            return super().__getattribute__(name)

    install(monkeypatch, Watching())
    sink.publish(publication(2, TLS))
    assert len(found) > 10
    assert all(found)


# What is refused


def _file(entry):
    entry.write_text("somebody's")


def _link(entry):
    (entry.parent / "elsewhere").mkdir()
    entry.symlink_to("elsewhere")


def _directory(entry):
    entry.mkdir()
    (entry / "tls.crt").write_text("somebody's")


def _directory_with_a_link(entry):
    entry.mkdir()
    (entry / "current").symlink_to("elsewhere")


@pytest.mark.parametrize("make", [_file, _link, _directory])
@pytest.mark.parametrize("name", ["current", "v7"])
def test_entries_of_others_under_our_names_are_refused_and_left(sink, path, name, make):
    path.mkdir()
    make(path / name)
    before = entries(path)
    with pytest.raises(OutputError, match=f"{name} was not made by certagent") as refused:
        sink.publish(publication(1, TLS))
    assert "a directory of its own" in refused.value.hint
    assert entries(path) == before


@pytest.mark.parametrize("make", [_file, _link, _directory, _directory_with_a_link])
def test_a_version_of_somebody_else_is_refused_while_the_published_set_stays(sink, path, make):
    sink.publish(publication(1, TLS))
    make(path / "v7")
    for attempt in (sink.read, lambda: sink.publish(publication(2, TLS))):
        with pytest.raises(OutputError, match="v7 was not made by certagent"):
            attempt()
    assert (path / "v7").exists()
    assert same(read_directory(path), publication(1, TLS))


def test_releases_that_another_tool_keeps_in_this_way_are_never_removed(sink, path):
    path.mkdir()
    _directory(path / "v3")
    (path / "current").symlink_to("v3")
    assert sink.read() is None
    with pytest.raises(OutputError, match="v3 was not made by certagent"):
        sink.publish(publication(1, TLS))
    assert entries(path / "v3") == ["tls.crt"]


@pytest.mark.parametrize("name", ["v", "v0", "v01", "v1x", "V1", f"v{10**18}", ".hidden", "x"])
def test_entries_of_others_under_other_names_stay(sink, path, name):
    path.mkdir()
    _directory(path / name)
    sink.publish(publication(1, TLS))
    sink.publish(publication(2, TLS))
    assert entries(path) == sorted([name, "current", "v2"])


def test_a_version_that_cannot_be_looked_into_is_told_with_its_cause(sink, path, monkeypatch):
    sink.publish(publication(1, TLS))
    (path / "v7").mkdir()
    failure = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    faulty = FaultyOs(1, failure, calls=("open",))
    install(monkeypatch, faulty)
    with pytest.raises(OutputError, match="has no permission"):
        sink.publish(publication(2, TLS))


def test_a_directory_in_the_other_layout_is_refused(path):
    kubelet = AtomicDirectory(path)
    kubelet.publish(publication(1))
    kubelet.close()
    sink = AtomicDirectory(path, layout=GATEWAY)
    with pytest.raises(OutputError, match=r"contains '\.\.data'"):
        sink.publish(publication(2, TLS))
    sink.close()
    assert same(read_directory(path), publication(1))


@pytest.mark.parametrize("name", ["current", "..data", "..x", "a/b", RECORD])
def test_a_name_that_means_something_else_here_is_refused(sink, path, name):
    with pytest.raises(OutputError, match="file names"):
        sink.publish(Publication({name: b"x"}, frozenset(), {}))
    assert read_directory(path) is None


# Damage


def _edit(path):
    (_version(path) / "tls.crt").write_text("other")


def _open_the_key(path):
    (_version(path) / "tls.key").chmod(0o644)


def _lose_a_file(path):
    (_version(path) / "tls.crt").unlink()


def _lose_the_version(path):
    _version(path).rename(path / "gone")


def _lose_the_link(path):
    (path / "current").unlink()


def _garble_the_record(path):
    (_version(path) / RECORD).write_text("{")


@pytest.mark.parametrize(
    "damage",
    [_edit, _open_the_key, _lose_a_file, _lose_the_version, _lose_the_link, _garble_the_record],
)
def test_a_damaged_set_counts_as_none_and_is_repaired_by_publishing(sink, path, damage):
    sink.publish(publication(1, TLS))
    damage(path)
    assert sink.read() is None
    sink.publish(publication(1, TLS))
    assert same(sink.read(), publication(1, TLS))
    assert files_in_current(path) == dict.fromkeys(TLS, 1)


def test_a_version_that_lost_its_record_is_nobodys_to_remove(sink, path):
    sink.publish(publication(1, TLS))
    (path / "v1" / RECORD).unlink()
    assert sink.read() is None
    with pytest.raises(OutputError, match="v1 was not made by certagent"):
        sink.publish(publication(2, TLS))
    assert files_in_current(path) == dict.fromkeys(TLS, 1)


# What is remembered


def test_the_record_is_replaced_and_nothing_else(sink, path):
    before = sink.publish(publication(1, TLS))
    sink.remember({"version": "2"})
    after = sink.read()
    assert after.record == {"version": "2"}
    assert (after.files, after.published_at) == (before.files, before.published_at)
    assert entries(path) == ["current", "v1"]
    assert json.loads((path / "current" / RECORD).read_text())["record"] == {"version": "2"}


# Reading without the lock


def _swap_when(monkeypatch, sink, name):
    """Publish the next set, which removes the one before, when an entry of this name is opened."""
    calls = FaultyOs()
    install(monkeypatch, calls)
    real = calls.open

    def open_and_swap(opened, *args, **kwargs):
        if opened == name and calls.open is open_and_swap:
            calls.open = real
            sink.publish(publication(2, TLS))
        return real(opened, *args, **kwargs)

    calls.open = open_and_swap


@pytest.mark.parametrize("name", ["v1", RECORD, "tls.key", "tls.crt"])
def test_a_reader_whose_version_is_removed_meanwhile_reads_the_new_one(
    sink, path, monkeypatch, name
):
    sink.publish(publication(1, TLS))
    _swap_when(monkeypatch, sink, name)
    assert same(read_directory(path), publication(2, TLS))


def test_a_link_that_leads_nowhere_is_no_set(sink, path):
    sink.publish(publication(1, TLS))
    (path / "v1").rename(path / "gone")
    assert read_directory(path) is None


def test_a_link_of_somebody_else_is_no_set(path):
    path.mkdir()
    (path / "release").mkdir()
    (path / "current").symlink_to("release")
    assert read_directory(path) is None


# The kubelet's layout, for other readers than istiod


def test_tls_files_are_published_in_the_kubelets_layout_where_the_reader_is_not_istiod(path):
    sink = AtomicDirectory(path, layout=KUBELET)
    sink.publish(publication(1, MUTUAL_TLS))
    sink.close()
    assert str((path / "tls.crt").readlink()) == "..data/tls.crt"
    assert same(read_directory(path), publication(1, MUTUAL_TLS))


def test_a_crash_between_swap_and_removal_is_made_good_at_the_next_start(sink, path, monkeypatch):
    sink.publish(publication(1, TLS))
    with monkeypatch.context() as patched:
        install(patched, FaultyOs(1, Crash(), calls=("unlink",)))
        with pytest.raises(Crash):
            sink.publish(publication(2, TLS))
    assert entries(path) == ["current", "v1", "v2"]
    sink.close()
    again = AtomicDirectory(path, layout=GATEWAY)
    assert same(again.read(), publication(2, TLS))
    again.close()
    assert entries(path) == ["current", "v2"]
