"""The login as the SDK's client sees it: a credential that says what went wrong, and counts."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from azure.core.exceptions import AzureError

from certagent.errors import AccessDenied, SourceUnavailable, Stopping
from certagent.sources.azure.failures import TOO_MANY, login_failure
from certagent.sources.http.failures import chain

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from azure.core.credentials import AccessTokenInfo, SupportsTokenInfo, TokenRequestOptions

    from certagent.errors import CertagentError
    from certagent.sources.azure.session import Answer

_LOG = logging.getLogger("certagent.azure")
STRANGE = (ValueError, TypeError, AttributeError, KeyError)
"""What the SDK raises where an answer is JSON, and of another shape than it expects."""
_ENDING = 60.0
"""Seconds before its end from which a token is not used any more."""
_RENEWAL_PAUSE = 60.0
"""Seconds between two tries to renew a token early."""


class Login:
    """Implements the SDK's `SupportsTokenInfo`: one token, and a new one when it is time.

    The SDK asks at its first request, before the token ends or when it is told to refresh it, and
    when the vault refuses it; `refuse` says that the last of these is the case. `make` returns a
    fresh credential, `outcomes` counts each login, and `note` is to be told what it is answered.
    """

    def __init__(
        self,
        make: Callable[[], SupportsTokenInfo],
        who: str,
        outcomes: Counter[str],
        conceal: Callable[[str], None],
    ) -> None:
        self._make = make
        self._who = who
        self._outcomes = outcomes
        self._answers: list[Answer] = []
        self._conceal = conceal
        self._token: AccessTokenInfo | None = None
        self._renew_at = 0.0

    def refuse(self) -> None:
        """Forget the token: the vault did not take it."""
        self._token = None

    def note(self, answer: Answer | None) -> None:
        """Take note of an answer."""
        if answer is not None:
            self._answers.append(answer)

    def get_token_info(
        self, *scopes: str, options: TokenRequestOptions | None = None
    ) -> AccessTokenInfo:
        """Return a token; raises `AccessDenied`, `SourceUnavailable` or `Stopping`."""
        left = self._token.expires_on - time.time() if self._token else 0.0
        if self._token and left > _ENDING and time.monotonic() < self._renew_at:
            return self._token
        try:
            self._token = self._log_in(*scopes, options=options)
        except (AccessDenied, SourceUnavailable) as error:
            if self._token is None or left <= _ENDING or isinstance(error, Stopping):
                raise
            self._renew_at = time.monotonic() + _RENEWAL_PAUSE
            _LOG.warning("No new token; the present one is good for %d s more: %s", left, error)
        return self._token

    def _log_in(self, *scopes: str, options: TokenRequestOptions | None) -> AccessTokenInfo:
        outcome = "unavailable"
        self._answers.clear()
        try:
            token = self._make().get_token_info(*scopes, options=options)
            outcome = "ok"
        except (AzureError, AccessDenied, SourceUnavailable, *STRANGE) as failure:
            error = self._explained(failure, options)
            if isinstance(error, AccessDenied):
                outcome = "denied"
            elif any(answer.status == TOO_MANY for answer in self._answers):
                outcome = "limited"
            raise error from failure
        finally:
            self._outcomes[outcome] += 1
        self._conceal(token.token)
        return token

    def _explained(self, failure: Exception, options: TokenRequestOptions | None) -> CertagentError:
        """Return what went wrong; the SDK may have wrapped what we raised below it."""
        for cause in chain(failure):
            if isinstance(cause, (AccessDenied, SourceUnavailable)):
                return cause
        if "additionally_allowed_tenants" in str(failure):
            theirs = (options or {}).get("tenant_id", "another one")
            return AccessDenied(
                f"The vault is in tenant {theirs}, and the login is that of {self._who}.",
                hint="Correct azure.credential.tenantId (AZURE_TENANT_ID), or azure.vaultUrl.",
            )
        return login_failure(self._answers, failure, self._who)
