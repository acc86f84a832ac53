"""Which revision is published: the newest that is good and in force."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certagent.material.bundle import KeyCertBundle
from certagent.material.rotation import HistoricRevision, Phase, plan
from certagent.material.verification import verify
from tests.support.material import NOT_BEFORE, NOW, make_root

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def verified():
    raw = make_root().intermediate(not_after=NOW + HOUR).raw()
    return verify(KeyCertBundle.decode(raw), NOW)


def good(version: str, verified, in_force_from=NOT_BEFORE) -> HistoricRevision:
    return HistoricRevision(version, in_force_from, verified)


def refused(version: str) -> HistoricRevision:
    return HistoricRevision(version, NOT_BEFORE)


def withdrawn(version: str) -> HistoricRevision:
    return HistoricRevision(version, NOT_BEFORE, withdrawn="deleted")


def test_the_newest_good_revision_signs(verified):
    newest = good("2", verified)

    decision = plan([newest, good("1", verified)], NOW)

    assert decision.signer is newest
    assert decision.phase is Phase.SETTLED


def test_a_refused_revision_is_passed_over(verified):
    assert plan([refused("3"), refused("2"), good("1", verified)], NOW).signer.version == "1"


def test_a_revision_that_starts_later_is_passed_over_until_then(verified):
    history = [good("2", verified, NOW + HOUR / 2), good("1", verified)]

    assert plan(history, NOW).signer.version == "1"
    assert plan(history, NOW + HOUR / 2).signer.version == "2"


def test_a_withdrawn_newest_revision_does_not_bring_back_the_one_before(verified):
    decision = plan([withdrawn("2"), good("1", verified)], NOW)

    assert decision.signer is None
    assert decision.phase is Phase.HOLD
    assert decision.why == "version 2 was deleted"


def test_a_withdrawn_older_revision_is_passed_over(verified):
    assert plan([refused("3"), withdrawn("2"), good("1", verified)], NOW).signer.version == "1"


def test_an_expired_signer_is_not_replaced_by_an_older_one(verified):
    decision = plan([good("2", verified), good("1", verified)], NOW + HOUR)

    assert decision.signer is None
    assert "version 2 expired" in decision.why


@pytest.mark.parametrize("history", [[], ["refused"]])
def test_nothing_good_is_a_hold(history):
    decision = plan([refused("1") for _ in history], NOW)

    assert decision.phase is Phase.HOLD
