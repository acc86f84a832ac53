"""A standby that sends its clients on to the active node, and whom they are not sent to."""

from __future__ import annotations

import pytest

from tests.faults.sets import FIRST, SECOND
from tests.support.azure.faults import redirects
from tests.support.front import FrontDoor
from tests.support.material import files
from tests.support.oracle import Oracle
from tests.support.process import certagent, running
from tests.support.scripted import ScriptedServer, answer


@pytest.fixture
def standby(openbao, tls, door):
    """Another node, which sends everything on to the first."""
    with FrontDoor(openbao, tls, "standby") as node:
        node.faults.inject(redirects(door.url), times=None)
        yield node


def test_a_standby_is_followed_and_used_itself_once_it_is_the_active_node(vault, standby):
    vault.push(FIRST)
    environ = {**vault.environ, "VAULT_ADDR": standby.url}
    with (
        Oracle(vault.directory, first=files(FIRST), second=files(SECOND)) as oracle,
        running(**environ) as agent,
    ):
        agent.until(lambda: oracle.now == "first")
        assert {each.status for each in standby.exchanges} == {307}
        standby.mend()
        vault.door.faults.inject(redirects(standby.url), times=None)
        vault.push(SECOND)
        agent.until(lambda: oracle.now == "second")
        assert not [each for each in agent.log if each["level"] == "error"]


def test_a_token_does_not_follow_a_redirect_to_plain_http(vault, standby):
    vault.push(FIRST)
    standby.mend()
    with ScriptedServer(lambda *_: answer(200, {})) as plain:
        standby.faults.inject(redirects(plain.address), times=None)

        done = certagent(
            "init", **vault.environ | {"VAULT_ADDR": standby.url, "CERTAGENT_INIT_DEADLINE": "1ms"}
        )

    assert (done.code, plain.asked) == (69, [])
    assert "not to https" in done.stderr
