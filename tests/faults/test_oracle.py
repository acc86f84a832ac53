"""The judge of all the tests here: it convicts what a reader must never find, and nothing else."""

from __future__ import annotations

import shutil

import pytest

from certagent.layouts import CURRENT
from certagent.material.serving import tls
from certagent.sinks import Publication
from certagent.sinks.directory import AtomicDirectory
from certagent.sinks.layouts import GATEWAY, ISTIOD
from tests.support.material import files, make_leaf, make_root, tls_files
from tests.support.oracle import NOTHING, Oracle

ROOT = make_root()
FIRST, SECOND = (files(ROOT.intermediate().raw()) for _ in range(2))
KEYS = frozenset({"ca-key.pem", "tls.key"})


@pytest.fixture
def sink(tmp_path):
    made = AtomicDirectory(tmp_path / "ca", layout=ISTIOD)
    yield made
    made.close()


def publish(sink, found):
    sink.read()
    sink.publish(Publication(found, KEYS & found.keys(), {}))


def test_nothing_and_whole_sets_one_after_the_other_are_what_may_be_found(sink, tmp_path):
    with Oracle(tmp_path / "ca", first=FIRST, second=SECOND) as oracle:
        assert oracle.now == NOTHING
        publish(sink, FIRST)
        oracle.until("first")
        publish(sink, SECOND)
        sink.tidy()
        oracle.until("second")

    assert oracle.found == ["first", "second"]


def test_a_gateways_directory_is_read_through_current(tmp_path):
    one, two = (tls_files(make_leaf().raw()) for _ in range(2))
    sink = AtomicDirectory(tmp_path / "tls", layout=GATEWAY)
    with Oracle(tmp_path / "tls", link=CURRENT, kind=tls("server"), one=one, two=two) as oracle:
        for name, found in (("one", one), ("two", two)):
            publish(sink, found)
            oracle.until(name)
    sink.close()

    assert oracle.found == ["one", "two"]


def verdict(sink, directory, deed, **sets):
    """Return what is found wrong when the first of the sets is published, and then a deed done."""
    name, found = next(iter(sets.items()))
    publish(sink, found)
    oracle = Oracle(directory, **sets).__enter__()
    oracle.until(name)
    deed(directory)
    with pytest.raises(AssertionError) as convicted:
        oracle.__exit__()
    return str(convicted.value)


def test_a_mixture_of_two_sets_is_told_by_whose_each_file_is(sink, tmp_path):
    def mix(directory):
        (directory / "..data/ca-key.pem").write_bytes(SECOND["ca-key.pem"])

    told = verdict(sink, tmp_path / "ca", mix, first=FIRST, second=SECOND)

    assert "ca-key.pem of second, ca-cert.pem of first" in told
    assert "PRIVATE KEY" not in told


def test_a_set_that_lacks_a_file_is_none(sink, tmp_path):
    def remove(directory):
        (directory / "..data/root-cert.pem").unlink()

    assert "no set that was pushed" in verdict(sink, tmp_path / "ca", remove, first=FIRST)


def test_a_set_that_does_not_verify_is_none_even_if_it_was_pushed(sink, tmp_path):
    bad = {**FIRST, "ca-key.pem": SECOND["ca-key.pem"]}

    assert "'bad' does not verify" in verdict(sink, tmp_path / "ca", lambda _: None, bad=bad)


def test_what_was_found_must_not_be_gone(sink, tmp_path):
    assert "'first' has gone" in verdict(sink, tmp_path / "ca", shutil.rmtree, first=FIRST)


def test_who_takes_it_away_on_purpose_says_so(sink, tmp_path):
    publish(sink, FIRST)
    with Oracle(tmp_path / "ca", may_vanish=True, first=FIRST) as oracle:
        oracle.until("first")
        shutil.rmtree(tmp_path / "ca")
        oracle.until(NOTHING)

    assert oracle.found == ["first", NOTHING]
