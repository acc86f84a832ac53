"""The atomic directory: what it looks like, what it refuses, and what counts as damaged."""

import json
import logging
import os
import re
import stat
from datetime import UTC, datetime, timedelta

import pytest

from certagent.errors import OutputError
from certagent.sinks import Publication
from certagent.sinks.directory import AtomicDirectory
from certagent.sinks.reading import read_directory
from tests.support.publishing import (
    CRL,
    FIVE,
    FOUR,
    KEY,
    Crash,
    FaultyOs,
    current,
    entries,
    expected_entries,
    install,
    links_at_top,
    publication,
    same,
    versions,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "istio-ca"


@pytest.fixture
def sink(path):
    opened = AtomicDirectory(path)
    yield opened
    opened.close()


def _mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


# What stands there


def test_nothing_is_published_in_a_new_directory(sink, path):
    assert sink.read() is None
    assert path.is_dir()
    assert entries(path) == []


def test_a_missing_directory_is_made_with_its_parents(tmp_path):
    deep = tmp_path / "a" / "b" / "c"
    sink = AtomicDirectory(str(deep))
    sink.publish(publication(1))
    sink.close()
    assert links_at_top(deep) == dict.fromkeys(FOUR, 1)


def test_a_directory_that_is_made_is_not_writable_by_others_even_without_a_umask(sink, path):
    before = os.umask(0)
    try:
        sink.publish(publication(1))
    finally:
        os.umask(before)
    assert _mode(path) == 0o755


def test_a_published_set_is_what_is_read(sink):
    before = datetime.now(UTC)
    published = sink.publish(publication(1))
    found = sink.read()
    assert same(found, publication(1))
    assert found == published
    assert before <= found.published_at <= before + timedelta(seconds=60)


def test_only_the_version_the_data_link_and_the_file_links_stand_at_the_top(sink, path):
    sink.publish(publication(1))
    assert entries(path) == expected_entries(path)
    assert re.fullmatch(r"\.\.\d{8}T\d{6}\.\d{6}-[0-9a-f]{8}", current(path).name)
    assert {name: str((path / name).readlink()) for name in FOUR} == {
        name: f"..data/{name}" for name in FOUR
    }


def test_the_record_lies_inside_the_version_without_the_files_contents(sink, path):
    sink.publish(publication(1))
    record = json.loads((path / "..data" / ".certagent.json").read_text())
    assert record["record"] == {"version": "1"}
    assert record["files"][KEY]["private"] is True
    assert "1 ca-key.pem" not in json.dumps(record)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_are_what_was_asked_for_whatever_the_umask(path, umask):
    path.mkdir()
    sink = AtomicDirectory(path, key_mode=0o640, mode=0o444)
    before = os.umask(umask)
    try:
        sink.publish(publication(1))
    finally:
        os.umask(before)
    modes = {name: _mode(path / "..data" / name) for name in (*FOUR, ".certagent.json")}
    assert modes == dict.fromkeys(FOUR, 0o444) | {KEY: 0o640, ".certagent.json": 0o644}
    assert _mode(current(path)) == 0o755
    sink.close()


def test_keys_are_for_their_owner_alone_unless_told(sink, path):
    sink.publish(publication(1))
    assert _mode(path / "..data" / KEY) == 0o600
    assert _mode(path / "..data" / "ca-cert.pem") == 0o644


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_group_that_a_volume_hands_down_is_kept(sink, path, umask):
    path.mkdir()
    os.chown(path, -1, os.getegid())
    path.chmod(0o2775)
    before = os.umask(umask)
    try:
        sink.publish(publication(1))
    finally:
        os.umask(before)
    assert _mode(current(path)) == 0o2755
    assert same(sink.read(), publication(1))


def test_contents_that_are_written_byte_by_byte_are_whole(sink, monkeypatch):
    install(monkeypatch, FaultyOs(short=True))
    sink.publish(publication(1, size=300))
    monkeypatch.undo()
    assert same(sink.read(), publication(1, size=300))


def test_the_directory_itself_is_never_replaced(sink, path):
    sink.publish(publication(1))
    before = path.stat().st_ino
    sink.publish(publication(2))
    assert path.stat().st_ino == before


# Rotation


def test_the_version_before_stays_for_slow_readers_until_tidied(sink, path):
    sink.publish(publication(1))
    before = current(path)
    sink.publish(publication(2))
    assert (before / KEY).read_bytes() == publication(1).files[KEY]
    sink.tidy()
    assert not before.exists()
    assert entries(path) == expected_entries(path)


def test_the_version_before_the_one_before_goes_at_the_next_publication(sink, path):
    for number in (1, 2, 3):
        sink.publish(publication(number))
    assert len(versions(path)) == 2


def test_room_is_made_before_the_new_set_is_written(sink, path, monkeypatch):
    sink.publish(publication(1))
    sink.publish(publication(2))
    install(monkeypatch, FaultyOs(1, Crash(), calls=("mkdir",)))
    with pytest.raises(Crash):
        sink.publish(publication(3))
    assert versions(path) == [current(path).name]


def test_tidying_with_nothing_to_tidy_touches_nothing(sink, path, monkeypatch):
    sink.publish(publication(1))
    faulty = FaultyOs()
    install(monkeypatch, faulty)
    sink.tidy()
    assert faulty.count == 0


def test_a_file_that_comes_gets_a_link_and_one_that_goes_loses_it(sink, path):
    sink.publish(publication(1))
    sink.publish(publication(2, FIVE))
    assert links_at_top(path) == dict.fromkeys(FIVE, 2)
    sink.publish(publication(3))
    assert not (path / CRL).is_symlink()
    sink.tidy()
    assert entries(path) == expected_entries(path)


def test_a_restarted_agent_finds_what_was_published(sink, path):
    sink.publish(publication(1))
    sink.close()
    again = AtomicDirectory(path)
    assert same(again.read(), publication(1))
    again.close()


def test_a_restarted_agent_sweeps_the_version_before(sink, path):
    sink.publish(publication(1))
    sink.publish(publication(2))
    sink.close()
    again = AtomicDirectory(path)
    again.read()
    assert entries(path) == expected_entries(path)
    again.close()


def test_what_a_killed_run_left_is_swept_at_the_first_use(sink, path):
    sink.publish(publication(1))
    sink.close()
    left = path / "..20200101T000000.000000-00000000"
    left.mkdir()
    (left / KEY).write_text("half a k")
    (left / "..data").symlink_to(left.name)
    (path / CRL).symlink_to(f"..data/{CRL}")
    again = AtomicDirectory(path)
    again.read()
    assert entries(path) == expected_entries(path)
    again.close()


@pytest.mark.parametrize(
    "name", ["..2020_01_01_00_00_00.123", "..20200101T000000.000000-zzzzzzzz", ".hidden", "README"]
)
def test_entries_of_others_are_never_removed(sink, path, name):
    path.mkdir()
    (path / name).mkdir()
    (path / "elsewhere").symlink_to("nowhere")
    sink.publish(publication(1))
    sink.publish(publication(2))
    sink.tidy()
    assert {name, "elsewhere"} <= set(entries(path))


def test_what_cannot_be_removed_is_a_warning_and_hinders_nothing(sink, path, caplog):
    left = path / "..20200101T000000.000000-00000000"
    (left / "a directory of somebody").mkdir(parents=True)
    second = path / "..20200101T000000.000000-00000001"
    second.mkdir()
    with caplog.at_level(logging.WARNING):
        sink.publish(publication(1))
    assert left.is_dir()
    assert not second.exists()
    assert f"Cannot remove {left.name}" in caplog.text
    assert same(sink.read(), publication(1))


# What is refused


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "..data", "..x", "a/b", "/etc/passwd", "nul\0", "new\nline", "x" * 256),
        *(".certagent.json", "tls.crt", "istio-generated", "é" * 128, "\ud800"),
    ],
)
def test_a_name_that_is_no_plain_file_name_is_refused(sink, path, name):
    sink.publish(publication(1))
    with pytest.raises(OutputError, match="file names"):
        sink.publish(Publication({name: b"x", KEY: b"y"}, frozenset({KEY}), {}))
    assert same(sink.read(), publication(1))
    assert len(versions(path)) == 1


