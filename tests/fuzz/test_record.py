"""The published set's own record, read back from a volume that others can write to."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certagent.material.bundle import KeyCertBundle
from certagent.material.history import HistoricRevision, Policy
from certagent.material.rotation import plan
from certagent.material.verification import verify
from certagent.memory import remembered, written
from certagent.sinks import Publication
from certagent.sinks.directory import AtomicDirectory
from certagent.sinks.reading import read_directory
from certagent.sinks.version import RECORD
from tests.fuzz.judging import corpus
from tests.fuzz.mutations import mangled_json
from tests.support.effort import effort
from tests.support.material import NOW, files, make_root


@cache
def published():
    """A set of two roots, and what is remembered of it."""
    old, new = make_root(subject="CN=Old").intermediate(), make_root().intermediate()
    bundle = KeyCertBundle.decode(new.raw(roots=(old.root, new.root)))
    revisions = [
        HistoricRevision.good(str(version), NOW - timedelta(days=9 - version), verified)
        for version, ca in enumerate((old, new), 1)
        for verified in [verify(KeyCertBundle.decode(ca.raw()), NOW)]
    ]
    return bundle, written(revisions, {"2": NOW})


def examples() -> list[bytes]:
    """What atheris starts from, beside the corpus: made anew, for it has keys."""
    return [published()[1].encode()]


def attempt(data: bytes) -> None:
    """Take the bytes for what is remembered, and plan with it."""
    bundle, _ = published()
    revisions, first_seen = remembered(data.decode("utf-8", "replace"), "2", bundle, NOW)
    for policy in (Policy(), Policy(immediate=True)):
        plan(revisions, NOW, policy)
    assert all(min(NOW, seen) for seen in first_seen.values())
    text = written([each for each in revisions if not each.withdrawn], first_seen)
    again, _ = remembered(text, "2", bundle, NOW)
    assert [each.version for each in again] == [each.version for each in revisions]


@pytest.mark.parametrize("data", corpus("record"))
def test_whatever_has_been_found_is_a_memory_or_none(data, tmp_path):
    attempt(data)
    altered(tmp_path, data)


@settings(max_examples=effort(100, 50_000))
@given(st.data())
def test_any_memory_can_be_planned_with(data):
    attempt(data.draw(mangled_json([json.loads(published()[1])])))


def altered(directory, data: bytes) -> None:
    """Publish a set, put the bytes into its record's place, and read it, and publish again."""
    given_ = files(make_root().intermediate().raw())
    publication = Publication(files=given_, private=frozenset({"ca-key.pem"}), record={"a": "b"})
    sink = AtomicDirectory(directory / "ca")
    try:
        sink.publish(publication)
        record = directory / "ca" / "..data" / RECORD
        record.write_bytes(data)
        for found in (sink.read(), read_directory(directory / "ca")):
            assert found is None or found.files == given_
        sink.publish(publication)
        assert sink.read().files == given_
    finally:
        sink.close()


@settings(max_examples=effort(30, 20_000))
@given(st.data())
def test_any_record_is_whole_or_the_set_is_published_again(tmp_path_factory, data):
    record = {
        "published_at": "2026-01-01T00:00:00Z",
        "record": {"version": "1", "history": published()[1]},
        "files": {"ca-key.pem": {"sha256": "a" * 64, "private": True}},
    }
    altered(tmp_path_factory.mktemp("volume"), data.draw(mangled_json([record])))
