"""A version that its store lets expire: nobody signs with it then, and its root stays trusted."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certagent.assignment import Assignment
from certagent.errors import PublicationHeld
from certagent.keeper import Keeper
from certagent.sources import Revision
from tests.support.material import NOW, make_root
from tests.support.stores import MemorySink, MemorySource, Silence

HOUR = timedelta(hours=1)
CREATED = NOW - 100 * HOUR
ENDS = NOW + 10 * HOUR


@pytest.fixture(scope="module")
def ca():
    return make_root().intermediate()


@pytest.fixture
def source(ca):
    source = MemorySource()
    source.versions = [expiring(ca.raw(), "1", CREATED, ENDS)]
    return source


@pytest.fixture
def sink():
    return MemorySink()


@pytest.fixture
def keeper(source, sink):
    return Keeper(Assignment("istiod-ca", source, sink), Silence())


def expiring(raw, version, created_at, expires_at):
    return Revision(
        version, created_at, lambda: raw, expires_at=expires_at, is_first=version == "1"
    )


def test_it_is_published_until_then(keeper, sink, ca):
    keeper.refresh(NOW)

    assert sink.snapshot.files["ca-cert.pem"] == ca.pem


def test_then_it_stays_published_and_the_alarm_names_the_cause_and_the_cure(keeper, sink):
    keeper.refresh(NOW)

    with pytest.raises(
        PublicationHeld, match="version of memory:, 1, expired in its store"
    ) as held:
        keeper.refresh(ENDS)

    assert "az keyvault secret set-attributes --expires" in held.value.hint
    assert sink.writes == 1


def test_who_is_born_then_publishes_nothing(keeper, sink):
    with pytest.raises(PublicationHeld, match="expired in its store"):
        keeper.refresh(ENDS)

    assert sink.writes == 0


def test_a_later_date_makes_it_good_again(keeper, source, sink, ca):
    with pytest.raises(PublicationHeld):
        keeper.refresh(ENDS)
    source.versions = [expiring(ca.raw(), "1", CREATED, ENDS + 1000 * HOUR)]

    keeper.refresh(ENDS)

    assert sink.writes == 1


def test_its_root_is_kept_for_its_workloads_when_another_set_follows(keeper, source, sink, ca):
    keeper.refresh(NOW)
    other = make_root().intermediate()
    source.versions.insert(0, expiring(other.raw(), "2", ENDS + HOUR, None))

    keeper.refresh(ENDS + 2 * HOUR)

    assert sink.snapshot.files["ca-cert.pem"] == other.pem
    assert ca.root.pem in sink.snapshot.files["root-cert.pem"]
