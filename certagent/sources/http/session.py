"""The HTTP session with one server: its connections, proxies and redirects."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidProxyURL
from requests.utils import get_environ_proxies, select_proxy

from certagent.config.loopback import is_loopback
from certagent.sources.http.deadline import (
    Deadline,
    Resolver,
    TimedConnection,
    TimedTLSConnection,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from urllib3.connectionpool import HTTPConnectionPool

MAX_REDIRECTS = 3
MAX_IDLE = 60.0
"""Seconds; load balancers forget a connection that idles for minutes, some without a word."""

_REDIRECTS = frozenset({301, 302, 307, 308})


class RedirectRefused(requests.RequestException):
    """The server sends requests to where they must not go, or in circles."""


class _TimedAdapter(HTTPAdapter):
    """Gives requests the timed connections, also behind a proxy; retries nothing."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__(max_retries=0)
        resolver = Resolver()
        self._connections = {
            "http": partial(TimedConnection, deadline, resolver),
            "https": partial(TimedTLSConnection, deadline, resolver),
        }

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None = None,
        cert: tuple[str, str] | str | None = None,
    ) -> HTTPConnectionPool:
        pool: Any = super().get_connection_with_tls_context(request, verify, proxies, cert)
        pool.ConnectionCls = self._connections[pool.scheme]
        return cast("HTTPConnectionPool", pool)

    def cert_verify(self, *_: object) -> None:
        """Leave the files to the connection: without one, the system's authorities decide.

        Those that come with Python (certifi), which requests would take, know no company's own.
        """


class TimedSession(requests.Session):
    """A session for one server: always verified, no netrc, redirects as Vault's own client.

    Each request has `total` seconds, redirects and the reading of its (streamed) body included.
    `HTTPS_PROXY` and `NO_PROXY` are honoured, but not for loopback. The method, the body and the
    token follow a redirect, as in Vault's `Client.rawRequestWithContext` (api/client.go); to http
    they follow only from http, and then to another host only with `plain_http`.
    """

    def __init__(self, total: float, *, plain_http: bool = False) -> None:
        super().__init__()
        # Or requests would look into ~/.netrc, here and at each redirect.
        self.trust_env = False
        self.stream = True
        self.headers["Accept-Encoding"] = "identity"
        self._total = total
        self._used_at = -math.inf
        self._plain_http = plain_http
        self._deadline = Deadline()
        for scheme in ("https://", "http://"):
            self.mount(scheme, _TimedAdapter(self._deadline))

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002 - the signature
        """Keep requests from following: it would turn a POST into a GET, and read any body."""
        return

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Give each request this many seconds, unless it has fewer anyway."""
        before, self._total = self._total, min(seconds, self._total)
        try:
            yield
        finally:
            self._total = before

    def send(
        self,
        request: requests.PreparedRequest,
        **kwargs: Any,
    ) -> requests.Response:
        """Send a request and follow its redirects; the answer's body is still to be read.

        Raises `requests.RequestException`, or an `OSError` about a file that TLS needs.
        """
        if time.monotonic() - self._used_at > MAX_IDLE:
            self.close()
        self._deadline.start(self._total)
        self._used_at = time.monotonic()
        for _ in range(MAX_REDIRECTS + 1):
            kwargs["proxies"] = _proxies(request.url or "")
            response = super().send(request, **kwargs)
            location = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or not location:
                return response
            response.close()
            request = request.copy()
            request.url = self._target(response.url, location)
        raise RedirectRefused(f"more than {MAX_REDIRECTS} times")

    def _target(self, url: str, location: str) -> str:
        target = urljoin(url, location)
        here, there = urlsplit(url), urlsplit(target)
        plain = here.scheme == "http" and there.scheme == "http"
        known = self._plain_http or here.hostname == there.hostname
        if there.scheme == "https" or (plain and known):
            return target
        raise RedirectRefused("not to https, so it was not followed")


def _proxies(url: str) -> dict[str, str]:
    """Return the environment's proxies for a URL; for loopback none, like Vault's own client (Go).

    Plain http to a Vault agent in the pod would else leave it, with tokens and keys in the clear.
    """
    if is_loopback(urlsplit(url).hostname or ""):
        return {}
    proxies = get_environ_proxies(url)
    if (select_proxy(url, proxies) or "").lower().startswith("socks"):
        # The timed connections do not speak it, whatever else is installed.
        raise InvalidProxyURL("SOCKS is not supported")
    return proxies
