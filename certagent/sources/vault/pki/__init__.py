"""Vault's PKI engine as a source: certificates that are issued for keys of the pod's own."""

from __future__ import annotations

from certagent.sources.vault.pki.source import Destination, VaultPKISource

__all__ = ["Destination", "VaultPKISource"]
