"""What a start does while the agent is still being loaded."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest

from certagent.cli import process
from certagent.config.decoding import load
from certagent.sources.vault.connection import VaultConnection
from certagent.sources.vault.secret import Secret
from tests.support.openbao import free_port


@pytest.fixture
def begun(monkeypatch):
    """The secrets that were to be read ahead; the test's own process stays as it is."""
    secrets = []

    def begin(_connection, secret):
        secrets.append(secret)

    monkeypatch.setattr(VaultConnection, "begin", begin)
    monkeypatch.setattr(process, "harden", lambda: None)
    monkeypatch.setattr(process.logs, "configure", lambda *_: None)
    monkeypatch.setattr(process, "sparingly", nullcontext)
    return secrets


def start(file=None, **environ):
    server = {"VAULT_ADDR": f"http://127.0.0.1:{free_port()}", "VAULT_TOKEN": "a-token"}
    with process.agent(load(file, {**server, **environ}), stays=True):
        pass


def start_one(directory, source="vault:secret/istiod"):
    start(CERTAGENT_SOURCE=source, ROOT_CA_DIR=str(directory))


def test_who_has_published_nothing_logs_in_at_once_and_reads_its_secret(begun, tmp_path):
    start_one(tmp_path / "istio-ca")

    assert begun == [Secret("secret", "istiod", None)]


@pytest.mark.parametrize(
    "other",
    [
        {"vaultKV": {"mount": "kv", "path": "other"}},
        {"vaultPKI": {"mount": "pki", "role": "web", "dnsNames": ["a.example"], "ttl": "72h"}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_where_that_would_delay_another_bundle_it_only_logs_in(begun, tmp_path, other):
    sources = {"istiod-ca": {"vaultKV": {"mount": "kv", "path": "ca"}}, "gateway": other}
    bundles = [
        {
            "name": name,
            "kind": "tls",
            "source": source,
            "output": {"directory": f"{tmp_path}/{name}"},
        }
        for name, source in sources.items()
    ]
    file = tmp_path / "certagent.yaml"
    file.write_text(json.dumps({"bundles": bundles}))

    start(file)

    assert begun == [None]


def test_a_restart_that_finds_a_set_does_not_so_that_not_all_agents_ask_together(begun, tmp_path):
    (tmp_path / "..data").symlink_to("..version")
    start_one(tmp_path)

    assert begun == []


def test_who_has_no_vault_has_no_login(begun, tmp_path):
    start_one(tmp_path / "istio-ca", f"file:{tmp_path}")

    assert begun == []
