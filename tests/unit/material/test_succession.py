"""Which revision of a certificate of kind tls is published when."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from certagent.material.history import HistoricRevision, Policy
from certagent.material.rotation import Phase
from certagent.material.succession import plan
from tests.support.material import NOW

DAY = timedelta(days=1)
ROOTS = frozenset({"A"})


def good(version, *, stored=-10 * DAY, begins=None, ends=30 * DAY):
    begins = stored if begins is None else begins
    return HistoricRevision(
        str(version), NOW + stored, NOW + begins, NOW + ends, ROOTS, frozenset()
    )


def gone(version, stored=-5 * DAY):
    return HistoricRevision.tombstone(str(version), NOW + stored, "deleted")


def decided(*history):
    return plan(history, NOW, Policy())


def served(*history):
    signer = decided(*history).signer
    return signer.version if signer else None


def test_the_newest_is_served_at_once_with_its_own_roots():
    decision = decided(good(1), good(2, stored=timedelta(0)))

    assert decision.signer.version == "2"
    assert decision.roots == ROOTS
    assert decision.phase is Phase.SETTLED
    assert decision.changes_at == NOW + 30 * DAY


def test_one_that_is_not_valid_yet_waits_while_the_one_before_it_serves():
    decision = decided(good(1), good(2, begins=2 * DAY))

    assert decision.signer.version == "1"
    assert decision.changes_at == NOW + 2 * DAY
    assert "version 2 is not valid before" in decision.why


def test_the_next_of_several_that_wait_is_the_one_that_is_looked_for():
    assert decided(good(1), good(2, begins=DAY), good(3, begins=2 * DAY)).changes_at == NOW + DAY


def test_a_newer_one_that_is_valid_sooner_comes_first():
    assert decided(good(1), good(2, begins=2 * DAY), good(3, begins=DAY)).changes_at == NOW + DAY


def test_one_that_was_withdrawn_holds_and_the_one_before_it_does_not_come_back():
    decision = decided(good(1), gone(2))

    assert decision.signer is None
    assert decision.phase is Phase.HOLD
    assert decision.why == "version 2 was deleted"
    assert decision.changes_at is None


def test_one_that_has_expired_holds_and_the_one_before_it_does_not_come_back():
    decision = decided(good(1), good(2, ends=-DAY))

    assert decision.signer is None
    assert "version 2 expired at" in decision.why


def test_one_that_was_withdrawn_before_a_newer_one_was_stored_is_past():
    assert served(gone(1), good(2)) == "2"


def test_a_hold_ends_when_a_newer_one_becomes_valid():
    decision = decided(good(1), gone(2), good(3, begins=DAY))

    assert decision.signer is None
    assert decision.changes_at == NOW + DAY
    assert plan((gone(2), good(3, begins=DAY)), NOW + DAY, Policy()).signer.version == "3"


def test_where_nothing_is_valid_yet_the_first_is_waited_for():
    decision = decided(good(1, begins=DAY))

    assert decision.signer is None
    assert decision.changes_at == NOW + DAY


def test_where_nothing_is_good_there_is_nothing_to_wait_for():
    assert decided().changes_at is None
    assert decided().phase is Phase.HOLD


_revisions = st.one_of(
    st.builds(
        lambda stored, begins, lives: good(
            0, stored=stored * DAY, begins=begins * DAY, ends=(begins + lives) * DAY
        ),
        st.integers(-9, 0),
        st.integers(-9, 9),
        st.integers(0, 9),
    ),
    st.builds(lambda stored: gone(0, stored * DAY), st.integers(-9, 0)),
)


@given(st.lists(_revisions, max_size=5), st.integers(0, 20 * 24))
@settings(max_examples=200)
def test_the_answer_stays_until_it_is_said_to_change(history, hours):
    decision = plan(history, NOW, Policy())
    later = NOW + timedelta(hours=hours)
    if decision.changes_at is None or later < decision.changes_at:
        assert plan(history, later, Policy()).signer is decision.signer


@given(st.lists(_revisions, max_size=5))
@settings(max_examples=200)
def test_what_is_served_is_valid(history):
    signer = decided(*history).signer
    if signer:
        assert signer.not_before <= NOW <= signer.not_after
        assert not signer.withdrawn
