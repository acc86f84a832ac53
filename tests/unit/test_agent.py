"""The loop: schedules, failures, deadlines, and the end."""

from __future__ import annotations

import logging
import random

import pytest
from msgspec.structs import replace

from certagent.agent import Agent, Tempo
from certagent.assignment import Assignment
from certagent.errors import ConfigurationError, OutputError, SourceUnavailable
from certagent.runtime.schedule import Schedule
from certagent.runtime.signals import Interrupted, Wake
from tests.support.material import make_root
from tests.support.stores import MemoryConnection, MemorySink, MemorySource


@pytest.fixture(scope="module")
def raw():
    return make_root().intermediate().raw()


class Clockwork:
    """Waits that take no time: each returns the next wake, and does what a test puts in between."""

    def __init__(self, *wakes: Wake, between=lambda: None):
        self.wakes = list(wakes)
        self.between = between
        self.pauses: list[float] = []
        self.stopping = False

    def wait(self, seconds: float) -> Wake:
        self.pauses.append(seconds)
        self.between()
        return self.wakes.pop(0) if self.wakes else Wake.STOP

    def stop_pending(self) -> bool:
        return self.stopping


def agent(*assignments, clockwork, interval=30.0, connections=None, seed=1):
    tempo = Tempo(Schedule(interval, random.Random(seed).random))
    return Agent(assignments, connections or {}, tempo, clockwork)


@pytest.fixture
def good(raw):
    source = MemorySource("memory:good")
    source.push(raw)
    return Assignment("good", source, MemorySink())


@pytest.fixture
def down():
    return Assignment(
        "down", MemorySource("memory:down", fault=SourceUnavailable("down")), MemorySink()
    )


class Counted(MemorySource):
    """A source that is down, and counts how often that was noticed."""

    asked = 0

    def revisions(self):
        self.asked += 1
        raise SourceUnavailable("slow")


class TestInit:
    def test_it_returns_when_all_is_published(self, good):
        clockwork = Clockwork()

        agent(good, clockwork=clockwork).init(10)

        assert good.sink.writes == 1
        assert not clockwork.pauses

    def test_it_raises_the_last_error_at_its_deadline(self, down):
        with pytest.raises(SourceUnavailable):
            agent(down, clockwork=Clockwork()).init(0)

    def test_it_tries_again_until_then(self, good):
        good.source.fault = SourceUnavailable("down")

        def heal():
            good.source.fault = None

        waiting = Clockwork(*[Wake.TIMEOUT] * 10_000, between=heal)

        agent(good, clockwork=waiting, interval=0.01).init(60)

        assert good.sink.writes == 1

    def test_what_waiting_cannot_mend_ends_it_at_once(self, good):
        good.source.fault = ConfigurationError("wrong")

        with pytest.raises(ConfigurationError):
            agent(good, clockwork=Clockwork()).init(60)

    def test_one_bundle_that_fails_does_not_hide_another(self, good, down):
        with pytest.raises(SourceUnavailable):
            agent(down, good, clockwork=Clockwork()).init(0)

        assert good.sink.writes == 1

    def test_an_optional_bundle_is_tried_and_not_waited_for(self, good):
        source = MemorySource(fault=SourceUnavailable("down"))
        optional = Assignment("optional", source, MemorySink(), required=False)

        agent(optional, good, clockwork=Clockwork()).init(60)

        assert good.sink.writes == 1

    def test_a_stop_is_no_success(self, down):
        with pytest.raises(Interrupted):
            agent(down, clockwork=Clockwork(Wake.STOP)).init(60)

    def test_a_stop_before_the_first_pass_is_no_success_either(self, good):
        clockwork = Clockwork(Wake.STOP)
        clockwork.stopping = True

        with pytest.raises(Interrupted):
            agent(good, clockwork=clockwork).init(60)


