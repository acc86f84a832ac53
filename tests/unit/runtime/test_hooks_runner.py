"""Hooks beside the loop: who waits for whom, what is told again, and how it all ends."""

from __future__ import annotations

import json
import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from certagent.runtime.hooks import Exec, Hook
from certagent.runtime.hooks import runner as runner_module
from certagent.runtime.hooks.runner import HookRunner
from tests.support.events import EVENT, ROOTS, UNCONFIRMED
from tests.support.process import until

LONG = 20.0  # seconds after which a test has failed


@contextmanager
def running(*hooks, pause=lambda _: 0.01, within=LONG):
    runner = HookRunner(hooks, pause)
    try:
        yield runner
    finally:
        runner.close(within)


def shell(name, script, **how):
    timeout = how.pop("timeout", LONG)
    return Hook("istiod-ca", name, Exec(("sh", "-c", script), timeout), **how)


def appending(path, **how):
    return shell("append", f"cat >> {path}", **how)


def told(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def status(runner, name):
    return next(each for each in runner.status if each.name == name)


def messages(caplog, level):
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def told_with(caplog, text):
    """The fields of the first record with this text in it."""
    return next(record.fields for record in caplog.records if text in record.getMessage())


@pytest.fixture
def caplog(caplog):
    caplog.set_level(logging.INFO, "certagent.hooks")
    return caplog


def test_an_event_is_told_to_those_who_want_it(tmp_path):
    everything, roots = tmp_path / "everything", tmp_path / "roots"
    with running(appending(everything), shell("roots", f"cat >> {roots}", on="roots")) as runner:
        runner.submit(EVENT)
        until(lambda: status(runner, "append").runs == {"ok": 1}, LONG)
        runner.submit(ROOTS)
        until(lambda: status(runner, "roots").runs == {"ok": 1}, LONG)
        until(lambda: status(runner, "append").runs == {"ok": 2}, LONG)

    assert [event["version"] for event in told(everything)] == ["5", "6"]
    assert [event["version"] for event in told(roots)] == ["6"]


def test_a_success_is_one_line_that_names_hook_event_and_version(caplog):
    with running(shell("reload", "true")) as runner:
        runner.submit(EVENT)
        until(lambda: messages(caplog, logging.INFO), LONG)

    about = told_with(caplog, "hook done")
    assert about["bundle"] == "istiod-ca"
    assert about["hook"] == "reload"
    assert about["event"] == "published"
    assert about["version"] == "5"


def test_a_hook_that_hangs_delays_neither_the_caller_nor_another_hook(tmp_path):
    with running(shell("hangs", "sleep 60"), appending(tmp_path / "told")) as runner:
        begin = time.monotonic()
        runner.submit(EVENT)
        assert time.monotonic() - begin < 10

        until(lambda: status(runner, "append").runs == {"ok": 1}, LONG)
        assert status(runner, "hangs").waiting


def test_what_fails_is_told_again_until_it_is_done(tmp_path, caplog):
    script = f"echo attempt >> {tmp_path}/log; test $(wc -l < {tmp_path}/log) = 3"
    with running(shell("flaky", script)) as runner:
        runner.submit(EVENT)
        until(lambda: status(runner, "flaky").runs == {"failed": 2, "ok": 1}, LONG)

        assert not status(runner, "flaky").waiting
        assert status(runner, "flaky").given_up == 0
        assert status(runner, "flaky").last_failure is not None
    assert messages(caplog, logging.WARNING) == ["hook failed: sh ended with 1"] * 2
    assert told_with(caplog, "hook failed")["retry_in"] == "0.0s"


def test_after_its_attempts_an_event_is_given_up_and_the_next_one_is_told(tmp_path, caplog):
    with running(shell("fails", f"test -e {tmp_path}/mended", attempts=2)) as runner:
        runner.submit(EVENT)
        until(lambda: status(runner, "fails").given_up == 1, LONG)
        assert status(runner, "fails").runs == {"failed": 2}
        assert not status(runner, "fails").waiting

        (tmp_path / "mended").touch()
        runner.submit(ROOTS)
        until(lambda: status(runner, "fails").runs == {"failed": 2, "ok": 1}, LONG)

    assert messages(caplog, logging.ERROR) == ["hook given up: sh ended with 1"]


def test_a_hook_that_is_killed_counts_as_a_timeout():
    with running(shell("hangs", "sleep 60", attempts=1, timeout=0.1)) as runner:
        runner.submit(EVENT)
        until(lambda: status(runner, "hangs").runs == {"timeout": 1}, LONG)


def test_what_a_failing_command_said_is_logged_line_by_line(caplog):
    with running(shell("fails", "echo one; echo two; exit 1", attempts=1)) as runner:
        runner.submit(EVENT)
        until(lambda: messages(caplog, logging.ERROR), LONG)

    assert messages(caplog, logging.WARNING) == ["hook said: one", "hook said: two"]


def test_what_a_command_that_succeeds_said_is_not(caplog):
    with running(shell("chatty", "echo one")) as runner:
        runner.submit(EVENT)
        until(lambda: status(runner, "chatty").runs, LONG)

    assert "hook said" not in caplog.text


def test_events_that_come_while_a_hook_runs_are_told_as_one(tmp_path):
    gate, log = tmp_path / "gate", tmp_path / "told"
    script = f"cat >> {log}; while ! test -e {gate}; do sleep 0.02; done"
    with running(shell("slow", script)) as runner:
        runner.submit(EVENT)
        until(lambda: told(log), LONG)
        runner.submit(replace(ROOTS, version="6"))
        runner.submit(replace(EVENT, version="7", changed=("certificate",)))
        gate.touch()
        until(lambda: status(runner, "slow").runs == {"ok": 2}, LONG)

    assert [event["version"] for event in told(log)] == ["5", "7"]
    assert told(log)[1]["changed"] == ["roots", "certificate"]


def test_an_unconfirmed_set_is_told_after_its_publication(tmp_path):
    log = tmp_path / "told"
    with running(appending(log, events=("published", "unconfirmed"))) as runner:
        runner.submit(EVENT)
        runner.submit(UNCONFIRMED)
        until(lambda: status(runner, "append").runs == {"ok": 2}, LONG)

    assert [event["event"] for event in told(log)] == ["published", "unconfirmed"]


def test_a_staggered_hook_waits_for_its_turn(tmp_path):
    begin = time.monotonic()
    with running(appending(tmp_path / "told", delay=0.3)) as runner:
        runner.submit(EVENT)
        until(lambda: status(runner, "append").runs, LONG)

    assert time.monotonic() - begin >= 0.3


def test_a_bug_is_reported_and_does_not_end_the_hook(monkeypatch, caplog):
    perform = runner_module.perform

    def broken(*_):
        monkeypatch.setattr(runner_module, "perform", perform)
        raise ZeroDivisionError

    monkeypatch.setattr(runner_module, "perform", broken)
    with running(shell("works", "true")) as runner:
        runner.submit(EVENT)
        until(lambda: status(runner, "works").runs == {"failed": 1, "ok": 1}, LONG)

    assert "a hook met a bug in certagent" in messages(caplog, logging.ERROR)


# The end


def test_the_end_kills_what_runs_and_says_what_was_not_told(tmp_path, caplog):
    with running(shell("hangs", f"echo $$ > {tmp_path}/pid; exec sleep 60")) as runner:
        runner.submit(EVENT)
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), LONG)
        begin = time.monotonic()
        runner.close()

        assert time.monotonic() - begin < 10
        assert status(runner, "hangs").runs == {"cancelled": 1}
        assert status(runner, "hangs").waiting
        assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()
    assert "the agent ends before a hook was told" in messages(caplog, logging.WARNING)


