"""Vault and OpenBao: one connection, and the secrets that are read through it."""

from __future__ import annotations

from certagent.sources.vault.connection import VaultConnection
from certagent.sources.vault.kv import VaultKVSource

__all__ = ["VaultConnection", "VaultKVSource"]
