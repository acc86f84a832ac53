"""An operator who keeps a mesh's CA in a Key Vault, part by part, as AKS's guide has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from certagent.material.raw import RawBundle
    from tests.support.azure.vault import KeyVault

SECRET = "a-client-secret-of-some-length"
"""What the tests' application proves itself with."""

SECRETS = {
    "private_key": "ca-key",
    "certificate": "ca-cert",
    "chain": "cert-chain",
    "roots": "root-cert",
}
"""The secret of each part."""


def store_part(vault: KeyVault, raw: RawBundle, part: str, **how: object) -> str:
    """`az keyvault secret set`, once; return the version's id."""
    return vault.set(SECRETS[part], getattr(raw, part).decode(), **how)


def store(
    vault: KeyVault, raw: RawBundle, parts: Iterable[str] = tuple(SECRETS), **how: object
) -> None:
    """The same for these parts, in their order."""
    for part in parts:
        store_part(vault, raw, part, **how)
