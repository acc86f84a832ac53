"""A connection to a scripted Vault, and the secret that is read over it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from certagent.config.model import JwtAuth, VaultConfig
from certagent.config.model import VaultKVSource as Config
from certagent.sources.vault import connection as connection_module
from certagent.sources.vault.connection import VaultConnection
from certagent.sources.vault.kv import VaultKVSource
from tests.support.scripted_vault import Vault


@pytest.fixture
def unhurried(monkeypatch):
    """Let a token be given back also by a machine that does much else."""
    monkeypatch.setattr(connection_module, "_HURRY", 20.0)


@pytest.fixture
def vault():
    with Vault() as running:
        yield running


@pytest.fixture
def clock():
    return SimpleNamespace(now=1000.0)


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("a.b.c")
    return path


@pytest.fixture
def connection(vault, clock, token_file):
    config = VaultConfig(
        address=vault.address, auth=JwtAuth(role="istiod", token_file=str(token_file))
    )
    made = VaultConnection(config, clock=lambda: clock.now)
    yield made
    made.close()


@pytest.fixture
def source(connection):
    return VaultKVSource(connection, Config(mount="kv", path="certs", kv_version=2))
