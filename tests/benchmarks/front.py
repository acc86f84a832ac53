"""A front before a server, as a load balancer is: it may lead elsewhere, or reset who comes."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from threading import Thread
from typing import Self

_RESET = struct.pack("ii", 1, 0)
"""`SO_LINGER` with no time at all: closing resets (RFC 9293, section 3.5.2)."""


class Front:
    """Hands connections on to a port of loopback; `arrivals` are when they came (monotonic)."""

    def __init__(self, port: int) -> None:
        self.arrivals: list[float] = []
        self._port: int | None = port
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._accepting = Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(10)
        self._listener.close()
        self.lead(None)

    def lead(self, port: int | None) -> None:
        """Hand new connections on to another port, or to none; end those that there are."""
        self._port = port
        for connection in self._open.copy():
            with contextlib.suppress(OSError):  # it may be gone
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.arrivals.append(time.monotonic())
            try:
                server = self._connected()
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                client.close()
                continue
            self._open |= {client, server}
            for pair in ((client, server), (server, client)):
                Thread(target=self._pump, args=pair, daemon=True).start()

    def _connected(self) -> socket.socket:
        if self._port is None:
            raise ConnectionRefusedError
        server = socket.create_connection(("127.0.0.1", self._port))
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.discard(source)
        source.close()