def test_the_longest_name_is_taken(sink):
    name = "x" * 255
    sink.publish(Publication({name: b"x"}, frozenset(), {}))
    assert sink.read().files == {name: b"x"}


def test_an_empty_set_is_refused(sink):
    with pytest.raises(OutputError, match="none"):
        sink.publish(Publication({}, frozenset(), {}))


def test_a_private_name_without_a_file_is_refused(sink):
    with pytest.raises(OutputError, match=r"ca-keys\.pem"):
        sink.publish(Publication({KEY: b"x"}, frozenset({"ca-keys.pem"}), {}))


def test_a_symlink_to_a_directory_is_refused(sink, path, tmp_path):
    (tmp_path / "real").mkdir()
    path.symlink_to("real")
    with pytest.raises(OutputError, match="symbolic link"):
        sink.publish(publication(1))
    assert entries(tmp_path / "real") == []


def test_a_symlink_is_refused_also_with_a_slash_at_its_end(path, tmp_path):
    (tmp_path / "real").mkdir()
    path.symlink_to("real")
    with pytest.raises(OutputError, match="symbolic link"):
        AtomicDirectory(f"{path}/").read()


def test_a_symlink_that_leads_nowhere_is_refused(sink, path):
    path.symlink_to("nowhere")
    with pytest.raises(OutputError, match="symbolic link"):
        sink.read()


