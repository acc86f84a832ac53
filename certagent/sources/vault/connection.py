"""The one login of a process, shared by all that it reads from Vault."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from certagent.config.model import TokenAuth
from certagent.errors import AccessDenied, CertagentError, SourceUnavailable
from certagent.sources.vault.auth import Authenticator
from certagent.sources.vault.client import VaultRefused, new_client

if TYPE_CHECKING:
    from collections.abc import Callable

    import hvac

    from certagent.config.model import VaultConfig
    from certagent.sources.vault.auth import Login

_LOG = logging.getLogger("certagent.vault")
_FORBIDDEN = 403

Answer = TypeVar("Answer")


class VaultConnection:
    """Implements `sources.Connection`: a login when one is needed, and its end.

    There is none before the first `call`. A new one is made when a third of the lease is left, or
    when Vault answers 403; leases are not renewed, so an outage cannot become a loop of renewals.
    A token that was replaced is revoked: refusals that repeat must not fill Vault with leases.
    `conceal` is told every token and credential before it is used; `clock` returns seconds that
    never go back. Not for several threads at once.
    """

    def __init__(
        self,
        config: VaultConfig,
        *,
        environment_token: str = "",
        conceal: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.requests: Counter[str] = Counter()
        self.logins: Counter[str] = Counter()
        self._client = new_client(config, self.requests, conceal)
        self._authenticator = Authenticator(config.auth, environment_token)
        # A token that was given is read, not obtained: that is no login to be counted.
        self._counts_logins = not isinstance(config.auth, TokenAuth)
        self._clock = clock
        self._login: Login | None = None
        self._renew_at = self._ends_at = math.inf

    def call(self, operation: Callable[[hvac.Client], Answer]) -> Answer:
        """Run an operation with a valid login, and once more with a new one if Vault says 403.

        Raises `AccessDenied` or `SourceUnavailable`, and `VaultRefused` where the operation itself
        was refused: the caller knows what that means.
        """
        fresh = self._ensure_login()
        try:
            return operation(self._client)
        except VaultRefused as refused:
            if fresh or refused.status != _FORBIDDEN or not self._log_in():
                raise
        return operation(self._client)

    def close(self) -> None:
        """Revoke the token, unless it was given, and drop the connections. Never raises."""
        if self._login is not None:
            self._revoke(self._login)
        self._login = None
        self._client.token = ""
        self._client.session.close()

    def _ensure_login(self) -> bool:
        """Make a login where none is valid, or where it is time; return whether one was made."""
        now = self._clock()
        if self._login is None or now >= self._ends_at:
            return self._log_in()
        if now < self._renew_at:
            return False
        try:
            return self._log_in()
        except (AccessDenied, SourceUnavailable) as error:
            left = self._ends_at - now
            _LOG.warning("No new login; the present one is good for %d s more: %s", left, error)
            return False

    def _log_in(self) -> bool:
        """Replace the login; return whether there is another token now."""
        before, limited = self._login, self.requests["limited"]
        self._client.token = ""
        outcome = "unavailable"
        try:
            login = self._authenticator.login(self._client)
            outcome = "ok"
        except AccessDenied:
            outcome = "denied"
            raise
        except SourceUnavailable:
            outcome = "limited" if self.requests["limited"] > limited else outcome
            raise
        finally:
            if self._counts_logins:
                self.logins[outcome] += 1
            self._client.token = before.token if before else ""
        if before is not None:
            self._revoke(before)
        now = self._clock()
        self._renew_at = now + login.lease * 2 / 3 if login.lease else math.inf
        self._ends_at = now + login.lease if login.lease else math.inf
        self._login = login
        self._client.token = login.token
        return before is None or login.token != before.token

    def _revoke(self, login: Login) -> None:
        """Give a token back, if it is ours; that it may have ended already is no fault."""
        if not login.revocable:
            return
        self._client.token = login.token
        try:
            self._client.auth.token.revoke_self()
        except (CertagentError, VaultRefused) as error:
            _LOG.debug("The token was not revoked: %s", error)
