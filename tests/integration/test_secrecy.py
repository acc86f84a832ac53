"""No key, token or secret appears anywhere but in the key's own file, with debug logs on."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest

from tests.support.material import fields, make_root, new_key, private_key_pem
from tests.support.openbao import free_port
from tests.support.process import Running, published, running

_TOKEN = re.compile(r"\b(s|b|hv[sb])\.[A-Za-z0-9]{20,}")
"""What a token of Vault or OpenBao looks like: the login's is known to nobody but the agent."""


def _canaries(pem: str) -> set[str]:
    """Every line of a key's base64: a line in a log would be a leak already."""
    return {line for line in pem.splitlines() if line and not line.startswith("-----")}


def _process(agent: Running) -> Path:
    return Path(f"/proc/{agent.process.pid}")


def _shown(agent: Running, port: int) -> str:
    """What a running agent shows but for its log: metrics, probes and arguments."""
    shown = (_process(agent) / "cmdline").read_text()
    for path in ("metrics", "readyz", "livez"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
            shown += answer.read().decode()
    return shown


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_with_debug_logs_on_no_secret_is_in_logs_metrics_or_arguments(
    openbao, cluster, tmp_path, log_format
):
    root = make_root()
    good, bad = root.intermediate(), root.intermediate()
    other_key = private_key_pem(new_key()).decode()
    mount = openbao.kv(2)
    auth = openbao.kubernetes_auth(cluster)
    openbao.kubernetes_role(auth, "istiod", openbao.policy(f"{mount}/data/istiod/certs"))
    jwt = cluster.mint()
    (tmp_path / "token").write_text(jwt)
    openbao.put(mount, "istiod/certs", fields(good.raw()))
    port = free_port()

    with running(
        VAULT_ADDR=openbao.address,
        ROOT_CA_DIR=tmp_path / "ca",
        CERTAGENT_SOURCE=f"vault:{mount}/istiod/certs",
        CERTAGENT_VAULT_AUTH_MOUNT=auth,
        CERTAGENT_VAULT_ROLE="istiod",
        CERTAGENT_VAULT_TOKEN_FILE=tmp_path / "token",
        CERTAGENT_INTERVAL="100ms",
        CERTAGENT_LOG_LEVEL="debug",
        CERTAGENT_LOG_FORMAT=log_format,
        CERTAGENT_SERVER_ADDRESS=f"127.0.0.1:{port}",
    ) as agent:
        agent.until(lambda: published(tmp_path / "ca"))
        openbao.put(mount, "istiod/certs", {**fields(bad.raw()), "ca_key": other_key})
        agent.until(lambda: "key-mismatch" in "".join(agent.lines))
        # A key in the wrong field, and one that is cut short, are what error messages meet.
        openbao.put(mount, "istiod/certs", {**fields(bad.raw()), "ca_cert": other_key})
        openbao.put(mount, "istiod/certs", {**fields(bad.raw()), "ca_key": other_key[:120]})
        agent.until(lambda: "version 4 refused" in "".join(agent.lines))
        shown = _shown(agent, port) + (_process(agent) / "environ").read_text()
        agent.stop()

    said = "".join(agent.lines) + shown
    keys = _canaries(good.key_pem.decode()) | _canaries(bad.key_pem.decode())
    for canary in keys | _canaries(other_key) | {jwt, jwt.split(".")[1]}:
        assert canary not in said
    assert not _TOKEN.search(said)
    assert "debug" in said.lower()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_neither_a_wrapped_secret_id_nor_what_it_leads_to_is_shown(openbao, tmp_path, log_format):
    mount = openbao.kv(2)
    policy = openbao.policy(f"{mount}/data/ca")
    openbao.put(mount, "ca", fields(make_root().intermediate().raw()))
    auth = openbao.enable_auth("approle")
    role = f"auth/{auth}/role/istiod"
    openbao.call("POST", role, {"token_policies": [policy]})
    role_id = openbao.call("GET", f"{role}/role-id")["data"]["role_id"]
    secret_id = openbao.call("POST", f"{role}/secret-id")["data"]["secret_id"]
    wrapping = openbao.call("POST", "sys/wrapping/wrap", {"secret_id": secret_id}, wrap_ttl="60s")[
        "wrap_info"
    ]["token"]
    (tmp_path / "role-id").write_text(role_id)
    (tmp_path / "secret-id").write_text(wrapping)
    port = free_port()

    with running(
        VAULT_ADDR=openbao.address,
        ROOT_CA_DIR=tmp_path / "ca",
        CERTAGENT_SOURCE=f"vault:{mount}/ca",
        CERTAGENT_VAULT_AUTH_METHOD="approle",
        CERTAGENT_VAULT_AUTH_MOUNT=auth,
        CERTAGENT_VAULT_ROLE_ID_FILE=tmp_path / "role-id",
        CERTAGENT_VAULT_SECRET_ID_FILE=tmp_path / "secret-id",
        CERTAGENT_VAULT_SECRET_ID_WRAPPED="true",
        CERTAGENT_INTERVAL="100ms",
        CERTAGENT_LOG_LEVEL="debug",
        CERTAGENT_LOG_FORMAT=log_format,
        CERTAGENT_SERVER_ADDRESS=f"127.0.0.1:{port}",
    ) as agent:
        agent.until(lambda: published(tmp_path / "ca"))
        shown = _shown(agent, port) + (_process(agent) / "environ").read_text()
        # The login ends, and what was unwrapped is no longer taken: refusals quote most.
        openbao.call("POST", f"{role}/secret-id/destroy", {"secret_id": secret_id})
        openbao.call("POST", f"sys/leases/revoke-prefix/auth/{auth}")
        agent.until(lambda: "the AppRole login at" in "".join(agent.lines))
        # A wrapping token that was used is one of those that are told.
        used = openbao.call("POST", "sys/wrapping/wrap", {"secret_id": "x"}, wrap_ttl="60s")
        used = used["wrap_info"]["token"]
        openbao.call("POST", "sys/wrapping/unwrap", token=used)
        (tmp_path / "secret-id").write_text(used)
        agent.until(lambda: "refused to unwrap" in "".join(agent.lines))
        agent.stop()

    said = "".join(agent.lines) + shown
    for canary in (role_id, secret_id, wrapping, used):
        assert canary not in said
    assert not _TOKEN.search(said)
    assert "/sys/wrapping/unwrap" in said, "the debug log tells the requests"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_token_from_the_environment_is_nowhere_else(openbao, tmp_path, log_format):
    mount = openbao.kv(2)
    openbao.put(mount, "ca", fields(make_root().intermediate().raw()))
    token = openbao.create_token(openbao.policy(f"{mount}/data/ca"))
    port = free_port()

    with running(
        VAULT_ADDR=openbao.address,
        VAULT_TOKEN=token,
        ROOT_CA_DIR=tmp_path / "ca",
        CERTAGENT_SOURCE=f"vault:{mount}/ca",
        CERTAGENT_INTERVAL="100ms",
        CERTAGENT_LOG_LEVEL="debug",
        CERTAGENT_LOG_FORMAT=log_format,
        CERTAGENT_SERVER_ADDRESS=f"127.0.0.1:{port}",
    ) as agent:
        agent.until(lambda: published(tmp_path / "ca"))
        shown = _shown(agent, port)  # the process's own environment is where the token is
        openbao.call("POST", "auth/token/revoke", {"token": token})
        agent.until(lambda: "refused to read" in "".join(agent.lines))
        agent.stop()

    written = b"".join(
        path.read_bytes() for path in (tmp_path / "ca").rglob("*") if path.is_file()
    ).decode()
    assert token not in "".join(agent.lines) + shown + written