def test_a_file_in_the_directorys_place_is_refused(sink, path):
    path.write_text("")
    with pytest.raises(OutputError, match="not a directory"):
        sink.publish(publication(1))


def test_a_file_in_the_place_of_a_parent_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not a directory"):
        AtomicDirectory(tmp_path / "file" / "istio-ca").read()


@pytest.mark.parametrize("name", ["tls.crt", "istio-generated"])
def test_a_file_that_switches_istiods_mode_is_refused(sink, path, name):
    sink.publish(publication(1))
    (path / name).write_text("")
    with pytest.raises(OutputError, match=name) as refused:
        sink.publish(publication(2))
    assert "remove the file" in refused.value.hint
    with pytest.raises(OutputError, match=name):
        sink.read()
    assert same(read_directory(path), publication(1))


def _file(entry):
    entry.write_text("somebody's")


def _link_elsewhere(entry):
    entry.symlink_to("/etc/hostname")


def _directory(entry):
    entry.mkdir()


@pytest.mark.parametrize("make", [_file, _link_elsewhere, _directory])
@pytest.mark.parametrize("name", [KEY, "..data"])
def test_entries_of_others_under_our_names_are_refused_and_left(sink, path, name, make):
    path.mkdir()
    make(path / name)
    with pytest.raises(OutputError, match="was not made by certagent"):
        sink.publish(publication(1))
    assert entries(path) == [name]


def test_a_link_that_was_replaced_by_a_file_is_refused_when_read(sink, path):
    sink.publish(publication(1))
    (path / KEY).unlink()
    (path / KEY).write_text("somebody's")
    with pytest.raises(OutputError, match="was not made by certagent"):
        sink.read()


def test_a_kubelets_volume_is_refused(sink, path):
    (path / "..2026_01_01_00_00_00.123").mkdir(parents=True)
    (path / "..data").symlink_to("..2026_01_01_00_00_00.123")
    with pytest.raises(OutputError, match="mounted Secret"):
        sink.read()


# One agent at a time


