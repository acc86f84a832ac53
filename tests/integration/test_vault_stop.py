"""A stop of the process while Vault is slow, or hangs."""

from __future__ import annotations

import signal
import time

import pytest

from tests.support import meddled
from tests.support.process import COMMAND, running
from tests.support.slow_vault import SlowVault


@pytest.fixture
def agent(tmp_path):
    """Run a verb against a server."""
    (tmp_path / "token").write_text("a.b.c")

    def run(server, verb="run", command=COMMAND, **environ):
        return running(
            verb=verb,
            command=command,
            VAULT_ADDR=server.address,
            ROOT_CA_DIR=tmp_path / "ca",
            CERTAGENT_SOURCE="vault:kv/istiod",
            CERTAGENT_VAULT_ROLE="istiod",
            CERTAGENT_VAULT_TOKEN_FILE=tmp_path / "token",
            CERTAGENT_INTERVAL="1h",
            **environ,
        )

    return run


@pytest.fixture
def giving_back(agent):
    """Run a verb that takes as long as it needs to give its token back, and says what it met."""

    def run(server, verb):
        environ = {meddled.HURRY: "20", "CERTAGENT_LOG_LEVEL": "debug"}
        return agent(server, verb, meddled.COMMAND, **environ)

    return run


def test_an_idle_agent_stops_within_a_second_also_when_vault_hangs(agent):
    with SlowVault("revoke-self") as server, agent(server) as running_agent:
        running_agent.until(lambda: running_agent.logged("running"))
        running_agent.until(lambda: len(server.asked) >= 3)
        running_agent.until(lambda: running_agent.publications)
        began = time.monotonic()
        running_agent.signal(signal.SIGTERM)

        assert running_agent.process.wait(10) == 0
        assert time.monotonic() - began < 2, "a second, and the end of a process"
        server.released.set()


@pytest.mark.parametrize(("verb", "code"), [("run", 0), ("init", 128 + signal.SIGTERM)])
@pytest.mark.parametrize(
    ("slow", "asked"),
    [("/internal/", ["login", "istiod"]), ("/data/", ["login", "istiod", "istiod"])],
)
def test_a_stop_during_the_first_read_does_not_wait_for_it(giving_back, slow, asked, verb, code):
    with SlowVault(slow) as server, giving_back(server, verb) as running_agent:
        running_agent.until(lambda: server.paths() == asked)
        if verb == "run":  # then its first pass waits for the read; `init` may still be loading
            running_agent.until(lambda: running_agent.logged("running"))
        running_agent.signal(signal.SIGTERM)

        assert running_agent.process.wait(8) == code, "a request may take ten seconds"
        assert server.paths() == [*asked, "revoke-self"], running_agent.log
        server.released.set()


@pytest.mark.parametrize(("verb", "code"), [("run", 0), ("init", 128 + signal.SIGTERM)])
@pytest.mark.parametrize(
    ("slow", "asked"),
    [("/login", ["login"]), ("/internal/", ["login", "istiod"])],
)
def test_a_stop_during_a_pass_ends_with_the_request_in_flight(giving_back, slow, asked, verb, code):
    with SlowVault(slow) as server, giving_back(server, verb) as running_agent:
        running_agent.until(lambda: server.paths() == asked)
        running_agent.signal(signal.SIGTERM)
        server.released.set()

        assert running_agent.process.wait(10) == code

    assert server.paths() == [*asked, "revoke-self"], running_agent.log
    assert {record["level"] for record in running_agent.log} <= {"debug", "info"}
