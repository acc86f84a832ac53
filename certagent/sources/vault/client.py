"""One request to Vault: typed errors, bounded answers, and a count of outcomes."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from certagent import __version__
from certagent.config.model import CertAuth, VaultConfig, seconds
from certagent.errors import SourceUnavailable
from certagent.sources.http.answers import retry_delay
from certagent.sources.http.failures import failures, one_line
from certagent.sources.http.transport import Transport, Trust
from certagent.sources.vault.failures import ADVICE

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping

    import hvac

    from certagent.sources.http.transport import Answer

_LOG = logging.getLogger("certagent.vault")
_OUTCOMES = {400: "denied", 401: "denied", 403: "denied", 404: "missing", 429: "limited"}
_REFUSALS = frozenset({400, 401, 403, 404, 405})
_NOT_SECRET = frozenset({"role", "name"})
_NO_SECRETS = frozenset({"csr"})
"""A body with such a field is a request to sign, which has nothing to hide."""

_FRESH = 10.0
"""Seconds for which what was read ahead is told, from the last of it on: who comes later than that
was held up, by an output that another agent has for instance, and has it read again."""

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


def url_of(*parts: str) -> str:
    """Return the path of Vault's API for these parts, each of which may have slashes itself."""
    return "/v1/" + "/".join(quote(part.strip("/")) for part in parts)


class VaultClient:
    """Requests to one Vault, with the token that it has at the moment.

    `outcomes` counts each request once, `conceal` is told every secret before it is sent, so that
    no log can show it. A request raises `VaultRefused` or `SourceUnavailable`, and returns the JSON
    object, `{}` where there is none. A 404 that carries data is returned: so KV v2 answers for a
    deleted version. Not for several threads at once.
    """

    def __init__(
        self,
        config: VaultConfig,
        outcomes: Counter[str],
        conceal: Callable[[str], None] = lambda _: None,
    ) -> None:
        auth = config.auth
        identity = (auth.cert_file, auth.key_file) if isinstance(auth, CertAuth) else None
        ca = config.ca_file or os.environ.get("REQUESTS_CA_BUNDLE") or None
        self.token = ""
        self.transport = Transport(
            seconds(config.request_timeout),
            seconds(config.connect_timeout),
            Trust(ca, identity),
            plain_http=config.plain_http,
        )
        self._namespace = config.namespace
        self._address = config.address.rstrip("/")
        address = urlsplit(config.address)
        self._shown = f"{address.scheme}://{address.netloc.rpartition('@')[2]}"
        self._outcomes = outcomes
        self._conceal = conceal
        self._ahead: dict[str, dict[str, Any] | Exception] = {}
        self._ahead_until = -math.inf

    @property
    def api(self) -> hvac.Client:
        """Hvac's client, which knows all of Vault's API, over this one; for operators' verbs."""
        from certagent.sources.vault.api import over  # noqa: PLC0415 - an agent needs four paths

        return over(self)

    def get(self, url: str, **parameters: object) -> dict[str, Any]:
        """Read; `url` is of `url_of`. What was read ahead is told once, be it an error."""
        told = None if parameters else self._ahead.pop(url, None)
        if told is None or time.monotonic() >= self._ahead_until:
            return self.request("GET", url, parameters=parameters)
        if isinstance(told, Exception):
            raise told
        return told

    def read_ahead(self, url: str) -> dict[str, Any]:
        """Read what `get` will be asked for within seconds; that needs no request then."""
        try:
            answer = self.request("GET", url)
        except (VaultRefused, SourceUnavailable) as error:
            self._keep(url, error)
            raise
        self._keep(url, answer)
        return answer

    def _keep(self, url: str, told: dict[str, Any] | Exception) -> None:
        self._ahead[url] = told
        self._ahead_until = time.monotonic() + _FRESH

    def post(self, url: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Write."""
        return self.request("POST", url, body)

    def request(
        self,
        method: str,
        url: str,
        body: Mapping[str, object] | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> dict[str, Any]:
        """Make any request; raises and returns what the class tells."""
        started = time.monotonic()
        status, outcome = 0, "unavailable"
        secrets = _secrets(self.token, body)
        for secret in secrets:
            self._conceal(secret)
        where = f"{url}?{urlencode(parameters)}" if parameters else url
        data = None if body is None else json.dumps(body).encode()
        try:
            with failures(self._shown, started, ADVICE):
                answer = self.transport.request(
                    method, self._address + where, self._headers(data), data
                )
            status = answer.status
            told = self._judged(answer, secrets)
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
            _LOG.debug("%s %s: %s, %d ms", method, url, status or "no answer", taken)
        return told

    def close(self) -> None:
        """Drop the connections, and what was read ahead."""
        self._ahead.clear()
        self.transport.close()

    def _headers(self, data: bytes | None) -> dict[str, str]:
        # Vault's agents want the second (its own clients send it), against forged requests.
        headers = {"User-Agent": f"certagent/{__version__}", "X-Vault-Request": "true"}
        if self.token:
            headers["X-Vault-Token"] = self.token
        if self._namespace:
            headers["X-Vault-Namespace"] = self._namespace
        if data is not None:
            headers["Content-Type"] = "application/json"
        return headers

    def _judged(self, answer: Answer, secrets: list[str]) -> dict[str, Any]:
        """Return what an answer says."""
        status, body = answer.status, _object(answer.body)
        is_good = 200 <= status < 300  # noqa: PLR2004 - HTTP statuses, as below
        if body is not None and (
            is_good or (status == 404 and isinstance(body.get("data"), dict))  # noqa: PLR2004
        ):
            return body
        if is_good:
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
            retry_after=retry_delay(answer.headers.get("Retry-After")),
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