def test_the_end_does_not_wait_for_a_pause_or_a_delay(caplog):
    with running(
        shell("fails", "exit 1"), shell("staggered", "true", delay=60.0), pause=lambda _: 60.0
    ) as runner:
        runner.submit(EVENT)
        until(lambda: status(runner, "fails").runs == {"failed": 1}, LONG)
        begin = time.monotonic()
        runner.close()

        assert time.monotonic() - begin < 10
        ended = messages(caplog, logging.WARNING).count("the agent ends before a hook was told")
        assert ended == 2


def test_the_end_is_quiet_where_nothing_waits(caplog):
    with running(shell("works", "true"), shell("never asked", "true", on="roots")) as runner:
        runner.submit(EVENT)
        until(lambda: status(runner, "works").runs == {"ok": 1}, LONG)

    assert not messages(caplog, logging.WARNING)


def test_the_end_has_its_own_bound(monkeypatch):
    begun, over = threading.Event(), threading.Event()

    def stuck(*_):
        begun.set()
        over.wait(LONG)

    monkeypatch.setattr(runner_module, "perform", stuck)
    runner = HookRunner([shell("stuck", "true")], lambda _: 0.0)
    runner.submit(EVENT)
    assert begun.wait(LONG)
    begin = time.monotonic()
    runner.close(0.1)

    assert 0.1 <= time.monotonic() - begin < 10
    over.set()
    until(lambda: status(runner, "stuck").runs == {"ok": 1}, LONG)


def test_after_the_end_nobody_is_told(tmp_path):
    runner = HookRunner([appending(tmp_path / "told")], lambda _: 0.0)
    runner.close()
    runner.submit(EVENT)

    assert not status(runner, "append").waiting
    assert not told(tmp_path / "told")


def test_a_pod_that_is_out_of_processes_tries_again_at_the_next_event(monkeypatch, caplog):
    def refused(_):
        raise RuntimeError("can't start new thread")

    with running(shell("works", "true")) as runner:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refused)
            runner.submit(EVENT)
        assert "a hook cannot be told: can't start new thread" in caplog.text

        runner.submit(ROOTS)
        until(lambda: status(runner, "works").runs == {"ok": 1}, LONG)


def test_an_agent_whose_hooks_were_never_asked_has_no_thread_for_them():
    before = threading.active_count()
    with running(shell("works", "true")):
        assert threading.active_count() == before