class TestRun:
    def test_it_publishes_at_once_and_polls_next_at_some_time_of_an_interval(self, good):
        pauses = []
        for seed in range(20):
            clockwork = Clockwork()
            started = replace(good, sink=MemorySink())
            agent(started, clockwork=clockwork, seed=seed).run()
            assert started.sink.writes == 1
            pauses += clockwork.pauses

        assert 1 <= min(pauses) < 10
        assert 20 < max(pauses) <= 30

    def test_from_then_on_it_waits_an_interval(self, good):
        clockwork = Clockwork(Wake.RELOAD, Wake.RELOAD)

        agent(good, clockwork=clockwork).run()

        _, *pauses = clockwork.pauses
        assert len(pauses) == 2
        assert all(27 <= pause <= 33 for pause in pauses)

    def test_a_reload_polls_at_once(self, good):
        agent(good, clockwork=Clockwork(Wake.RELOAD)).run()

        assert good.source.reads == 2

    def test_a_change_polls_what_is_watched_and_nothing_else(self, good, raw):
        source = MemorySource("file:watched")
        source.push(raw)
        watched = Assignment("watched", source, MemorySink(), watched=True)
        waits = []

        def change():
            waits.append(source.reads)

        clockwork = Clockwork(*[Wake.CHANGED] * 3, between=change)
        agent(good, watched, clockwork=clockwork).run()

        assert good.source.reads == 1
        assert waits[-1] == 1, "a directory that changes without end is read once a second"
        assert clockwork.pauses[-1] <= 1

    def test_a_wait_that_ends_early_polls_nothing(self, good):
        agent(good, clockwork=Clockwork(Wake.TIMEOUT)).run()

        assert good.source.reads == 1

    def test_a_failure_never_ends_it(self, down):
        clockwork = Clockwork(*[Wake.RELOAD] * 50)

        running = agent(down, clockwork=clockwork)
        running.run()

        assert len(clockwork.pauses) == 51
        assert max(clockwork.pauses) <= 30
        assert not running.status.ready

    def test_retry_after_is_a_lower_bound(self, down):
        down.source.fault = SourceUnavailable("slow down", retry_after=120)
        clockwork = Clockwork()

        agent(down, clockwork=clockwork).run()

        assert clockwork.pauses[0] > 119

    def test_an_unchanged_fault_is_logged_once_and_its_end_too(self, good, caplog):
        good.source.fault = SourceUnavailable("down")
        waits = 0

        def heal():
            nonlocal waits
            waits += 1
            if waits == 5:
                good.source.fault = None

        with caplog.at_level(logging.INFO):
            agent(good, clockwork=Clockwork(*[Wake.RELOAD] * 8, between=heal)).run()

        messages = [record.getMessage() for record in caplog.records]
        assert messages.count("down") == 1
        assert messages.count("recovered") == 1

    def test_one_bundle_that_fails_does_not_delay_another(self, good, down):
        clockwork = Clockwork()

        running = agent(down, good, clockwork=clockwork)
        running.run()

        assert good.sink.writes == 1
        assert not running.status.ready
        assert clockwork.pauses[0] <= 2, "the one that failed is tried again soon"

    def test_a_store_that_lets_one_wait_is_asked_once_a_turn(self, good, monkeypatch):
        monkeypatch.setattr("certagent.agent._LONGEST_WAIT", 0.0)
        slow = [
            replace(good, name=str(number), source=Counted(), sink=MemorySink(), store="vault")
            for number in range(3)
        ]
        asked = []

        def between():
            asked.append([each.source.asked for each in slow])

        clockwork = Clockwork(*[Wake.TIMEOUT] * 3, between=between)

        agent(*slow, good, clockwork=clockwork).run()

        assert asked[:3] == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
        assert good.sink.writes == 1
        assert clockwork.pauses[:2] == [0, 0], "the others are still due"
        assert 0 < clockwork.pauses[2] <= 2

    def test_what_works_comes_before_what_does_not(self, good, down, monkeypatch):
        order = []
        clockwork = Clockwork(Wake.RELOAD)
        running = agent(down, good, clockwork=clockwork)
        monkeypatch.setattr(
            "certagent.agent.Agent._pass",
            lambda self, task, made=Agent._pass: (
                order.append(task.keeper.assignment.name),
                made(self, task),
            ),
        )

        running.run()

        assert order == ["down", "good", "good", "down"]

    def test_a_restart_with_a_good_set_spreads_its_first_poll(self, good):
        agent(good, clockwork=Clockwork()).run()
        good.source.reads = 0
        clockwork = Clockwork()

        restarted = agent(good, clockwork=clockwork)
        restarted.run()

        assert restarted.status.ready
        assert good.source.reads == 0
        assert 0 <= clockwork.pauses[0] <= 3

    def test_a_stop_ends_a_turn_over_many_bundles(self, good):
        clockwork = Clockwork()
        clockwork.stopping = True

        agent(good, clockwork=clockwork).run()

        assert good.source.reads == 0


class TestStatus:
    def test_it_counts_the_requests_of_every_store(self, good):
        connection = MemoryConnection()
        connection.requests["ok"] = 3
        connection.logins["ok"] = 1

        running = agent(good, clockwork=Clockwork(), connections={"vault": connection})
        running.run()

        assert running.status.requests == {("vault", "ok"): 3}
        assert running.status.logins == {("vault", "ok"): 1}

    def test_closing_gives_back_directories_and_logins(self, good):
        connection = MemoryConnection()
        running = agent(good, clockwork=Clockwork(), connections={"vault": connection})

        running.close()

        assert connection.closed == 1
        assert good.sink.closed == 1

    def test_an_optional_bundle_does_not_keep_the_agent_from_being_ready(self, good):
        source = MemorySource(fault=OutputError("full"))
        optional = Assignment("optional", source, MemorySink(), required=False)

        running = agent(optional, good, clockwork=Clockwork())
        running.run()

        assert running.status.ready
