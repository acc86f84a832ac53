"""Connections whose whole time is bounded, while headers or a body drip byte by byte.

The timeouts of requests bound each read, not the sum of them. Here every socket asks the
request's `Deadline` before each operation how long it may take. So no thread watches, no signal
interrupts, and the same holds for TLS handshakes, for proxies and for TLS within TLS.
"""

from __future__ import annotations

import math
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, cast

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

if TYPE_CHECKING:
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


class _TimedSocket(socket.socket):
    """A socket none of whose operations outlasts the deadline."""

    deadline: Deadline

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        self.settimeout(self.deadline.remaining())
        return super().recv(bufsize, flags)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        self.settimeout(self.deadline.remaining())
        return super().recv_into(buffer, nbytes, flags)

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        self.settimeout(self.deadline.remaining())
        return super().send(data, flags)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        self.settimeout(self.deadline.remaining())
        super().sendall(data, flags)


class _TimedTLSSocket(_TimedSocket, ssl.SSLSocket):  # type: ignore[misc]  # other parameter names
    """The same over TLS: to OpenSSL the many reads of a record or a handshake are one operation."""

    @property
    def deadline(self) -> Deadline:  # type: ignore[override]  # it is the context's, made before
        return cast("_Context", self.context).deadline

    def do_handshake(self, block: bool = False) -> None:
        self.settimeout(min(self.gettimeout() or math.inf, self.deadline.remaining()))
        super().do_handshake(block)


class _Context(ssl.SSLContext):
    """What ssl makes for clients: names and chains are verified; TLS 1.2 at least."""

    sslsocket_class = _TimedTLSSocket
    deadline: Deadline


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


class Resolver:
    """Resolves names; one that hangs is waited for again, so that threads do not pile up."""

    def __init__(self) -> None:
        self._pending: _Lookup | None = None

    def resolve(self, host: str, port: int, within: float) -> list[Any]:
        """Return the addresses as getaddrinfo does; raises what it does, and `TimeoutError`."""
        lookup = self._pending
        if lookup is None or lookup.question != (host, port):
            lookup = self._pending = _Lookup(host, port)
        lookup.join(within)
        if lookup.is_alive():
            raise TimeoutError("the name was not resolved in time")
        self._pending = None
        return lookup.answer()


class TimedConnection(HTTPConnection):
    """A connection made of timed sockets."""

    def __init__(
        self,
        deadline: Deadline,
        resolver: Resolver,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._deadline = deadline
        self._resolver = resolver

    def _new_conn(self) -> socket.socket:
        try:
            return self._connected()
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"no connection within {self.timeout} s") from error
        except OSError as error:
            raise NewConnectionError(self, f"no connection: {error}") from error

    def _connected(self) -> socket.socket:
        within = self._patience()
        addresses = self._resolver.resolve(self._dns_host.strip("[]"), self.port, within)
        failure = OSError("the name has no address")
        for family, kind, protocol, _, address in addresses:
            sock = _TimedSocket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(self._patience())
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
            else:
                sock.deadline = self._deadline
                return sock
        raise failure

    def _patience(self) -> float:
        return min(cast("float", self.timeout), self._deadline.remaining())


class TimedTLSConnection(TimedConnection, HTTPSConnection):
    """The same over TLS; the files of the CA and of the client are read at each connect."""

    def connect(self) -> None:
        """Connect and shake hands, with a proxy too if there is one."""
        self.ssl_context = self._context()
        if self.proxy_config is not None:
            self.proxy_config = self.proxy_config._replace(ssl_context=self._context())
        try:
            super().connect()
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "no TLS connection in time") from error

    def _context(self) -> _Context:
        context = _Context(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.deadline = self._deadline
        for path in filter(None, (self.ca_certs, self.cert_file, self.key_file)):
            # ssl does not say which file it could not open.
            with open(path, "rb"):  # noqa: PTH123 - likewise, and it is a plain name
                pass
        if self.ca_certs or self.ca_cert_dir:
            context.load_verify_locations(self.ca_certs, self.ca_cert_dir)
        else:
            context.load_default_certs()
        return context
