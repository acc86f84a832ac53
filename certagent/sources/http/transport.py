"""HTTP on the agent's path: the standard library's client, kept connections, whole deadlines.

Each import here is paid for at every start in every pod: `requests` alone would add a third.
"""

from __future__ import annotations

import base64
import math
import select
import ssl
import time
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPMessage, IncompleteRead
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, unquote, urljoin, urlsplit

from msgspec import Struct

from certagent.sources.http.answers import MAX_BODY_BYTES, MAX_IDLE
from certagent.sources.http.deadline import Deadline, Dialer, tls_context
from certagent.sources.http.failures import (
    BodyTooLarge,
    NoConnection,
    ProxyFailed,
    RedirectRefused,
)
from certagent.sources.http.proxies import proxy_for

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping
    from http.client import HTTPResponse
    from urllib.parse import SplitResult

    from certagent.sources.http.deadline import TimedContext

MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 307, 308})
_PORTS = {"http": 80, "https": 443}
_AS_IT_IS = "!#$%&'()*+,/:;=?@[]~"
"""What stays in a URL that a redirect names: what is quoted already, and what has a meaning."""


class Answer(Struct, frozen=True):
    """What a server answered; the body is whole, and may hold a secret."""

    status: int
    headers: HTTPMessage
    body: bytes

    def __repr__(self) -> str:
        """Show no more than the status."""
        return f"Answer({self.status})"


class Trust(Struct, frozen=True):
    """Whom to trust, and who we are: PEM files, read at each connection.

    `ca` is a file or a directory, the system's where it is None; `identity` is a certificate and
    its key.
    """

    ca: str | None = None
    identity: tuple[str, str] | None = None


