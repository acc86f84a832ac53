"""One bundle of kind tls: the same pass as a CA's, without its stages and its words."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from certagent.assignment import Assignment, Reader
from certagent.errors import MaterialRefused, SecretNotFound, SourceUnavailable
from certagent.keeper import Keeper
from certagent.material.history import Policy
from certagent.material.serving import tls
from certagent.sinks import Publication
from tests.support.material import (
    CLIENT,
    NOW,
    a_set,
    files,
    make_leaf,
    make_root,
    tls_files,
)
from tests.support.stores import MemorySink, MemorySource, Silence

DAY = timedelta(days=1)
CREATED = NOW - 10 * DAY
ISSUER = make_root().intermediate("gateways", dns=())
CA_WORDS = ("istiod", "sign", "distribution", "root", "ca-cert")


def raw(**knobs):
    return make_leaf(ISSUER, **knobs).raw()


@pytest.fixture
def source():
    return MemorySource()


@pytest.fixture
def sink():
    return MemorySink()


@pytest.fixture
def assignment(source, sink):
    policy = Policy(immediate=True)
    return Assignment("ingress", source, sink, policy=policy, kind=tls())


@pytest.fixture
def keeper(assignment):
    return Keeper(assignment, Silence())


def served(sink):
    return sink.snapshot.files["tls.crt"]


def test_roots_that_are_gone_are_told(keeper, source, sink, caplog):
    source.push(make_leaf(ISSUER, roots=(make_root(),)).raw(), created_at=CREATED)
    keeper.refresh(NOW)
    source.push(raw(), created_at=NOW)

    keeper.refresh(NOW)

    assert "ca.crt" not in sink.snapshot.files
    assert "version 2 has no roots: ca.crt is not published any more" in caplog.messages


def test_the_newest_is_published_at_once(keeper, source, sink):
    first, second = raw(), raw()
    source.push(first, created_at=CREATED)
    keeper.refresh(NOW)
    source.push(second, created_at=NOW)

    keeper.refresh(NOW)

    assert sink.snapshot.files == tls_files(second)
    assert sink.snapshot.record["version"] == "2"
    assert sink.snapshot.record["usage"] == "server"
    assert keeper.status.phase == "settled"
    assert keeper.status.root_set == ""
    assert set(keeper.status.not_after) == {"certificate", "chain"}


def test_a_start_reads_no_further_than_the_newest_that_is_good(keeper, source):
    for age in (9, 8, 7):
        source.push(raw(), created_at=NOW - age * DAY)

    keeper.refresh(NOW)

    assert source.reads == 1
    assert not keeper.status.history_cut


def test_a_start_during_a_bad_push_takes_the_newest_that_is_good(keeper, source, sink):
    good = raw()
    source.push(good, created_at=CREATED)
    source.push(raw(dns=()), created_at=NOW)

    keeper.refresh(NOW)

    assert sink.snapshot.files == tls_files(good)
    assert keeper.status.refused == {"san-missing": 1}


def test_one_that_is_not_valid_yet_is_published_in_its_time(keeper, source, sink):
    now, later = raw(), raw(not_before=NOW + DAY)
    source.push(now, created_at=CREATED)
    source.push(later, created_at=CREATED)
    keeper.refresh(NOW)
    assert sink.snapshot.files == tls_files(now)
    assert keeper.changes_at == NOW + DAY
    source.fault = SourceUnavailable("down")

    with pytest.raises(SourceUnavailable):
        keeper.refresh(NOW + DAY)

    assert sink.snapshot.files == tls_files(later)


def test_one_that_was_withdrawn_stays_published_and_is_an_alarm(keeper, source, sink, caplog):
    source.push(raw(), created_at=CREATED)
    newest = raw()
    source.push(newest, created_at=CREATED)
    keeper.refresh(NOW)
    source.withdraw()
    caplog.set_level(logging.INFO)

    with pytest.raises(SecretNotFound, match="was deleted"):
        keeper.refresh(NOW)

    assert sink.snapshot.files == tls_files(newest)
    assert keeper.status.phase == "hold"
    hints = [record.fields.get("hint", "") for record in caplog.records if record.fields]
    assert "What is published stays, until a new set is stored." in hints


def test_an_older_one_that_was_withdrawn_changes_nothing(keeper, source, sink):
    source.push(raw(), created_at=CREATED)
    source.withdraw()
    newest = raw()
    source.push(newest, created_at=NOW)

    keeper.refresh(NOW)

    assert sink.snapshot.files == tls_files(newest)


def test_one_that_expires_stays_published_and_says_so(keeper, source, sink):
    newest = raw(not_after=NOW + DAY)
    source.push(raw(), created_at=CREATED)
    source.push(newest, created_at=CREATED)
    keeper.refresh(NOW)

    with pytest.raises(MaterialRefused, match="expired"):
        keeper.refresh(NOW + 2 * DAY)

    assert sink.snapshot.files == tls_files(newest)


def test_one_that_is_not_valid_yet_is_waited_for_where_there_is_no_other(keeper, source):
    source.push(raw(not_before=NOW + DAY), created_at=CREATED)

    with pytest.raises(MaterialRefused, match="not valid before"):
        keeper.refresh(NOW)

    assert keeper.changes_at == NOW + DAY


def test_new_roots_replace_the_old_without_stages(keeper, source, sink):
    a, b = make_root(subject="CN=A"), make_root(subject="CN=B")
    source.push(raw(roots=(a,)), created_at=CREATED)
    keeper.refresh(NOW)
    assert sink.snapshot.files["ca.crt"] == a.pem
    source.push(raw(roots=(b,)), created_at=NOW)

    keeper.refresh(NOW)

    assert sink.snapshot.files["ca.crt"] == b.pem
    assert keeper.status.root_set


def test_pins_hold_for_its_roots_too(source, sink):
    stranger = make_root()
    pinned = Assignment(
        "ingress", source, sink, Policy(immediate=True), pins=frozenset({"0" * 64}), kind=tls()
    )
    source.push(raw(roots=(stranger,)), created_at=CREATED)

    with pytest.raises(MaterialRefused, match="not among those"):
        Keeper(pinned, Silence()).refresh(NOW)


def test_what_an_earlier_run_published_is_adopted_by_its_own_rules(assignment, source, sink):
    source.push(raw(), created_at=CREATED)
    Keeper(assignment, Silence()).refresh(NOW)
    later = Keeper(assignment, Silence())

    later.adopt(NOW)

    assert later.status.ready


def test_a_start_that_cannot_reach_its_store_takes_the_fallback(source, sink):
    spare = MemorySource("file:/spare")
    spare.push(raw())
    policy = Policy(immediate=True)
    keeper = Keeper(
        Assignment("ingress", source, sink, policy=policy, fallback=spare, kind=tls()), Silence()
    )

    assert keeper.fall_back(NOW)

    assert set(sink.snapshot.files) == {"tls.key", "tls.crt"}
    assert sink.snapshot.record["usage"] == "server"


def test_a_set_of_another_kind_is_not_adopted_but_replaced(assignment, source, sink):
    sink.snapshot = _snapshot_of_a_ca(sink)
    source.push(raw(), created_at=CREATED)
    keeper = Keeper(assignment, Silence())

    keeper.adopt(NOW)
    assert not keeper.status.ready
    keeper.refresh(NOW)

    assert set(sink.snapshot.files) == {"tls.key", "tls.crt"}


def test_a_ca_replaces_a_set_of_kind_tls(assignment, source, sink):
    source.push(raw(), created_at=CREATED)
    Keeper(assignment, Silence()).refresh(NOW)
    mesh = MemorySource()
    mesh.push(a_set(), created_at=CREATED)
    reader = Reader(may_run=True, takes_roots=False)

    Keeper(Assignment("mesh", mesh, sink, reader=reader), Silence()).refresh(NOW)

    assert "root-cert.pem" in sink.snapshot.files


def _snapshot_of_a_ca(sink):
    return sink.publish(Publication(files(a_set()), frozenset(), {"version": "7"}))


@pytest.mark.parametrize("happening", ["refused", "withdrawn", "expired", "late"])
def test_nothing_that_is_logged_speaks_of_a_ca(keeper, source, sink, caplog, happening):
    caplog.set_level(logging.DEBUG)
    source.push(raw(not_after=NOW + DAY), created_at=CREATED)
    keeper.refresh(NOW)
    now = NOW
    if happening == "refused":
        source.push(raw(eku=(CLIENT,)), created_at=NOW)
    elif happening == "withdrawn":
        source.withdraw()
    elif happening == "late":
        source.push(raw(), created_at=NOW - 9 * DAY)
    else:
        now += 2 * DAY
    told = ""
    try:
        keeper.refresh(now)
    except (MaterialRefused, SecretNotFound) as error:
        told = str(error)

    assert happening == "late" or len(caplog.records) > 1 or told
    for record in caplog.records:
        told += f" {record.getMessage()} {record.fields.get('hint', '')}"
    assert not [word for word in CA_WORDS if word in told], told
