"""The SDK as it comes, with the patience of a test: one request, five seconds."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient

if TYPE_CHECKING:
    from tests.support.azure.entra import Application, Tenant
    from tests.support.azure.vault import KeyVault

QUICK = {"retry_total": 0, "connection_timeout": 5, "read_timeout": 5}
"""Instead of the SDK's own: 300 seconds, and up to ten times."""


class SDK:
    """Makes credentials and clients, and closes them at the end of `with`."""

    def __init__(self) -> None:
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def credential(self, kind: type, *args: object, **options: object) -> Any:
        """Make one of a kind; its own arguments follow."""
        return self._opened.enter_context(kind(*args, **(QUICK | options)))

    def secret(self, tenant: Tenant, app: Application, **options: object) -> ClientSecretCredential:
        """Make an application's credential, of one of its secrets."""
        secret = next(iter(app.secrets))
        return self.credential(ClientSecretCredential, tenant.id, app.client_id, secret, **options)

    def client(self, vault: KeyVault | str, credential: Any, **options: object) -> SecretClient:
        """Make a client of a vault, or of a URL."""
        url = vault if isinstance(vault, str) else vault.url
        return self._opened.enter_context(SecretClient(url, credential, **(QUICK | options)))
