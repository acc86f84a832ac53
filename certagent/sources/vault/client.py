"""One request to Vault: hvac, with typed errors, bounded answers and a count of outcomes."""

from __future__ import annotations

import json
import logging
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import hvac
from hvac.adapters import JSONAdapter, RawAdapter

from certagent.config.model import CertAuth, VaultConfig, seconds
from certagent.errors import SourceUnavailable
from certagent.sources.http.answers import bounded_body, retry_delay
from certagent.sources.http.failures import failures, one_line
from certagent.sources.http.session import TimedSession
from certagent.sources.vault.failures import ADVICE

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping


_LOG = logging.getLogger("certagent.vault")
_OUTCOMES = {400: "denied", 401: "denied", 403: "denied", 404: "missing", 429: "limited"}
_REFUSALS = frozenset({400, 401, 403, 404, 405})
_NOT_SECRET = frozenset({"role", "name"})
_ELSEWHERE = "Something else than Vault answers there: see vault.address."
_NO_SECRETS = frozenset({"csr"})
"""A body with such a field is a request to sign, which has nothing to hide."""


STATUS_HINTS = {
    429: "A rate limit quota of Vault's was reached; the next attempt waits as long as it asks.",
    472: "This is a disaster-recovery secondary: set vault.address to the primary's cluster.",
    473: "This is a performance standby that cannot serve this: set vault.address to the cluster.",
    501: "It has not been initialised: run `vault operator init`, or correct vault.address.",
    503: "It is sealed, or has no active node: `vault status` tells.",
}


class VaultRefused(Exception):
    """Vault understood the request and said no; `reason` is its own text, safe to show."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason

    @property
    def answer(self) -> str:
        """What Vault answered, as messages quote it: `403`, or `400: invalid role name`."""
        return f"{self.status}: {self.reason}" if self.reason else str(self.status)


def new_client(
    config: VaultConfig, outcomes: Counter[str], conceal: Callable[[str], None] = lambda _: None
) -> hvac.Client:
    """Return hvac's client without a token; each request adds one to `outcomes`.

    `conceal` is told every secret before it is sent, so that no log can show it.

    A request raises `VaultRefused` or `SourceUnavailable`, and returns the JSON object, `{}` where
    there is none. A 404 that carries data is returned: so KV v2 answers for a deleted version.
    """
    session = TimedSession(seconds(config.request_timeout), plain_http=config.plain_http)
    session.verify = config.ca_file or os.environ.get("REQUESTS_CA_BUNDLE") or True
    if isinstance(config.auth, CertAuth):
        session.cert = (config.auth.cert_file, config.auth.key_file)
    return hvac.Client(
        url=config.address,
        token="",  # not None, or hvac looks for one in the environment and in ~/.vault-token
        cert=(),  # likewise, for VAULT_CLIENT_CERT; the session has the right one
        verify=session.verify,
        timeout=(seconds(config.connect_timeout), seconds(config.request_timeout)),
        session=session,
        namespace=config.namespace or None,
        adapter=partial(_Adapter, outcomes=outcomes, conceal=conceal),
    )


class _Adapter(JSONAdapter):  # type: ignore[misc]  # hvac ships no types
    """hvac's extension point: every request of its API passes here, once."""

    def __init__(
        self,
        *args: object,
        outcomes: Counter[str],
        conceal: Callable[[str], None],
        **kwargs: object,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._outcomes = outcomes
        self._conceal = conceal
        address = urlsplit(self.base_uri)
        self._shown = f"{address.scheme}://{address.netloc.rpartition('@')[2]}"

    def request(
        self, method: str, url: str, headers: dict[str, str] | None = None, **kwargs: object
    ) -> dict[str, Any]:
        started = time.monotonic()
        status, outcome = 0, "unavailable"
        secrets = _secrets(self.token, kwargs.get("json"))
        for secret in secrets:
            self._conceal(secret)
        try:
            kwargs["raise_exception"] = False
            with failures(self._shown, started, ADVICE):
                response = RawAdapter.request(self, method, url, headers, **kwargs)
                status, retry_after = response.status_code, response.headers.get("Retry-After")
                text = bounded_body(response, self._shown, _ELSEWHERE)
            answer = self._judged(status, text, retry_after, secrets)
            outcome = _OUTCOMES.get(status, "ok")
        except VaultRefused:
            outcome = _OUTCOMES.get(status, outcome)
            raise
        except SourceUnavailable:
            outcome = "limited" if status == 429 else outcome  # noqa: PLR2004 - an HTTP status
            raise
        finally:
            self._outcomes[outcome] += 1
            taken = (time.monotonic() - started) * 1000
            _LOG.debug("%s %s: %s, %d ms", method.upper(), url, status or "no answer", taken)
        return answer

    def _judged(
        self, status: int, text: bytes, retry_after: str | None, secrets: list[str]
    ) -> dict[str, Any]:
        """Return what an answer says; raises what `new_client` tells."""
        body = _object(text)
        if body is not None and (
            status < 300 or (status == 404 and isinstance(body.get("data"), dict))  # noqa: PLR2004
        ):
            return body
        if status < 300:  # noqa: PLR2004 - HTTP statuses, as above
            raise SourceUnavailable(
                f"The server at {self._shown} answered {status} with something else than JSON.",
                hint="Something else than Vault answers there, a proxy perhaps: see vault.address.",
            )
        reason = _reason(body or {}, secrets)
        if status in _REFUSALS:
            raise VaultRefused(status, reason)
        shown = f"{status}: {reason}" if reason else str(status)
        raise SourceUnavailable(
            f"Vault at {self._shown} cannot answer now ({shown}).",
            hint=STATUS_HINTS.get(status, "Its own log tells why; the request is tried again."),
            retry_after=retry_delay(retry_after),
        )


def _secrets(token: str | None, sent: object) -> list[str]:
    """Return what a request carries and its answer may echo."""
    body = sent if isinstance(sent, dict) and not _NO_SECRETS & sent.keys() else {}
    return [token or "", *(str(v) for key, v in body.items() if key not in _NOT_SECRET)]


def _reason(body: Mapping[str, Any], secrets: list[str]) -> str:
    """Return Vault's errors, or the warnings that come with a 404."""
    told = body.get("errors") or body.get("warnings") or []
    texts = told if isinstance(told, list) else [told]
    return one_line("; ".join(str(text) for text in texts), secrets)


def _object(text: bytes) -> dict[str, Any] | None:
    if not text.strip():
        return {}
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None
