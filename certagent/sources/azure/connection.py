"""The one login and the one client of a process, shared by all that it reads from Key Vault."""

from __future__ import annotations

import json
import logging
from collections import Counter
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError
from azure.keyvault.secrets import SecretClient

from certagent.config.clouds import vault_name
from certagent.errors import AccessDenied, SourceUnavailable
from certagent.sources.azure.credentials import describe, new_credential
from certagent.sources.azure.failures import outcome, vault_failure
from certagent.sources.azure.login import STRANGE, Login
from certagent.sources.azure.session import AzureSession, transport
from certagent.sources.http.failures import chain

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from azure.core.credentials import TokenCredential

    from certagent.config.model import AzureConfig
    from certagent.sources.azure.session import Answer

API_VERSION = "7.4"
"""Of 2023, and in all clouds; it has all that is asked for here. The SDK's default is its newest,
which the sovereign clouds may not have yet."""

_UNAUTHORIZED = 401

T = TypeVar("T")


class AzureConnection:
    """Implements `sources.Connection`: one token for all requests, and a new one when it is time.

    There is no login before the first `call`. A token that the vault refuses is replaced once, by
    a login with a fresh credential. `conceal` is told every token and credential. `stopping` tells
    that the agent is to end: then nothing more is asked. Not for several threads at once.
    """

    def __init__(
        self,
        config: AzureConfig,
        *,
        conceal: Callable[[str], None] = lambda _: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        _silence()
        self.requests: Counter[str] = Counter()
        self.logins: Counter[str] = Counter()
        self.vault = vault_name(config.vault_url)
        self.conceal = conceal
        self._url = config.vault_url.rstrip("/")
        self._host = (urlsplit(config.vault_url).hostname or "").lower()
        self._answer: Answer | None = None
        self._session = AzureSession(config, self._note, stopping)
        shared = transport(self._session, config)
        self._login = Login(
            lambda: new_credential(config, shared, conceal),
            describe(config),
            self.logins,
            conceal,
        )
        self._client = SecretClient(
            self._url,
            # Its annotation has the older protocol only; its code takes either.
            cast("TokenCredential", self._login),
            api_version=API_VERSION,
            transport=shared,
            retry_total=0,
        )

    def call(self, operation: Callable[[SecretClient], T]) -> T:
        """Run an operation of the SDK's client.

        Raises `AccessDenied`, `SourceUnavailable` or `Stopping`, and `AzureRefused` where the vault
        said no: the caller knows what that means.
        """
        self._answer = None
        try:
            return operation(self._client)
        except (AzureError, AccessDenied, SourceUnavailable, *STRANGE) as error:
            raise self._explained(error) from error

    def require(self, key: str) -> None:
        """Raise `KeyError`, for `call` to explain, unless the last answer is an object with a key.

        The SDK takes a page of a list that has none for an empty one, whoever answered it.
        """
        body = json.loads(self._answer.body) if self._answer else {}
        if key not in body:
            raise KeyError(key)

    @property
    def answered_at(self) -> datetime | None:
        """When the vault gave its last answer, by the clock that dates its versions."""
        return self._answer.date if self._answer else None

    def close(self) -> None:
        """Drop the connections, and the token, which Entra ID cannot take back. Never raises."""
        self._login.refuse()
        self._session.close()

    def _note(self, answer: Answer | None, host: str) -> None:
        """Take note of what a request came to."""
        if host != self._host:
            self._login.note(answer)
            return
        self._answer = answer
        self.requests[outcome(answer)] += 1
        if answer is not None and answer.status == _UNAUTHORIZED and not answer.challenged:
            self._login.refuse()

    def _explained(self, error: Exception) -> Exception:
        for cause in chain(error):
            if isinstance(cause, (AccessDenied, SourceUnavailable)):
                return cause
        if self._answer is not None and self._answer.refuses:
            return vault_failure(self._answer, self._url)
        # Without the SDK's words: they quote the answer, and it may well be a key.
        return SourceUnavailable(
            f"Key Vault at {self._url} answered what cannot be understood.",
            hint="Something else than Key Vault answers there, a proxy perhaps.",
        )


def _silence() -> None:
    """Let the SDK say nothing: its errors are told here, and its warnings quote Entra ID whole."""
    for name in ("azure", "msal"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
