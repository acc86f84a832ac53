"""Sockets whose whole time is bounded, while headers or a body drip byte by byte.

The timeouts of HTTP clients bound each read, not the sum of them. Here every socket asks the
request's `Deadline` before each operation how long it may take. So no thread watches, no signal
interrupts, and the same holds for TLS handshakes, for proxies and for TLS within TLS.
"""

from __future__ import annotations

import math
import os
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import ReadableBuffer, WriteableBuffer


class Deadline:
    """The moment by which the request in flight must be done."""

    def __init__(self) -> None:
        self._end = math.inf

    def start(self, seconds: float) -> None:
        """Give the next request this many seconds."""
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds that are left, over zero; raises `TimeoutError` when none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request's time is over")
        return left


class TimedSocket(socket.socket):
    """A socket none of whose operations outlasts the deadline."""

    deadline: Deadline

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Receive in the time that is left; so do all of its operations."""
        self.settimeout(self.deadline.remaining())
        return super().recv(bufsize, flags)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Receive, as `recv` does."""
        self.settimeout(self.deadline.remaining())
        return super().recv_into(buffer, nbytes, flags)

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """Send, as `recv` does."""
        self.settimeout(self.deadline.remaining())
        return super().send(data, flags)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """Send, as `recv` does."""
        self.settimeout(self.deadline.remaining())
        super().sendall(data, flags)


class _TimedTLSSocket(TimedSocket, ssl.SSLSocket):  # type: ignore[misc]  # other parameter names
    """The same over TLS: to OpenSSL the many reads of a record or a handshake are one operation."""

    @property
    def deadline(self) -> Deadline:  # type: ignore[override]  # it is the context's, made before
        return cast("TimedContext", self.context).deadline

    def do_handshake(self, block: bool = False) -> None:
        self.settimeout(min(self.gettimeout() or math.inf, self.deadline.remaining()))
        super().do_handshake(block)


class TimedContext(ssl.SSLContext):
    """What ssl makes for clients: names and chains are verified; TLS 1.2 at least."""

    sslsocket_class = _TimedTLSSocket
    deadline: Deadline


def tls_context(deadline: Deadline, ca: str | None, others: Iterable[str] = ()) -> TimedContext:
    """Return a context that trusts the authorities in `ca`, or the system's where it is None.

    `ca` is a PEM file or a directory (`c_rehash`). Those that come with Python packages (certifi)
    know no company's own. Raises `OSError` that names a file of these or `others` which cannot be
    read: ssl itself does not say which it could not open.
    """
    context = TimedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.deadline = deadline
    is_directory = ca is not None and os.path.isdir(ca)  # noqa: PTH112 - they are plain names
    for path in others if is_directory else filter(None, (ca, *others)):
        open(path, "rb").close()  # noqa: PTH123 - likewise
    if is_directory:
        context.load_verify_locations(capath=ca)
    elif ca:
        context.load_verify_locations(ca)
    else:
        context.load_default_certs()
    return context


class _Lookup(threading.Thread):
    """A name resolution: getaddrinfo(3) takes no deadline, so it runs beside the request."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(name=f"resolve {host}", daemon=True)
        self.question = (host, port)
        self._answer: list[Any] = []
        self._failure: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._answer = socket.getaddrinfo(*self.question, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            self._failure = error

    def answer(self) -> list[Any]:
        """Return the addresses of a look-up that is done; raises what it met."""
        if self._failure is not None:
            raise self._failure
        return self._answer


class Dialer:
    """Opens timed sockets; a look-up that hangs is waited for again, so that none pile up."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._pending: _Lookup | None = None

    def connect(self, host: str, port: int, timeout: float) -> TimedSocket:
        """Return a connected socket, the first of the host's addresses that takes one.

        The look-up and each address have `timeout` seconds, and never more than the request. Raises
        what getaddrinfo and connect do, and `TimeoutError`.
        """
        failure = OSError("the name has no address")
        for family, kind, protocol, _, address in self._resolved(host, port, timeout):
            sock = TimedSocket(family, kind, protocol)
            try:
                sock.settimeout(self._patience(timeout))
                sock.connect(address)
                # Or the second packet of a request waits for the acknowledgement of the first.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                sock.close()
                failure = error
            else:
                sock.deadline = self._deadline
                return sock
        raise failure

    def _resolved(self, host: str, port: int, timeout: float) -> list[Any]:
        lookup = self._pending
        if lookup is None or lookup.question != (host, port):
            lookup = self._pending = _Lookup(host, port)
        lookup.join(self._patience(timeout))
        if lookup.is_alive():
            raise TimeoutError("the name was not resolved in time")
        self._pending = None
        return lookup.answer()

    def _patience(self, timeout: float) -> float:
        return min(timeout, self._deadline.remaining())
