"""hvac over the agent's own client: all of Vault's API, for the verbs of operators.

hvac knows the paths and the bodies; the connections, the token, the errors and the counts are those
of the `VaultClient`, so that there is one way to Vault. An agent never loads it: hvac and what it
needs would double the time of a start.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import hvac
from hvac.adapters import JSONAdapter

if TYPE_CHECKING:
    from certagent.sources.vault.client import VaultClient


def over(client: VaultClient) -> hvac.Client:
    """Return hvac's client; it looks neither at the environment nor at `~/.vault-token`."""
    # What is empty is not looked for elsewhere; None would be.
    return hvac.Client(token=client.token, cert=(), adapter=partial(_Adapter, client=client))


class _Adapter(JSONAdapter):  # type: ignore[misc]  # hvac ships no types
    """hvac's extension point: every request of its API passes here."""

    def __init__(self, *args: object, client: VaultClient, **kwargs: object) -> None:
        self._client = client
        super().__init__(*args, **kwargs)

    @property
    def token(self) -> str:
        return self._client.token

    @token.setter
    def token(self, token: str | None) -> None:
        self._client.token = token or ""

    def request(
        self,
        method: str,
        url: str,
        json: dict[str, object] | None = None,
        params: dict[str, object] | None = None,
        **_: object,
    ) -> dict[str, Any]:
        return self._client.request(method.upper(), url, json, params)
