"""Azure Key Vault: one connection, and the secrets that are read through it."""

from __future__ import annotations

from certagent.sources.azure.connection import AzureConnection
from certagent.sources.azure.secrets import KeyVaultSource

__all__ = ["AzureConnection", "KeyVaultSource"]
