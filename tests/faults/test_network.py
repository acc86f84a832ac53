"""Every fault between an agent and its store: of the newborn, and of one that has published."""

from __future__ import annotations

import json

import pytest

from tests.faults.meeting import Met, has_told
from tests.faults.sets import BAD, FIRST, SECOND
from tests.faults.table import USUAL, USUAL_AT_INIT, rows
from tests.support.material import files
from tests.support.oracle import NOTHING, Oracle
from tests.support.process import certagent, running


def at_stores(usual):
    """A test of faults at stores: of those that are named, or of all with `--long`."""
    params = [pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in rows(usual)]
    return pytest.mark.parametrize(("store", "fault"), params, indirect=["store"])


@pytest.fixture
def store(request):
    return request.getfixturevalue(request.param)


def environ_of(store, fault, home):
    """Return the environment of an agent with as much patience as the fault needs."""
    document = {store.section: {"requestTimeout": fault.patience}}
    (home / "certagent.yaml").write_text(json.dumps(document))
    return {**store.environ, "CERTAGENT_CONFIG": home / "certagent.yaml"}


@at_stores(USUAL_AT_INIT)
def test_init_publishes_nothing_and_exits_with_the_code_of_what_it_met(store, fault, tmp_path):
    store.push(FIRST)
    environ = {**environ_of(store, fault, tmp_path), "CERTAGENT_INIT_DEADLINE": "200ms"}
    met = Met(store, fault)

    with Oracle(store.directory, first=files(FIRST)) as oracle:
        done = certagent("init", **environ)
        met.end()

    assert (done.code, oracle.found) == (fault.code, []), done.stderr


@at_stores(USUAL)
def test_an_agent_lives_through_it_at_birth_and_again_when_it_has_published(store, fault, tmp_path):
    store.push(FIRST)
    birth = Met(store, fault)
    with (
        Oracle(store.directory, first=files(FIRST), second=files(SECOND)) as oracle,
        running(**environ_of(store, fault, tmp_path)) as agent,
    ):
        agent.until(lambda: birth.again and has_told(agent, fault.code, "nothing"))
        assert oracle.now == NOTHING
        birth.end()
        agent.until(lambda: oracle.now == "first")
        assert birth.polls_to_recover <= 1

        later = Met(store, fault)
        for raw in (SECOND, BAD) if store.keeps_history else (BAD, SECOND):
            store.push(raw)
        agent.until(lambda: later.again and has_told(agent, fault.code, "version"))
        assert oracle.now == "first"
        later.end()
        agent.until(lambda: oracle.now == "second")
        assert later.polls_to_recover <= 1
        agent.until(lambda: len(agent.logged("recovered")) == 2)
        assert agent.stop() == 0

    assert oracle.found == ["first", "second"]
