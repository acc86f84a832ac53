"""The stores that the faults are met at."""

from __future__ import annotations

import pytest

from tests.faults.stores import KeyVault, Vault
from tests.support.front import FrontDoor


@pytest.fixture
def door(openbao, tls):
    """The way to OpenBao, which can be made to fail."""
    with FrontDoor(openbao, tls) as opened:
        yield opened


@pytest.fixture
def vault(openbao, door, cluster, tls, tmp_path):
    """A secret of KV v2, through the door."""
    return Vault(openbao, door, cluster, tls, tmp_path)


@pytest.fixture
def kv1(openbao, door, cluster, tls, tmp_path):
    """A secret of KV v1, through the door."""
    return Vault(openbao, door, cluster, tls, tmp_path, version=1)


@pytest.fixture
def keyvault(azure, tmp_path):
    """Four secrets of a Key Vault."""
    return KeyVault(azure, tmp_path)
