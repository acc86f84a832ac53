"""One HTTP request whose answer's status is all that counts, within one deadline.

No client library: none bounds the whole time while an answer drips, and all cost more memory than
a hook is worth. Redirects are answers that are not 2xx; proxies are not used. Import this module
where a hook needs it.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from certagent.config.loopback import is_loopback
from certagent.errors import ConfigurationError

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r\n]")
_HEAD_BYTES = 8192  # of the status line, and whatever comes with it in the same packets


class NotHTTP(OSError):
    """What answered did not speak HTTP."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a request goes: `authority` is the URL's own, `target` its path and query."""

    host: str
    port: int
    tls: bool
    authority: str
    target: str


def endpoint(url: str) -> Endpoint:
    """Return the parts of an https:// URL, or of an http:// one on loopback.

    Raises `ConfigurationError`. A URL may not carry a user: it would stand in logs and in argv.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")  # as `socket` will
    except ValueError:
        raise _refused("it cannot be read") from None
    tls = parts.scheme == "https"
    if not (host and parts.scheme in ("http", "https") and url.isascii() and url.isprintable()):
        raise _refused("it is not http:// or https:// with a host, in ASCII")
    if parts.username is not None or parts.fragment or " " in url:
        raise _refused("it has a user, a fragment or a space")
    if not tls and not is_loopback(host):
        raise _refused(f"http://{host} is another machine")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Endpoint(host, port or (443 if tls else 80), tls, parts.netloc, target)


def _refused(reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"A hook's URL is refused: {reason}.",
        hint="Write https://HOST[:PORT]/PATH; http:// is taken for loopback only.",
    )


def send(to: Endpoint, method: str, body: bytes, timeout: float, ca_file: str = "") -> int:
    """Send a JSON body, and return the answer's status.

    All of it takes `timeout` seconds at most; but the look-up of a name has the resolver's own
    bound, and each address of a name that does not answer a timeout of its own. The server's
    certificate must verify by `ca_file`, or by the system's CAs. Raises `OSError`: also for TLS,
    time and what is not HTTP.
    """
    request = (
        f"{method} {to.target} HTTP/1.1\r\nHost: {to.authority}\r\nUser-Agent: certagent\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    )
    context = _context(ca_file) if to.tls else None
    until = time.monotonic() + timeout
    connection = socket.create_connection((to.host, to.port), timeout)
    try:
        connection.settimeout(_left(until))
        if context is not None:
            connection = context.wrap_socket(connection, server_hostname=to.host)
            connection.settimeout(_left(until))
        connection.sendall(request.encode("ascii") + body)
        return _status(connection, until)
    finally:
        connection.close()


def _context(ca_file: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        # ssl does not say which file it could not open.
        raise OSError(error.errno, f"{ca_file}: {error.strerror}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _status(connection: socket.socket, until: float) -> int:
    head = b""
    while not (line := _STATUS_LINE.match(head)):
        if b"\n" in head or len(head) > _HEAD_BYTES:
            raise NotHTTP("the answer is not HTTP/1")
        connection.settimeout(_left(until))
        received = connection.recv(_HEAD_BYTES)
        if not received:
            raise NotHTTP("the connection was closed before the answer")
        head += received
    return int(line[1])


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left