def test_a_second_agent_is_refused(sink, path):
    sink.publish(publication(1))
    with pytest.raises(OutputError, match="Another certagent publishes to"):
        AtomicDirectory(path).publish(publication(2))
    assert same(sink.read(), publication(1))


def test_the_next_agent_takes_the_directory_once_it_is_released(sink, path):
    sink.publish(publication(1))
    second = AtomicDirectory(path)
    with pytest.raises(OutputError):
        second.read()
    sink.close()
    second.publish(publication(2))
    second.close()
    assert same(read_directory(path), publication(2))


def test_closing_twice_is_closing_once(sink):
    sink.read()
    sink.close()
    sink.close()
    assert sink.read() is None


def test_a_file_system_without_locks_is_an_output_error(sink, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("certagent.sinks.held.fcntl.flock", refuse)
    with pytest.raises(OutputError, match="operation not supported"):
        sink.read()


# The directory goes away


def _removed(path):
    path.rename(path.with_name("moved"))


def _replaced(path):
    path.rename(path.with_name("moved"))
    path.mkdir()


def _linked(path):
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def _beneath_a_file(path):
    path.rename(path.with_name("moved"))
    path.write_text("")


@pytest.mark.parametrize("happens", [_removed, _replaced, _linked, _beneath_a_file])
def test_a_directory_that_was_taken_away_is_told_with_its_consequence(sink, path, happens):
    sink.publish(publication(1))
    happens(path)
    with pytest.raises(OutputError, match="removed or replaced") as raised:
        sink.publish(publication(2))
    assert "restart istiod" in raised.value.hint
    assert same(read_directory(path.with_name("moved")), publication(1))


def test_a_directory_that_was_replaced_is_taken_at_the_next_try(sink, path):
    sink.publish(publication(1))
    _replaced(path)
    with pytest.raises(OutputError):
        sink.read()
    assert sink.read() is None
    sink.publish(publication(2))
    assert links_at_top(path) == dict.fromkeys(FOUR, 2)


def _before_the_first_file(monkeypatch, act):
    calls = FaultyOs()
    install(monkeypatch, calls)
    real = calls.open

    def open_after(name, flags, *args, **kwargs):
        if str(name).startswith("..2"):
            calls.open = real
            act(name)
        return real(name, flags, *args, **kwargs)

    calls.open = open_after


def test_a_version_that_turns_into_a_link_leads_no_key_elsewhere(sink, path, tmp_path, monkeypatch):
    sink.publish(publication(1))
    (tmp_path / "elsewhere").mkdir()

    def replace(name):
        (path / name).rmdir()
        (path / name).symlink_to(tmp_path / "elsewhere")

    _before_the_first_file(monkeypatch, replace)
    with pytest.raises(OutputError):
        sink.publish(publication(2))
    assert entries(tmp_path / "elsewhere") == []
    assert same(read_directory(path), publication(1))


def test_a_directory_that_turns_into_a_link_leads_no_key_elsewhere(
    sink, path, tmp_path, monkeypatch
):
    sink.publish(publication(1))
    (tmp_path / "elsewhere").mkdir()

    def replace(_):
        path.rename(path.with_name("moved"))
        path.symlink_to("elsewhere")

    _before_the_first_file(monkeypatch, replace)
    sink.publish(publication(2))
    assert entries(tmp_path / "elsewhere") == []
    assert same(read_directory(tmp_path / "moved"), publication(2))
    with pytest.raises(OutputError, match="removed or replaced"):
        sink.read()


# Damage


def _change_bytes(path):
    (current(path) / "ca-cert.pem").write_text("other")


def _cut(path):
    (current(path) / "ca-cert.pem").write_text("")


def _swell(path):
    os.truncate(current(path) / "ca-cert.pem", 17 << 20)


def _remove_file(path):
    (current(path) / KEY).unlink()


def _link_file(path):
    (current(path) / KEY).rename(path.with_name("key"))
    (current(path) / KEY).symlink_to(path.with_name("key"))


def _pipe_for_file(path):
    (current(path) / KEY).unlink()
    os.mkfifo(current(path) / KEY)


def _directory_for_file(path):
    (current(path) / KEY).unlink()
    (current(path) / KEY).mkdir()


def _open_the_key(path):
    (current(path) / KEY).chmod(0o644)


def _close_the_directory(path):
    current(path).chmod(0o700)


def _remove_link(path):
    (path / KEY).unlink()


def _remove_data(path):
    (path / "..data").unlink()


def _remove_version(path):
    current(path).rename(path.with_name("gone"))


def _file_for_version(path):
    stamp = current(path)
    stamp.rename(path.with_name("gone"))
    stamp.write_text("")


def _remove_record(path):
    (current(path) / ".certagent.json").unlink()


def _edit_record(change):
    def edit(path):
        file = current(path) / ".certagent.json"
        record = json.loads(file.read_text())
        change(record)
        file.write_text(json.dumps(record))

    return edit


DAMAGES = {
    "other bytes": _change_bytes,
    "an empty file": _cut,
    "a swollen file": _swell,
    "no file": _remove_file,
    "a link for a file": _link_file,
    "a pipe for a file": _pipe_for_file,
    "a directory for a file": _directory_for_file,
    "a key for all to read": _open_the_key,
    "a version that others cannot enter": _close_the_directory,
    "no link": _remove_link,
    "no data link": _remove_data,
    "no version": _remove_version,
    "no record": _remove_record,
    "a record that is no JSON": lambda path: (current(path) / ".certagent.json").write_text("{"),
    "a record of no files": _edit_record(lambda record: record["files"].clear()),
    "a record without a time": _edit_record(lambda record: record.pop("published_at")),
    "a record with a local time": _edit_record(
        lambda record: record.update(published_at="2026-01-01T00:00:00")
    ),
    "a record that leads elsewhere": _edit_record(
        lambda record: record["files"].update({"../x": record["files"][KEY]})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_set_counts_as_none_and_is_repaired_by_publishing(sink, path, damage):
    sink.publish(publication(1))
    damage(path)
    assert sink.read() is None
    sink.publish(publication(1))
    assert same(sink.read(), publication(1))
    assert links_at_top(path) == dict.fromkeys(FOUR, 1)


def test_damage_is_told_with_its_kind(sink, path, caplog):
    sink.publish(publication(1))
    _change_bytes(path)
    with caplog.at_level(logging.WARNING):
        sink.read()
    assert "ca-cert.pem has other bytes than were published" in caplog.text


def test_a_file_in_the_place_of_a_version_counts_as_damage(sink, path):
    sink.publish(publication(1))
    _file_for_version(path)
    assert sink.read() is None
    sink.publish(publication(2))
    assert same(sink.read(), publication(2))


def test_other_modes_in_the_configuration_make_the_set_damaged(sink, path):
    sink.publish(publication(1))
    sink.close()
    again = AtomicDirectory(path, key_mode=0o640)
    assert again.read() is None
    again.publish(publication(1))
    assert same(again.read(), publication(1))
    again.close()


# Reading without the lock


def test_a_reader_needs_no_lock(sink, path):
    sink.publish(publication(1))
    assert same(read_directory(path), publication(1))
    assert same(read_directory(str(path)), publication(1))


def test_a_reader_finds_nothing_where_nothing_is(path):
    assert read_directory(path) is None
    path.mkdir()
    assert read_directory(path) is None


@pytest.mark.parametrize("damage", [_change_bytes, _remove_file, _remove_record, _remove_version])
def test_a_reader_takes_a_damaged_set_for_none(sink, path, damage):
    sink.publish(publication(1))
    damage(path)
    assert read_directory(path) is None


def test_a_reader_whose_version_is_removed_meanwhile_reads_the_new_one(sink, path, monkeypatch):
    sink.publish(publication(1))
    calls = FaultyOs()
    install(monkeypatch, calls)
    real = calls.open

    def open_and_swap(name, *args, **kwargs):
        if name == ".certagent.json" and calls.open is open_and_swap:
            calls.open = real
            sink.publish(publication(2))
            sink.tidy()
        return real(name, *args, **kwargs)

    calls.open = open_and_swap
    assert same(read_directory(path), publication(2))


def test_a_reader_whose_set_is_removed_altogether_finds_none(sink, path, monkeypatch):
    sink.publish(publication(1))
    calls = FaultyOs()
    install(monkeypatch, calls)
    real = calls.open

    def open_after_removal(name, *args, **kwargs):
        if name == KEY:
            (path / "..data").unlink()
            (path / versions(path)[0] / KEY).unlink()
        return real(name, *args, **kwargs)

    calls.open = open_after_removal
    assert read_directory(path) is None


def test_what_is_no_directory_cannot_be_read(path):
    path.write_text("")
    with pytest.raises(OutputError, match="Cannot read"):
        read_directory(path)


# Errors tell the cause


@pytest.mark.parametrize(
    ("errno", "cause", "advice"),
    [
        (28, "volume is full", "sizeLimit"),
        (122, "volume is full", "sizeLimit"),
        (13, "has no permission", "1337"),
        (1, "has no permission", "1337"),
        (30, "read-only file system", "readOnly"),
        (5, "disk failed", "kernel log"),
        (12, "cannot allocate memory", "stays as it is"),
    ],
)
def test_a_failing_system_call_is_told_with_cause_and_advice(
    sink, monkeypatch, errno, cause, advice
):
    sink.publish(publication(1))
    failure = OSError(errno, os.strerror(errno))
    install(monkeypatch, FaultyOs(1, failure, calls=("mkdir",)))
    with pytest.raises(OutputError, match=cause) as raised:
        sink.publish(publication(2))
    assert advice in raised.value.hint
    assert str(raised.value).count("\n") < 3
    monkeypatch.undo()
    assert same(sink.read(), publication(1))


def test_no_key_is_in_any_representation(sink):
    published = sink.publish(publication(1))
    assert "1 ca-key.pem" not in repr((publication(1), published, sink, sink.read()))


# What is remembered


def test_the_record_is_replaced_and_nothing_else(sink, path):
    before = sink.publish(publication(1))
    stamp = (path / "..data").readlink()

    sink.remember({"version": "2"})

    after = sink.read()
    assert after.record == {"version": "2"}
    assert (after.files, after.published_at) == (before.files, before.published_at)
    assert (path / "..data").readlink() == stamp
    assert _mode(path / "..data" / ".certagent.json") == 0o644


def test_what_a_killed_run_left_of_a_record_is_in_nobodys_way(sink, path):
    sink.publish(publication(1))
    (path / "..data" / ".certagent.json.new").write_text("half")

    sink.remember({"version": "2"})

    assert sink.read().record == {"version": "2"}
    assert not (path / "..data" / ".certagent.json.new").exists()


@pytest.mark.parametrize("content", [None, "not JSON"])
def test_the_record_of_a_damaged_set_is_not_replaced(sink, path, content):
    sink.publish(publication(1))
    record = path / "..data" / ".certagent.json"
    record.unlink()
    if content:
        record.write_text(content)

    with pytest.raises(OutputError, match="damaged"):
        sink.remember({"version": "2"})


def test_a_record_survives_a_crash_at_every_call(path, monkeypatch):
    for number in range(1, 100):
        sink = AtomicDirectory(path)
        sink.publish(publication(1))
        faulty = FaultyOs(number, Crash())
        with monkeypatch.context() as patched:
            install(patched, faulty)
            try:
                sink.remember({"version": "2"})
                crashed = False
            except Crash:
                crashed = True
        sink.close()
        assert read_directory(path).record["version"] in {"2", publication(1).record["version"]}
        if not crashed:
            return
    pytest.fail("it never came to its end")