class Transport:
    """Requests to one server: always verified, no netrc, redirects as Vault's own client.

    Each request has `total` seconds, redirects and the reading of its body included, and `connect`
    for each connection. `HTTPS_PROXY` and `NO_PROXY` count, but not for loopback. The method, the
    body and the headers follow a redirect, as in Vault's `Client.rawRequestWithContext`
    (api/client.go); to http they follow only from http, and then to another host only with
    `plain_http`. Not for several threads at once.
    """

    def __init__(
        self, total: float, connect: float, trust: Trust, *, plain_http: bool = False
    ) -> None:
        self._total = total
        self._connect = connect
        self._trust = trust
        self._plain_http = plain_http
        self._used_at = -math.inf
        self._deadline = Deadline()
        self._dialer = Dialer(self._deadline)
        self._kept: dict[tuple[str, str], _Connection] = {}

    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        """Return the answer to a request, whatever its status.

        Raises `OSError` or `HTTPException`, and `BodyTooLarge`.
        """
        if time.monotonic() - self._used_at > MAX_IDLE:
            self.close()
        self._deadline.start(self._total)
        self._used_at = time.monotonic()
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._exchanged(method, urlsplit(url), headers, body)
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            url = self._target(url, location)
        raise RedirectRefused(f"more than {MAX_REDIRECTS} times")

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Give each request this many seconds, unless it has fewer anyway."""
        before, self._total = self._total, min(seconds, self._total)
        try:
            yield
        finally:
            self._total = before

    def close(self) -> None:
        """Drop the kept connections; the next request makes new ones."""
        for connection in self._kept.values():
            connection.close()
        self._kept.clear()

    def _exchanged(
        self, method: str, url: SplitResult, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        connection = self._connection(url)
        try:
            connection.request(method, connection.target(url), body, dict(headers))
            with connection.getresponse() as response:
                if response.status in _REDIRECTS and response.headers.get("Location"):
                    connection.close()  # its body is of no use, however long it is
                    return Answer(response.status, response.headers, b"")
                return Answer(response.status, response.headers, _bounded(response))
        except BaseException:
            connection.close()
            raise

    def _connection(self, url: SplitResult) -> _Connection:
        origin = (url.scheme, url.netloc)
        connection = self._kept.get(origin)
        if connection is None:
            if len(self._kept) > MAX_REDIRECTS:  # where former redirects led to, for ever elsewhere
                self.close()
            connection = _Connection(url, proxy_for(url.geturl()), self)
            self._kept[origin] = connection
        if connection.is_dropped:
            connection.close()
        return connection

    def _target(self, url: str, location: str) -> str:
        target = quote(urljoin(url, location), safe=_AS_IT_IS)
        here, there = urlsplit(url), urlsplit(target)
        plain = here.scheme == "http" and there.scheme == "http"
        known = self._plain_http or here.hostname == there.hostname
        if there.scheme == "https" or (plain and known):
            return target
        raise RedirectRefused("not to https, so it was not followed")

    def dialled(self, host: str, port: int) -> socket.socket:
        """Return a connected socket; raises `NoConnection` where that took too long."""
        try:
            return self._dialer.connect(host, port, self._connect)
        except TimeoutError as error:
            raise NoConnection(f"no connection within {self._connect} s") from error

    def secured(
        self, sock: socket.socket, name: str, *, inside: bool, identified: bool
    ) -> socket.socket:
        """Return a socket with TLS on it; `inside` another TLS, `identified` with our certificate.

        Raises `NoConnection` where the handshake took too long, and what ssl does.
        """
        context = self._context(identified=identified)
        try:
            if not inside:
                return context.wrap_socket(sock, server_hostname=name)
            # ssl speaks TLS on sockets of the system alone.
            from urllib3.util.ssltransport import SSLTransport  # noqa: PLC0415 - a rare case's

            return cast("socket.socket", SSLTransport(sock, context, name))
        except TimeoutError as error:
            raise NoConnection("no TLS connection in time") from error

    def _context(self, *, identified: bool) -> TimedContext:
        identity = self._trust.identity if identified and self._trust.identity else ()
        context = tls_context(self._deadline, self._trust.ca, identity)
        if identity:
            # Without the password of an encrypted key, OpenSSL would ask for it at the terminal.
            context.load_cert_chain(*identity, password="")
        return context


class _Connection(HTTPConnection):
    """A connection to a server, perhaps through a proxy; it is made at its first request."""

    def __init__(self, url: SplitResult, proxy: SplitResult | None, transport: Transport) -> None:
        self._url, self._proxy, self._transport = url, proxy, transport
        self.default_port = _PORTS[url.scheme]
        host, port = _place(url)
        if proxy is None:
            super().__init__(host, port)
            return
        super().__init__(*_place(proxy))
        if url.scheme == "https":
            self.set_tunnel(host, port, _basic("Proxy-Authorization", proxy))

    @property
    def is_dropped(self) -> bool:
        """Whether the other side has closed it, or speaks before it is asked."""
        if self.sock is None:
            return False
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return True  # deciphered already, so the system has nothing left to tell of
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def target(self, url: SplitResult) -> str:
        """Return what the request line names: a proxy of plain http wants all of it."""
        if self._proxy is not None and url.scheme == "http":
            return url._replace(netloc=url.netloc.rpartition("@")[2], fragment="").geturl()
        return f"{url.path or '/'}{'?' if url.query else ''}{url.query}"

    def connect(self) -> None:
        """Connect, through the proxy if there is one, and shake hands."""
        host, _ = _place(self._url)
        if self._proxy is None:
            self.sock = self._transport.dialled(self.host, self.port)
        else:
            self._connect_to_proxy(self._proxy)
        if self._url.scheme == "https":
            inside = self._proxy is not None and self._proxy.scheme == "https"
            self.sock = self._transport.secured(self.sock, host, inside=inside, identified=True)

    def _connect_to_proxy(self, proxy: SplitResult) -> None:
        try:
            self.sock = self._transport.dialled(self.host, self.port)
            if proxy.scheme == "https":
                self.sock = self._transport.secured(
                    self.sock, self.host, inside=False, identified=False
                )
            if self._url.scheme == "https":
                self._tunnel()  # type: ignore[attr-defined]  # what its own `connect` calls
        except (OSError, HTTPException) as error:
            raise ProxyFailed(str(error)) from error

    def putrequest(self, method: str, url: str, *args: bool, **kwargs: bool) -> None:
        """Begin a request, with the names and passwords that are in the URLs themselves."""
        super().putrequest(method, url, *args, **kwargs)
        headers = _basic("Authorization", self._url)
        if self._proxy is not None and self._url.scheme == "http":
            headers |= _basic("Proxy-Authorization", self._proxy)
        for name, value in headers.items():
            self.putheader(name, value)


def _place(url: SplitResult) -> tuple[str, int]:
    return url.hostname or "", url.port or _PORTS[url.scheme]


def _basic(header: str, url: SplitResult) -> dict[str, str]:
    """Return a header with the name and password in a URL (RFC 7617), if there are any."""
    if url.username is None:
        return {}
    pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return {header: f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _bounded(response: HTTPResponse) -> bytes:
    """Read a body to its end; one that says that it is too large is not read."""
    too_large = (response.length or 0) > MAX_BODY_BYTES
    body = b"" if too_large else response.read(MAX_BODY_BYTES + 1)
    if too_large or len(body) > MAX_BODY_BYTES:
        raise BodyTooLarge(MAX_BODY_BYTES)
    if response.length:
        # `read` with a size does not say so.
        raise IncompleteRead(b"", response.length)
    return body
