"""A forward proxy on loopback that is itself every host behind it.

`CONNECT host:443` is answered here, and TLS begins on the same connection with that host's
certificate; plain `http://` requests are taken in the absolute form that clients send to a proxy,
and in the origin form. Every reply leaves in one write.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.client import parse_headers, responses
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, parse_qsl, urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from io import BufferedReader

IDLE = 60.0
"""Seconds after which a connection ends on which nothing happens."""


@dataclass(frozen=True)
class Request:
    """A request that has been read; `headers` in lower case, `host` without its port."""

    host: str
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)

    @property
    def form(self) -> dict[str, str]:
        """The fields of a form that was posted."""
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}

    @property
    def json(self) -> dict[str, Any]:
        """The object that was sent."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """An answer; `body` is JSON unless it is bytes."""

    status: int
    body: object = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)

    def __bytes__(self) -> bytes:
        data = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Content-Length": str(len(data)),
            **self.headers,
        }
        lines = [f"HTTP/1.1 {self.status} {responses.get(self.status, 'status')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + data


class Refused(Exception):
    """What a service says instead of doing what was asked."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


class Proxy:
    """Listens from `with` to its end; `respond(request, connection)` answers each request.

    It returns the reply, or None where it has dealt with the connection itself: that ends then.
    A CONNECT that it answers with 200 goes on in TLS, in the context that `tls(host)` returns.
    """

    def __init__(
        self,
        respond: Callable[[Request, socket.socket], Reply | None],
        tls: Callable[[str], ssl.SSLContext],
    ) -> None:
        self._respond = respond
        self._tls = tls
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.stopping = threading.Event()
        self.accepted = 0
        """How many connections there were."""

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def cut(self) -> None:
        """End every connection, so that the next request needs another one."""
        for used in self._open.copy():
            with contextlib.suppress(OSError):
                # Not the TLS layer's own, which another thread may be reading through.
                socket.socket.shutdown(used, socket.SHUT_RDWR)

    def _begin(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            connection.settimeout(IDLE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._begin(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        # Whoever goes away, or does not like our certificate, is none of our errors.
        with contextlib.suppress(OSError), self._held(connection):
            host = self._converse(connection, "")
            if host:
                context = self._tls(host)
                with self._held(context.wrap_socket(connection, server_side=True)) as secured:
                    self._converse(secured, host)

    def _converse(self, connection: socket.socket, host: str) -> str:
        """Answer until the client goes away, or asks for a tunnel: return the host at its end."""
        with connection.makefile("rb") as stream:
            while (request := read(stream, host)) is not None:
                reply = self._respond(request, connection)
                if reply is None:
                    return ""
                if request.method == "CONNECT" and reply.status == 200:
                    connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    return request.host
                connection.sendall(bytes(reply))
        return ""

    @contextlib.contextmanager
    def _held(self, connection: socket.socket):
        self._open.add(connection)
        try:
            with connection:
                if self.stopping.is_set():
                    raise ConnectionAbortedError
                yield connection
        finally:
            self._open.discard(connection)


class Front(Proxy):
    """A server of its own at `url`, in TLS from the start, with the context that `tls` returns.

    The context may be raised as an `OSError` instead: then a connection ends before its handshake.
    """

    @property
    def url(self) -> str:
        """Where clients find it."""
        return self.address.replace("http://127.0.0.1", "https://localhost")

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), self._held(connection):
            context = self._tls("localhost")
            with self._held(context.wrap_socket(connection, server_side=True)) as secured:
                self._converse(secured, "localhost")


def read(stream: BufferedReader, host: str) -> Request | None:
    """Read one request, of a tunnel to `host` if there is one; None where the client has gone."""
    words = stream.readline(65537).decode("latin-1").split()
    if len(words) != 3:
        return None
    method, target, _ = words
    headers = {name.lower(): value for name, value in parse_headers(stream).items()}
    body = stream.read(int(headers.get("content-length", 0)))
    if method == "CONNECT":
        return Request(target.partition(":")[0].lower(), method, target, {}, headers)
    url = urlsplit(target)
    host = host or url.hostname or headers.get("host", "").partition(":")[0]
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    return Request(host, method, url.path, query, headers, body)


def reset(connection: socket.socket) -> None:
    """End a connection as one whose other side has crashed does: with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
