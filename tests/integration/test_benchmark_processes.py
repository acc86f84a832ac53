"""What a benchmark measures of a process, and that none is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest

from tests.benchmarks import process
from tests.benchmarks.fleet import Gate
from tests.benchmarks.front import Front
from tests.benchmarks.process import Failed, Job, publish
from tests.support.process import until
from tests.support.scripted import ScriptedServer, answer

WRITE = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('x'); {then}"

FAIL_AFTER = """
import os, sys, time
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
sys.exit('failed on purpose')
"""


@pytest.fixture
def job(tmp_path):
    """A Python program that is to write one file into a volume."""
    volume = tmp_path / "volume"
    volume.mkdir()

    def job_(program: str = WRITE, then: str = "") -> Job:
        command = (sys.executable, "-c", program.format(then=then), str(volume / "file"))
        return Job(command, {}, (volume,), ("file",))

    return job_


def test_the_moment_of_publication_is_told_from_the_end(job):
    cost = publish(job(then="import time; time.sleep(0.2)"))

    assert cost.ended - cost.published > 0.1


def test_the_peak_is_the_childs_own_and_not_its_parents(job):
    ballast = bytearray(300 << 20)

    cost = publish(job())

    assert 0 < cost.peak < len(ballast) / 2


def test_cpu_is_that_of_the_child(job):
    spin = "import time\nwhile time.process_time() < 0.3: pass"

    assert publish(job(WRITE.replace("; {then}", "\n" + spin))).cpu > 0.3


def test_who_ends_and_published_nothing_fails_with_what_it_said(job):
    with pytest.raises(Failed, match=r"did not publish (.|\n)*no such secret"):
        publish(job("import sys; sys.exit('no such secret')"))


def test_who_was_to_stay_and_published_nothing_fails_likewise(job):
    failing = job("import sys; sys.exit('no such secret')")

    with (
        pytest.raises(Failed, match=r"did not publish (.|\n)*no such secret"),
        process.staying(failing),
    ):
        pass


def test_who_ends_in_error_fails_although_it_published(job):
    with pytest.raises(Failed, match="ended with 3"):
        publish(job(then="sys.exit(3)"))


def test_who_stays_is_measured_by_its_own_clock_and_ended(job):
    spin = "\nimport time, signal\nwhile time.process_time() < 0.3: pass\nsignal.pause()"

    with process.staying(job(WRITE.replace("; {then}", spin))) as agent:
        until(partial(lambda agent: agent.cpu > 0.3, agent))
        assert 0 < agent.memory("RssAnon") < agent.memory("VmRSS")

    assert agent.process.returncode is not None


@pytest.fixture
def go(tmp_path):
    return tmp_path / "go"


@pytest.fixture
def waiting(job, go):
    """A program that begins its work when a file is there."""
    wait = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    return job(wait + WRITE)


def test_agents_begin_when_all_have_been_started(waiting, go):
    answers = iter([False, False, True])

    def begin():
        has_begun = next(answers)
        if has_begun:
            go.touch()
        return has_begun

    with process.together([waiting], begin) as agents:
        assert len(agents) == 1


def test_one_who_ends_before_all_have_begun_fails_with_what_it_said(waiting):
    ending = replace(waiting, command=(sys.executable, "-c", "import sys; sys.exit('no token')"))

    with (
        pytest.raises(Failed, match=r"did not begin (.|\n)*no token"),
        process.together([waiting, ending], lambda: False),
    ):
        pass


def test_one_who_fails_ends_those_that_run_beside_it(job, tmp_path):
    pid = tmp_path / "pid"
    told = f"import os; open({str(pid)!r}, 'w').write(str(os.getpid())); "
    staying = job(told + WRITE, then="import time; time.sleep(600)")
    # No file, and it is told to fail once the other is there.
    failing = replace(staying, command=(sys.executable, "-c", FAIL_AFTER, str(pid)), files=("no",))

    with pytest.raises(Failed, match="failed on purpose"), process.together([staying, failing]):
        pass

    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_who_publishes_and_does_not_end_is_ended(job, monkeypatch):
    monkeypatch.setattr(process, "DEADLINE", 2.0)

    with pytest.raises(Failed, match="did not end"):
        publish(job(then="import time; time.sleep(600)"))


def test_who_stays_and_does_not_end_when_told_is_ended(job, monkeypatch):
    monkeypatch.setattr(process, "GRACE", 0.1)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "

    with (
        pytest.raises(Failed, match="did not end"),
        process.staying(job(deaf + WRITE, then="signal.pause()")) as agent,
    ):
        pass

    assert agent.process.returncode == -signal.SIGKILL


@pytest.fixture
def echo():
    """A server that answers each request with its path."""
    with ScriptedServer(lambda asked, _: answer(200, asked.path)) as server:
        yield server


def get(address, path):
    with urllib.request.urlopen(address + path, timeout=10) as response:
        return json.load(response)


def test_a_front_hands_connections_on_and_counts_them(echo):
    with Front(echo.port) as front:
        assert [get(front.address, path) for path in ("/a", "/b")] == ["/a", "/b"]

        assert len(front.arrivals) == 2


def test_a_front_that_leads_nowhere_resets_who_comes_and_counts_them(echo):
    with Front(echo.port) as front:
        front.lead(None)
        # By the time the connection has been made here, it may have been reset.
        with (
            pytest.raises(ConnectionResetError),
            socket.create_connection(address(front), 10) as connection,
        ):
            connection.recv(1)
        front.lead(echo.port)
        assert get(front.address, "/back") == "/back"

        assert len(front.arrivals) == 2


def test_a_front_that_leads_elsewhere_ends_the_connections_that_there_are(echo):
    with Front(echo.port) as front, socket.create_connection(address(front), 10) as connection:
        until(lambda: front.arrivals)
        front.lead(echo.port)

        assert connection.recv(1) == b""


def address(front):
    host, _, port = front.address.removeprefix("http://").partition(":")
    return host, int(port)


def test_a_token_that_is_not_there_yet_is_waited_for(tmp_path):
    token = tmp_path / "token"
    token.write_text("a-token")
    gate = Gate(tmp_path / "gate", token)
    assert not gate.is_awaited

    with ThreadPoolExecutor(1) as executor:
        reading = executor.submit(gate.path.read_text)
        until(lambda: gate.is_awaited)
        assert not reading.done()
        gate.open()

        assert reading.result(10) == "a-token"
    assert gate.path.read_text() == "a-token"
