"""Secrets that are deleted, destroyed, and restored, while an agent serves them."""

from __future__ import annotations

import pytest

from tests.faults.meeting import Meanwhile, has_told
from tests.faults.sets import FIRST, SECOND, THIRD
from tests.faults.stores import PATH
from tests.faults.table import MISSING
from tests.support.effort import effort
from tests.support.material import files
from tests.support.oracle import Oracle
from tests.support.process import certagent, running

SETS = {"first": files(FIRST), "second": files(SECOND), "third": files(THIRD)}


def test_a_deleted_version_gives_way_to_the_one_before_until_it_is_undeleted(vault):
    vault.push(FIRST)
    vault.push(SECOND)
    with Oracle(vault.directory, **SETS) as oracle, running(**vault.environ) as agent:
        agent.until(lambda: oracle.now == "second")
        vault.openbao.delete(vault.mount, PATH, 2)
        agent.until(lambda: oracle.now == "first")
        vault.openbao.undelete(vault.mount, PATH, 2)
        agent.until(lambda: oracle.now == "second")

    assert oracle.found == ["second", "first", "second"]


def test_a_destroyed_version_gives_way_for_ever(vault):
    vault.push(FIRST)
    vault.push(SECOND)
    with Oracle(vault.directory, **SETS) as oracle, running(**vault.environ) as agent:
        agent.until(lambda: oracle.now == "second")
        vault.openbao.destroy(vault.mount, PATH, 2)
        agent.until(lambda: oracle.now == "first")
        vault.push(THIRD)
        agent.until(lambda: oracle.now == "third")

    assert oracle.found == ["second", "first", "third"]


def delete_all(vault):
    vault.openbao.delete(vault.mount, PATH, 1)


def destroy_all(vault):
    vault.openbao.destroy(vault.mount, PATH, 1)


def delete_metadata(vault):
    vault.openbao.call("DELETE", f"{vault.mount}/metadata/{PATH}")


def delete_v1(vault):
    vault.openbao.call("DELETE", f"{vault.mount}/{PATH}")


def bin_one(keyvault):
    keyvault.pod.vault.delete("ca-cert")


def disable_one(keyvault):
    keyvault.pod.vault.disable("ca-cert")


WAYS = [
    ("vault", delete_all, lambda vault: vault.openbao.undelete(vault.mount, PATH, 1)),
    ("vault", delete_metadata, None),
    ("kv1", delete_v1, lambda kv1: kv1.push(FIRST)),
    ("keyvault", bin_one, lambda keyvault: keyvault.pod.vault.recover("ca-cert")),
]
OTHER_WAYS = [
    ("vault", destroy_all, None),
    ("kv1", delete_v1, None),
    ("keyvault", disable_one, lambda keyvault: keyvault.pod.vault.enable("ca-cert")),
]


@pytest.fixture
def store(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(
    ("store", "withdraw", "restore"), effort(WAYS, [*WAYS, *OTHER_WAYS]), indirect=["store"]
)
def test_what_was_published_stays_when_all_is_withdrawn_and_the_next_set_follows(
    store, withdraw, restore
):
    store.push(FIRST)
    with Oracle(store.directory, **SETS) as oracle, running(**store.environ) as agent:
        agent.until(lambda: oracle.now == "first")
        withdraw(store)
        meanwhile = Meanwhile(store, 2 * store.requests_of_an_attempt)
        agent.until(lambda: meanwhile.again and has_told(agent, MISSING, "version"))
        meanwhile.end()
        newborn = certagent(
            "init",
            **store.environ
            | {"ROOT_CA_DIR": store.directory.parent / "b", "CERTAGENT_INIT_DEADLINE": "1ms"},
        )
        assert newborn.code == MISSING, newborn.stderr
        if restore:
            restore(store)
            agent.until(lambda: agent.logged("recovered"))
            assert oracle.found == ["first"]
        store.push(SECOND)
        agent.until(lambda: oracle.now == "second")

    assert oracle.found == ["first", "second"]
    assert not (store.directory.parent / "b/..data").exists()
