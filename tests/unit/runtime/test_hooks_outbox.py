"""What a hook has still to be told, and when: decisions without threads."""

from __future__ import annotations

import math

import pytest

from certagent.runtime.hooks.runner import FIRST_PAUSE, LONGEST_PAUSE, Outbox, backoff
from tests.support.events import EVENT, ROOTS, UNCONFIRMED


def ten_times(failures):
    return 10.0 * failures


@pytest.fixture
def outbox():
    return Outbox()


def failed(outbox, event, now, attempts=5):
    return outbox.failed(event, now, attempts, ten_times)


def test_an_empty_outbox_is_never_due(outbox):
    assert outbox.due == math.inf
    assert outbox.take(1e9) is None


def test_an_event_is_told_at_once(outbox):
    outbox.put(EVENT, 100.0)

    assert outbox.take(100.0) is EVENT
    assert outbox.take(1e9) is None


def test_a_staggered_event_is_told_after_its_delay():
    outbox = Outbox(delay=30.0)
    outbox.put(EVENT, 100.0)

    assert outbox.take(129.9) is None
    assert outbox.take(130.0) is EVENT


def test_a_newer_event_absorbs_one_that_waits_and_does_not_put_it_off():
    outbox = Outbox(delay=30.0)
    outbox.put(EVENT, 100.0)
    outbox.put(ROOTS, 120.0)

    assert outbox.take(130.0) == ROOTS.since(EVENT)
    assert not outbox.waiting


def test_a_publication_is_told_before_it_is_told_that_it_was_unconfirmed(outbox):
    outbox.put(EVENT, 100.0)
    outbox.put(UNCONFIRMED, 101.0)

    assert outbox.take(101.0) is EVENT
    outbox.done(102.0)
    assert outbox.take(102.0) is UNCONFIRMED


def test_that_an_older_set_was_unconfirmed_is_nobody_s_concern(outbox):
    outbox.put(UNCONFIRMED, 100.0)
    outbox.put(ROOTS, 101.0)

    assert outbox.take(101.0) is ROOTS
    assert not outbox.waiting


def test_what_failed_is_told_again_after_its_pause(outbox):
    outbox.put(EVENT, 100.0)
    event = outbox.take(100.0)

    assert failed(outbox, event, 105.0) is False
    assert outbox.take(114.9) is None
    assert outbox.take(115.0) is EVENT
    failed(outbox, event, 120.0)
    assert outbox.due == 140.0


def test_after_all_attempts_an_event_is_given_up(outbox):
    outbox.put(EVENT, 100.0)

    given_up = [failed(outbox, outbox.take(outbox.due), 100.0, attempts=3) for _ in range(3)]

    assert given_up == [False, False, True]
    assert not outbox.waiting


def test_what_waited_behind_an_event_that_is_given_up_is_told(outbox):
    outbox.put(EVENT, 100.0)
    outbox.put(UNCONFIRMED, 100.0)

    assert failed(outbox, outbox.take(100.0), 105.0, attempts=1)
    assert outbox.take(105.0) is UNCONFIRMED
    assert outbox.failures == 0


def test_an_unconfirmed_set_does_not_cut_a_pause_short(outbox):
    outbox.put(EVENT, 100.0)
    failed(outbox, outbox.take(100.0), 100.0)
    outbox.put(UNCONFIRMED, 101.0)

    assert outbox.due == 110.0
    assert outbox.failures == 1


def test_a_newer_publication_ends_a_pause_and_counts_its_own_attempts(outbox):
    outbox.put(EVENT, 100.0)
    failed(outbox, outbox.take(100.0), 100.0)
    outbox.put(ROOTS, 101.0)

    assert outbox.failures == 0
    assert outbox.take(101.0) == ROOTS.since(EVENT)


def test_a_publication_during_an_attempt_that_fails_absorbs_it(outbox):
    outbox.put(EVENT, 100.0)
    running = outbox.take(100.0)
    outbox.put(ROOTS, 101.0)

    assert failed(outbox, running, 102.0, attempts=1) is False
    assert outbox.failures == 0
    assert outbox.take(102.0) == ROOTS.since(EVENT)


def test_a_publication_during_an_attempt_that_succeeds_is_told_alone_and_after_its_delay():
    outbox = Outbox(delay=30.0)
    outbox.put(EVENT, 100.0)
    outbox.take(130.0)
    outbox.put(ROOTS, 131.0)

    outbox.done(132.0)

    assert outbox.take(160.9) is None
    assert outbox.take(161.0) is ROOTS


def test_a_publication_during_an_attempt_to_tell_of_an_unconfirmed_set_supersedes_it(outbox):
    outbox.put(UNCONFIRMED, 100.0)
    running = outbox.take(100.0)
    outbox.put(ROOTS, 101.0)
    failed(outbox, running, 102.0)

    assert list(outbox.waiting.values()) == [ROOTS]


def test_an_unconfirmed_set_during_an_attempt_that_fails_waits_behind_it(outbox):
    outbox.put(EVENT, 100.0)
    running = outbox.take(100.0)
    outbox.put(UNCONFIRMED, 101.0)
    failed(outbox, running, 102.0)

    assert outbox.due == 112.0
    assert outbox.take(112.0) is EVENT


def test_the_pauses_grow_threefold_up_to_their_bound():
    longest = [backoff(failures, 1.0) for failures in range(1, 8)]

    assert longest[:4] == [FIRST_PAUSE, 15.0, 45.0, 135.0]
    assert longest[4:] == [LONGEST_PAUSE] * 3
    assert backoff(10_000, 1.0) == LONGEST_PAUSE


def test_the_pauses_are_spread_over_their_upper_half():
    assert backoff(1, 0.0) == FIRST_PAUSE / 2
    assert backoff(1, 0.5) == FIRST_PAUSE * 0.75
