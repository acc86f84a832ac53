"""Every fault between an agent and its store: of the newborn, and of one that has published."""

from __future__ import annotations

import json
import time

import pytest

from tests.faults.stores import INTERVAL
from tests.faults.table import ERRORS, FAULTS
from tests.support.effort import effort
from tests.support.material import files, make_root, new_key, private_key_pem
from tests.support.oracle import NOTHING, Oracle
from tests.support.process import certagent, running

ROOT = make_root()
FIRST, SECOND = (ROOT.intermediate().raw() for _ in range(2))
BAD = ROOT.intermediate().raw(private_key=private_key_pem(new_key()))

OF_KEY_VAULT = {"reset", "hang", "half a body", "403", "429 with Retry-After", "no JSON"}
OF_KV1 = {"reset", "500", "half a JSON"}
MET_AT_A_KEY_VAULT_TOO = [
    each for each in FAULTS if each.shown != "no handshake" and each.name != "redirect in circles"
]


def _rows():
    """The faults at the stores where they are met: at all of them with `--long`."""
    usual = {"vault": FAULTS}
    usual["kv1"] = [fault for fault in FAULTS if fault.name in OF_KV1]
    usual["keyvault"] = [fault for fault in FAULTS if fault.name in OF_KEY_VAULT]
    long = {"vault": FAULTS, "kv1": FAULTS, "keyvault": MET_AT_A_KEY_VAULT_TOO}
    return [
        pytest.param(store, fault, id=f"{store}-{fault}")
        for store, faults in effort(usual, long).items()
        for fault in faults
    ]


at_each_store = pytest.mark.parametrize(("store", "fault"), _rows(), indirect=["store"])


@pytest.fixture
def store(request):
    return request.getfixturevalue(request.param)


class Met:
    """A fault at a store from now until its `end`, and what is asked of the store meanwhile."""

    def __init__(self, store, fault):
        self._store, self._fault = store, fault
        self._before, self._began = self._asked, time.monotonic()
        store.begin(fault)

    @property
    def _asked(self):
        return len(self._store.exchanges) + self._store.accepted

    @property
    def again(self):
        """Whether it was met, and met again."""
        return self._asked - self._before >= 3

    def end(self):
        """End it; what was asked meanwhile is no more than a poll at every interval may ask."""
        self._store.end()
        self._ended_at = time.time()
        took, asked = time.monotonic() - self._began, self._asked - self._before
        # A request may need a connection of its own.
        assert asked <= 2 * self._fault.most * (took / INTERVAL + 2), f"{asked} in {took:.1f} s"

    @property
    def polls_to_recover(self):
        """How many polls have begun between its end and the last publication."""
        published_at = (self._store.directory / "..data").lstat().st_mtime
        return self._store.polls(self._ended_at, published_at)


def environ_of(store, fault, home):
    """Return the environment of an agent with as much patience as the fault needs."""
    document = {store.section: {"requestTimeout": fault.patience}}
    (home / "certagent.yaml").write_text(json.dumps(document))
    return {**store.environ, "CERTAGENT_CONFIG": home / "certagent.yaml"}


def has_told(agent, fault, published):
    """Whether the log has told of the fault, and of what is published meanwhile."""
    records = agent.logged("", fault=ERRORS[fault.code])
    return any(record["published"].startswith(published) for record in records)


@at_each_store
def test_init_publishes_nothing_and_exits_with_the_code_of_what_it_met(store, fault, tmp_path):
    store.push(FIRST)
    environ = {**environ_of(store, fault, tmp_path), "CERTAGENT_INIT_DEADLINE": "200ms"}
    met = Met(store, fault)

    with Oracle(store.directory, first=files(FIRST)) as oracle:
        done = certagent("init", **environ)
        met.end()

    assert (done.code, oracle.found) == (fault.code, []), done.stderr


@at_each_store
def test_an_agent_lives_through_it_at_birth_and_again_when_it_has_published(store, fault, tmp_path):
    store.push(FIRST)
    birth = Met(store, fault)
    with (
        Oracle(store.directory, first=files(FIRST), second=files(SECOND)) as oracle,
        running(**environ_of(store, fault, tmp_path)) as agent,
    ):
        agent.until(lambda: birth.again and has_told(agent, fault, "nothing"))
        assert oracle.now == NOTHING
        birth.end()
        agent.until(lambda: oracle.now == "first")
        assert birth.polls_to_recover <= 1

        later = Met(store, fault)
        for raw in (SECOND, BAD) if store.keeps_history else (BAD, SECOND):
            store.push(raw)
        agent.until(lambda: later.again and has_told(agent, fault, "version"))
        assert oracle.now == "first"
        later.end()
        agent.until(lambda: oracle.now == "second")
        assert later.polls_to_recover <= 1
        agent.until(lambda: len(agent.logged("recovered")) == 2)
        assert agent.stop() == 0

    assert oracle.found == ["first", "second"]
