"""Certificates that are issued to each agent: what their keeper says of them, and what not."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from certagent.assignment import Assignment
from certagent.keeper import Keeper
from certagent.sources import Revision
from tests.support.material import NOW, make_root
from tests.support.stores import MemorySink, MemorySource, Silence

HOUR = timedelta(hours=1)


@pytest.fixture
def source():
    """One that issues certificates of two days, by an issuer that came an hour ago."""
    root = make_root(not_before=NOW - HOUR)
    raw = root.intermediate(not_before=NOW, not_after=NOW + 48 * HOUR).raw()
    source = MemorySource()
    source.versions = [
        Revision("1", NOW - HOUR, lambda: raw, renewable_until=root.certificate.not_valid_after_utc)
    ]
    return source


@pytest.fixture
def keeper(source):
    return Keeper(Assignment("istiod-ca", source, MemorySink()), Silence())


def test_that_one_expires_soon_is_told_when_its_renewal_is_late(keeper, caplog):
    for hours in (0, 20, 33):
        keeper.refresh(NOW + hours * HOUR)
        assert "expires in" not in caplog.text

    keeper.refresh(NOW + 34 * HOUR)

    assert "expires in 14 h" in caplog.text


def test_that_an_issuer_is_young_is_no_alarm_and_told_once(keeper, caplog):
    caplog.set_level(logging.INFO)
    for minutes in range(3):
        keeper.refresh(NOW + timedelta(minutes=minutes))

    (told,) = [each for each in caplog.records if "no issuer is older than" in each.message]
    assert told.levelno == logging.INFO
    assert "cannot be known" not in caplog.text
    assert not keeper.status.history_cut
