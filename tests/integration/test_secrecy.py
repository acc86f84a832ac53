"""No key, token or secret appears anywhere but in the key's own file, with debug logs on."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest

from tests.support.material import fields, make_root, new_key, private_key_pem
from tests.support.openbao import free_port
from tests.support.process import published, running

_TOKEN = re.compile(r"\b(s|b|hv[sb])\.[A-Za-z0-9]{20,}")
"""What a token of Vault or OpenBao looks like: the login's is known to nobody but the agent."""


def _canaries(pem: str) -> set[str]:
    """Every line of a key's base64: a line in a log would be a leak already."""
    return {line for line in pem.splitlines() if line and not line.startswith("-----")}


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
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read()
        process = Path(f"/proc/{agent.process.pid}")
        shown = (process / "cmdline").read_text() + (process / "environ").read_text()
        agent.stop()

    said = "".join(agent.lines) + metrics.decode() + shown
    keys = _canaries(good.key_pem.decode()) | _canaries(bad.key_pem.decode())
    for canary in keys | _canaries(other_key) | {jwt, jwt.split(".")[1]}:
        assert canary not in said
    assert not _TOKEN.search(said)
    assert "debug" in said.lower()
