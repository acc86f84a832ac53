"""The agent is killed, frozen and stopped, at random and at every stage of a pass.

Whatever is found meanwhile is one whole set; the next agent goes on from there; a stop is 0.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import threading
from contextlib import contextmanager

import pytest

from tests.support import meddled
from tests.support.effort import effort
from tests.support.namespaces import first_inside, pid_1
from tests.support.process import CHECKOUT, COMMAND, running, until
from tests.support.sites import LAYOUTS, Site, material
from tests.support.slow_vault import SlowVault

KILLS = effort(4, 200)
FREEZES = effort(10, 500)
SEED = 20261128


def busy_site(tmp_path, layout):
    """A site whose agent publishes in nearly each of its passes, which follow one another."""
    sets = {f"set-{number}": each for number, each in enumerate(material(layout, 8))}
    return Site(tmp_path, layout, sets, {"refresh": {"interval": "5ms"}})


@contextmanager
def rotating(site):
    """Push one set after the other, from a thread, until the end; the last one stays."""
    ended = threading.Event()

    def push():
        for name in itertools.cycle(site.sets):
            site.push(name)
            if ended.wait(0.01):
                return

    thread = threading.Thread(target=push)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_agent_that_is_killed_at_any_moment_leaves_a_whole_set_and_the_next_goes_on(
    tmp_path, layout
):
    chance, site = random.Random(SEED), busy_site(tmp_path, layout)
    site.push("set-7")
    with site.oracle() as oracle:
        with rotating(site):
            for _ in range(KILLS):
                with site.run() as agent:
                    agent.until(lambda: agent.publications)
                    with pytest.raises(subprocess.TimeoutExpired):
                        agent.process.wait(chance.uniform(0, 0.2))
                    agent.signal(signal.SIGKILL)
                    agent.process.wait(10)
        site.push("set-0")
        with site.run() as agent:
            agent.until(lambda: agent.logged("found a good set"))
            agent.until(lambda: site.found() == site.sets["set-0"] and site.is_tidy)
            assert agent.stop() == 0
    assert len(oracle.found) > KILLS


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_agent_that_is_frozen_at_any_moment_shows_a_whole_set_and_goes_on_once_thawed(
    tmp_path, layout
):
    chance, site = random.Random(SEED), busy_site(tmp_path, layout)
    site.push("set-7")
    with site.oracle() as oracle, site.run() as agent:
        with rotating(site):
            agent.until(lambda: agent.publications)
            for _ in range(FREEZES):
                before = len(agent.publications)
                with pytest.raises(subprocess.TimeoutExpired):
                    agent.process.wait(chance.uniform(0, 0.03))
                agent.signal(signal.SIGSTOP)
                reads = oracle.reads
                until(lambda reads=reads: oracle.reads > reads + 3)
                agent.signal(signal.SIGCONT)
                agent.until(lambda before=before: len(agent.publications) > before)
        site.push("set-0")
        oracle.until("set-0")
        agent.until(lambda: site.is_tidy)
        assert agent.stop() == 0


# A stop during each stage

PID_1 = "PID 1"
STOPS = [
    *((stage, "child") for stage in meddled.STAGES),
    *((stage, PID_1) for stage in effort(["publish"], list(meddled.STAGES))),
]


@pytest.fixture
def prefix(request):
    """What an agent is started with, where it is to be PID 1."""
    return pid_1() if request.param == PID_1 else ()


def _stop(agent, prefix):
    """Send SIGTERM to the agent itself, wherever it runs."""
    pid = agent.process.pid
    os.kill(first_inside(pid) if prefix else pid, signal.SIGTERM)


@pytest.mark.parametrize(("stage", "prefix"), STOPS, indirect=["prefix"])
def test_a_stop_during_a_pass_is_0_and_nothing_is_left_half_done(tmp_path, stage, prefix):
    """A pass that has begun is finished."""
    site, gate = Site(tmp_path, "gateway"), tmp_path / "gate"
    site.push("first")
    command = (*prefix, *meddled.COMMAND)
    environ = {meddled.STAGE: stage, meddled.GATE: gate, "PYTHONPATH": CHECKOUT}
    with site.oracle() as oracle, running(*site.words, command=command, **environ) as agent:
        agent.until(gate.exists)
        _stop(agent, prefix)
        assert oracle.found == []
        gate.unlink()
        assert agent.process.wait(20) == 0
    assert oracle.found == ["first"]
    assert site.is_tidy
    assert {record["level"] for record in agent.log} <= {"info"}


@pytest.mark.parametrize("prefix", effort([PID_1], [PID_1, "child"]), indirect=True)
def test_a_stop_during_a_hook_is_0_and_the_set_is_published(tmp_path, prefix):
    up = tmp_path / "up"
    hook = {"name": "slow", "kind": "exec", "command": ["sh", "-c", f"echo > {up}; exec sleep 60"]}
    site = Site(tmp_path, "gateway", hooks=[hook])
    site.push("first")
    with site.oracle() as oracle, site.run(prefix) as agent:
        oracle.until("first")
        site.push("second")
        agent.until(up.exists)
        _stop(agent, prefix)
        assert agent.process.wait(20) == 0
    assert oracle.found == ["first", "second"]
    assert agent.logged("the agent ends before a hook was told")


@pytest.mark.parametrize("slow", ["/login", "/data/istiod"])
def test_a_stop_of_pid_1_during_a_request_is_0(tmp_path, slow):
    """As for any other process, for which tests/integration/test_vault_stop.py shows it."""
    (tmp_path / "token").write_text("a.b.c")
    prefix = pid_1()
    with (
        SlowVault(slow) as server,
        running(
            command=(*prefix, *COMMAND),
            VAULT_ADDR=server.address,
            ROOT_CA_DIR=tmp_path / "ca",
            CERTAGENT_SOURCE="vault:kv/istiod",
            CERTAGENT_VAULT_ROLE="istiod",
            CERTAGENT_VAULT_TOKEN_FILE=tmp_path / "token",
        ) as agent,
    ):
        agent.until(lambda: server.paths()[-1:] == [slow.rpartition("/")[2]])
        _stop(agent, prefix)
        server.released.set()
        assert agent.process.wait(20) == 0
    assert {record["level"] for record in agent.log} <= {"info"}
