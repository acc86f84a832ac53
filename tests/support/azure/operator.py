"""An operator who keeps a mesh's CA in a Key Vault, part by part, as AKS's guide has it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from tests.support.material import files
from tests.support.process import certagent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from certagent.material.raw import RawBundle
    from tests.support.azure.vault import KeyVault
    from tests.support.process import Finished

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


class Pusher:
    """An operator who pushes, logged in with a client secret, from a folder of his own."""

    def __init__(self, vault: KeyVault, directory: Path, *permissions: str) -> None:
        self.app = vault.tenant.application(secret=SECRET)
        vault.grant(self.app, *(permissions or ("get", "list", "set")))
        self._directory = directory / self.app.client_id
        self._directory.mkdir()
        secret_file = self._directory / "client-secret"
        secret_file.write_text(SECRET)
        self.environ = {
            "CERTAGENT_AZURE_CLOUD": vault.tenant.cloud.name,
            "CERTAGENT_AZURE_CREDENTIAL": "clientSecret",
            "CERTAGENT_AZURE_TENANT_ID": vault.tenant.id,
            "CERTAGENT_AZURE_CLIENT_ID": self.app.client_id,
            "CERTAGENT_AZURE_SECRET_FILE": secret_file,
        }
        self.source = f"azure:{vault.name}"

    def directory(self, files: Mapping[str, bytes]) -> Path:
        """Write files into a new directory."""
        made = self._directory / secrets.token_hex(4)
        made.mkdir()
        for name, data in files.items():
            (made / name).write_bytes(data)
        return made

    def push(self, raw: RawBundle, *flags: object, source: str = "", **environ: object) -> Finished:
        """`certagent push`, of the set of a CA."""
        words = ("push", source or self.source, "--from", self.directory(files(raw)), *flags)
        return certagent(*words, **{**self.environ, **environ})
