"""Signals as values: what wakes a wait, what waits for its time, what a whole process does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from certagent.runtime.signals import Signals, Wake
from tests.support.namespaces import first_inside, pid_1

LONG = 30.0  # seconds: a wait that ends by a signal, or fails the test


@pytest.fixture
def signals():
    with Signals() as entered:
        yield entered


def send(number):
    """Send to the waiting thread: another test's server thread, whose mask is open, would die."""
    signal.pthread_kill(threading.main_thread().ident, number)


def test_a_wait_without_a_signal_takes_its_time(signals):
    begin = time.monotonic()

    assert signals.wait(0.05) is Wake.TIMEOUT
    assert 0.05 <= time.monotonic() - begin < 5


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_wait_for_no_time_returns_at_once(signals, seconds):
    assert signals.wait(seconds) is Wake.TIMEOUT


@pytest.mark.parametrize("seconds", [1e12, float("inf")])
def test_a_wait_may_be_longer_than_the_kernel_can_count(signals, seconds):
    send(signal.SIGHUP)

    assert signals.wait(seconds) is Wake.RELOAD


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGTERM, Wake.STOP),
        (signal.SIGINT, Wake.STOP),
        (signal.SIGHUP, Wake.RELOAD),
        (signal.SIGUSR1, Wake.CHANGED),
    ],
)
def test_a_signal_stays_pending_until_it_is_taken(signals, number, reason):
    send(number)

    assert number in signal.sigpending()
    assert signals.wait(LONG) is reason
    assert number not in signal.sigpending()


def test_several_signals_are_one_reason_and_a_stop_wins(signals):
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        send(number)

    assert signals.wait(LONG) is Wake.STOP
    assert signals.wait(0) is Wake.TIMEOUT


def test_a_reload_hides_a_change(signals):
    send(signal.SIGUSR1)
    send(signal.SIGHUP)

    assert signals.wait(LONG) is Wake.RELOAD
    assert signals.wait(0) is Wake.TIMEOUT


def test_a_pending_stop_can_be_seen_without_taking_it(signals):
    send(signal.SIGHUP)
    assert not signals.stop_pending()

    send(signal.SIGTERM)
    assert signals.stop_pending()
    assert signals.wait(LONG) is Wake.STOP


def test_a_thread_wakes_a_wait(signals):
    thread = threading.Timer(0.05, signals.wake)
    thread.start()

    assert signals.wait(LONG) is Wake.CHANGED
    thread.join()


def test_a_wake_before_the_wait_is_not_lost(signals):
    thread = threading.Thread(target=signals.wake)
    thread.start()
    thread.join()

    assert signals.wait(LONG) is Wake.CHANGED


def test_a_wake_never_reaches_a_thread_that_does_not_block_it():
    # Such a thread started before the signals were blocked: SIGUSR1 there would end the process.
    over = threading.Event()
    stranger = threading.Thread(target=over.wait)
    stranger.start()

    with Signals() as signals:
        for _ in range(100):
            signals.wake()
            assert signals.wait(LONG) is Wake.CHANGED

    over.set()
    stranger.join()


def test_a_wake_after_the_end_does_nothing():
    with Signals() as signals:
        pass

    signals.wake()

    assert signal.SIGUSR1 not in signal.sigpending()


def test_the_mask_is_restored_and_what_is_pending_is_dropped():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    with Signals():
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            send(number)

    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert not signal.sigpending()


def test_another_signal_s_handler_does_not_cut_a_wait_short(signals):
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda *_: heard.append(time.monotonic()))
    thread = threading.Timer(0.05, send, [signal.SIGUSR2])
    begin = time.monotonic()
    try:
        thread.start()

        assert signals.wait(0.2) is Wake.TIMEOUT
        assert time.monotonic() - begin >= 0.2
        assert len(heard) == 1
    finally:
        thread.join()
        signal.signal(signal.SIGUSR2, before)


def test_a_wait_that_is_cut_short_as_its_time_ends_is_a_timeout(signals):
    # CPython then answers with a siginfo that nobody filled in; a handler makes that frequent.
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    until = time.monotonic() + 0.5
    try:
        while time.monotonic() < until:
            assert signals.wait(0.0005) is Wake.TIMEOUT
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


AGENT = textwrap.dedent(
    """
    import sys, time
    from certagent.runtime.signals import Signals, Wake

    with Signals() as signals:
        print("ready", flush=True)
        if "critical" in sys.argv:
            sys.stdin.readline()
            print("published", flush=True)
        while (wake := signals.wait(60)) is not Wake.STOP:
            print(wake.name, flush=True)
    print("stopped", flush=True)
    """
)


def start(*arguments, before=()):
    process = subprocess.Popen(
        [*before, sys.executable, "-c", AGENT, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_process_stops_within_a_second_with_exit_code_0(number):
    with start() as process:
        begin = time.monotonic()
        process.send_signal(number)

        assert process.wait(timeout=LONG) == 0
        assert time.monotonic() - begin < 1
        assert process.stdout.read() == "stopped\n"


def test_a_process_reloads_and_goes_on():
    with start() as process:
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "RELOAD\n"

        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=LONG) == 0


def test_a_stop_in_a_critical_section_waits_for_its_end():
    with start("critical") as process:
        process.send_signal(signal.SIGTERM)
        process.stdin.write("\n")
        process.stdin.flush()

        assert process.wait(timeout=LONG) == 0
        assert process.stdout.read() == "published\nstopped\n"


def test_pid_1_stops_too():
    with start(before=pid_1()) as process:
        os.kill(first_inside(process.pid), signal.SIGTERM)

        assert process.wait(timeout=LONG) == 0
        assert process.stdout.read() == "stopped\n"
