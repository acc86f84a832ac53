"""The session under Azure's SDK, which brings requests: whole deadlines, and bounded bodies."""

from __future__ import annotations

import contextlib
import math
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from certagent.sources.http.answers import MAX_BODY_BYTES, MAX_IDLE
from certagent.sources.http.deadline import Deadline, Dialer, TimedContext, tls_context
from certagent.sources.http.failures import (
    BodyTooLarge,
    NoConnection,
    ProxyFailed,
    RedirectRefused,
)
from certagent.sources.http.proxies import proxy_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3.connectionpool import HTTPConnectionPool


class _TimedConnection(HTTPConnection):
    """A connection made of timed sockets."""

    def __init__(self, deadline: Deadline, dialer: Dialer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._deadline = deadline
        self._dialer = dialer

    def _new_conn(self) -> socket.socket:
        try:
            timeout = cast("float", self.timeout)
            return self._dialer.connect(self._dns_host.strip("[]"), self.port, timeout)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"no connection within {self.timeout} s") from error
        except OSError as error:
            raise NewConnectionError(self, f"no connection: {error}") from error


class _TimedTLSConnection(_TimedConnection, HTTPSConnection):
    """The same over TLS; the file of the CA is read at each connect."""

    def connect(self) -> None:
        """Connect and shake hands, with a proxy too if there is one."""
        self.ssl_context = self._context()
        if self.proxy_config is not None:
            self.proxy_config = self.proxy_config._replace(ssl_context=self._context())
        try:
            super().connect()
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "no TLS connection in time") from error

    def _context(self) -> TimedContext:
        return tls_context(self._deadline, self.ca_certs or self.ca_cert_dir)


class _TimedAdapter(HTTPAdapter):
    """Gives requests the timed connections, also behind a proxy; retries nothing."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__(max_retries=0)
        dialer = Dialer(deadline)
        self._connections = {
            "http": partial(_TimedConnection, deadline, dialer),
            "https": partial(_TimedTLSConnection, deadline, dialer),
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
    """A session: always verified, no netrc, no redirects.

    Each request has `total` seconds, the reading of its (streamed) body included. `HTTPS_PROXY` and
    `NO_PROXY` are honoured, but not for loopback.
    """

    def __init__(self, total: float) -> None:
        super().__init__()
        # Or requests would look into ~/.netrc.
        self.trust_env = False
        self.stream = True
        self.headers["Accept-Encoding"] = "identity"
        self._total = total
        self._used_at = -math.inf
        self._deadline = Deadline()
        for scheme in ("https://", "http://"):
            self.mount(scheme, _TimedAdapter(self._deadline))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Refuse what requests would follow: the token must not go elsewhere."""
        if resp.is_redirect:
            resp.close()
            raise RedirectRefused("Azure does not, so it was not followed")

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request; the answer's body is still to be read, by `bounded_body`.

        Raises `requests.RequestException`, `HTTPFailure`, or an `OSError` about a file of TLS.
        """
        if time.monotonic() - self._used_at > MAX_IDLE:
            self.close()
        self._deadline.start(self._total)
        self._used_at = time.monotonic()
        url = request.url or ""
        proxy = proxy_for(url)
        kwargs["proxies"] = {urlsplit(url).scheme: proxy.geturl()} if proxy else {}
        try:
            return super().send(request, **kwargs)
        except requests.exceptions.ProxyError as error:
            raise ProxyFailed(str(error)) from error
        except requests.ConnectTimeout as error:
            raise NoConnection(str(error)) from error


def bounded_body(response: requests.Response) -> bytes:
    """Read a body to its end, and let go of its connection; raises `BodyTooLarge`."""
    body = bytearray()
    with contextlib.closing(response):
        for chunk in response.iter_content(1 << 16):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise BodyTooLarge(MAX_BODY_BYTES)
    return bytes(body)
