"""A server on loopback that misbehaves on purpose: what a real one cannot be made to do."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable


class Asked(NamedTuple):
    """A request that the server has read."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def answer(status: int, body: object = None, **headers: str) -> bytes:
    """Return a whole HTTP answer; `body` is JSON unless it is bytes."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} status", f"Content-Length: {len(data)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + data


class ScriptedServer:
    """Calls `script(asked, connection)` for each request, each on a connection of its own.

    The script returns the bytes to send, or sends them itself; `stopping` tells it to end.
    """

    def __init__(
        self,
        script: Callable[[Asked, socket.socket], bytes | None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._script = script
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.address = f"{'https' if tls else 'http'}://localhost:{self.port}"
        self.asked: list[Asked] = []
        self.stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def drip(self, connection: socket.socket, data: bytes, every: float = 0.05) -> None:
        """Send byte by byte until the other side goes away."""
        for byte in data:
            if self.stopping.wait(every):
                return
            connection.sendall(bytes([byte]))

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
            connection.settimeout(10)
            self._begin(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as stream:
                asked = self._read(stream)
                if asked is not None:
                    self.asked.append(asked)
                    data = self._script(asked, connection)
                    if data is not None:
                        connection.sendall(data)

    @staticmethod
    def _read(stream: socket.SocketIO) -> Asked | None:
        method, _, rest = stream.readline().decode("latin-1").partition(" ")
        if not rest:
            return None
        headers: dict[str, str] = {}
        while line := stream.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", 0)))
        return Asked(method, rest.split(" ")[0], headers, body)
