"""What an agent logs in with is gone, revoked, or replaced on the disk, and put back."""

from __future__ import annotations

import pytest

from tests.faults.meeting import Meanwhile, has_told
from tests.faults.sets import FIRST, SECOND
from tests.faults.stores import PATH
from tests.faults.table import DENIED
from tests.support.effort import effort
from tests.support.material import files
from tests.support.oracle import NOTHING, Oracle
from tests.support.process import certagent, running

SPOILT = {
    "garbage": lambda file, _: file.write_text("no-token-at-all"),
    "empty": lambda file, _: file.write_text(""),
    "missing": lambda file, _: file.unlink(),
    "binary": lambda file, _: file.write_bytes(b"\x00\xff\n\n\x1b[31m"),
    "of another account": lambda file, cluster: file.write_text(
        cluster.mint(service_account="somebody-else")
    ),
    "expired": lambda file, cluster: file.write_text(cluster.mint(expires_in=-60)),
}
USUAL = ("garbage", "missing")

spoilt = pytest.mark.parametrize("spoil", effort(USUAL, tuple(SPOILT)))


@pytest.fixture
def oracle(vault):
    with Oracle(vault.directory, first=files(FIRST), second=files(SECOND)) as watching:
        yield watching


@spoilt
def test_a_service_account_token_that_is_none_is_read_again_until_it_is_one(
    vault, cluster, oracle, spoil
):
    vault.push(FIRST)
    SPOILT[spoil](vault.token_file, cluster)
    with running(**vault.environ) as agent:
        birth = Meanwhile(vault, most=2)
        agent.until(lambda: has_told(agent, DENIED, "nothing"))
        assert oracle.now == NOTHING
        birth.end()
        vault.token_file.write_text(cluster.mint())
        agent.until(lambda: oracle.now == "first")

        SPOILT[spoil](vault.token_file, cluster)
        vault.revoke()
        vault.push(SECOND)
        later = Meanwhile(vault, most=2)
        agent.until(lambda: later.again and has_told(agent, DENIED, "version 1 stays"))
        assert oracle.now == "first"
        later.end()
        vault.token_file.write_text(cluster.mint())
        agent.until(lambda: oracle.now == "second")
        assert agent.stop() == 0


@pytest.mark.parametrize("spoil", effort(("empty",), tuple(SPOILT)))
def test_init_without_a_usable_token_says_so_by_its_exit_code(vault, cluster, oracle, spoil):
    vault.push(FIRST)
    SPOILT[spoil](vault.token_file, cluster)

    done = certagent("init", **vault.environ, CERTAGENT_INIT_DEADLINE="200ms")

    assert (done.code, oracle.now) == (DENIED, NOTHING)


def test_a_revoked_login_and_a_rotated_token_cost_one_login_and_no_fault(vault, cluster, oracle):
    vault.push(FIRST)
    with running(**vault.environ) as agent:
        agent.until(lambda: oracle.now == "first")
        vault.token_file.write_text(cluster.mint())
        vault.revoke()
        vault.push(SECOND)
        agent.until(lambda: oracle.now == "second")
        logins = [each for each in vault.exchanges if each.path.endswith("/login")]
        assert not [each for each in agent.log if each["level"] == "error"]

    assert len(logins) == 2


def test_a_lease_that_ends_is_followed_by_the_next_without_a_fault(vault, oracle):
    vault.push(FIRST)
    vault.openbao.call("POST", f"auth/{vault.auth}/role/istiod", {"token_ttl": "1s"})
    with running(**vault.environ) as agent:
        agent.until(lambda: sum(each.path.endswith("/login") for each in vault.exchanges) >= 3)
        vault.push(SECOND)
        agent.until(lambda: oracle.now == "second")
        assert not [each for each in agent.log if each["level"] in ("error", "warning")]

    assert 403 not in {each.status for each in vault.exchanges}, "it was not waited for"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda call, token: call("POST", "auth/token/revoke", {"token": token}),
        lambda call, token: call("POST", "auth/token/renew", {"token": token, "increment": "1s"}),
    ],
    ids=["revoked", "expired"],
)
def test_a_vault_token_in_a_file_that_ended_is_read_again_until_it_is_replaced(
    vault, oracle, spoil
):
    openbao = vault.openbao
    policy = openbao.policy(f"{vault.mount}/data/{PATH}")
    token = openbao.create_token(policy, ttl="1h")
    vault.token_file.write_text(token)
    vault.push(FIRST)
    with running(**vault.environ | {"CERTAGENT_VAULT_AUTH_METHOD": "token"} | NO_LOGIN) as agent:
        agent.until(lambda: oracle.now == "first")
        spoil(openbao.call, token)
        meanwhile = Meanwhile(vault, most=2)
        agent.until(lambda: meanwhile.again and has_told(agent, DENIED, "version 1 stays"))
        meanwhile.end()
        vault.push(SECOND)
        assert oracle.now == "first"
        vault.token_file.write_text(openbao.create_token(policy))
        agent.until(lambda: oracle.now == "second")


NO_LOGIN = {"CERTAGENT_VAULT_AUTH_MOUNT": "", "CERTAGENT_VAULT_ROLE": ""}
