"""What stands in front of a real OpenBao, and misbehaves on purpose.

    with FrontDoor(openbao, tls) as door:            # door.url, in TLS
        door.faults.inject(answers(503), times=None)
        door.present("expired")
        door.mend()

It passes each request on, as it is, to the server behind it, and notes it in `exchanges`. The
faults are those of `tests.support.azure.faults`.
"""

from __future__ import annotations

import http.client
import threading
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import urlencode

from tests.support.azure.faults import Call, Exchange, Faults
from tests.support.azure.wire import Front, Reply, Request

if TYPE_CHECKING:
    import socket
    import ssl

    from tests.support.openbao import OpenBao
    from tests.support.tls import Certificate, TLSAuthority

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})

Shown = Literal["good", "untrusted", "wrong name", "expired", "no handshake"]


class FrontDoor:
    """One server's address, from `with` to its end."""

    def __init__(self, openbao: OpenBao, authority: TLSAuthority, name: str = "front") -> None:
        self.faults = Faults()
        self.exchanges: list[Exchange] = []
        self._openbao = openbao
        self._authority = authority
        self._name = name
        self._contexts: dict[Certificate, ssl.SSLContext] = {}
        self._shown: Shown = "good"
        self._lock = threading.Lock()
        self._front = Front(self._respond, self._context)

    def __enter__(self) -> Self:
        self._front.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._front.__exit__()

    @property
    def url(self) -> str:
        """Where clients find the server."""
        return self._front.url

    @property
    def accepted(self) -> int:
        """How many connections there were."""
        return self._front.accepted

    def present(self, shown: Shown) -> None:
        """Show this certificate from now on, to those too who are connected already."""
        self._shown = shown
        self._front.cut()

    def mend(self) -> None:
        """Let nothing go wrong any more."""
        self.faults.clear()
        self._shown = "good"

    def _context(self, _: str) -> ssl.SSLContext:
        shown = self._shown
        if shown == "no handshake":
            raise ConnectionAbortedError
        with self._lock:
            if shown not in self._contexts:
                self._contexts[shown] = self._authority.showing(shown, self._name)
            return self._contexts[shown]

    def _respond(self, request: Request, connection: socket.socket) -> Reply | None:
        path = f"{request.path}?{urlencode(request.query)}" if request.query else request.path
        exchange = Exchange("vault", request.host, request.method, path)

        def proceed() -> Reply:
            reply = self._passed_on(request, path)
            exchange.status = reply.status
            return reply

        with self._lock:
            self.exchanges.append(exchange)
            how = self.faults.strike(exchange)
        if how is None:
            return proceed()
        reply = how(Call(connection, proceed, self._front.stopping, path))
        if reply is not None:
            exchange.status = reply.status
        return reply

    def _passed_on(self, request: Request, path: str) -> Reply:
        sent = {name: text for name, text in request.headers.items() if name not in _HOP_BY_HOP}
        behind = http.client.HTTPConnection("127.0.0.1", self._openbao.port, timeout=10)
        try:
            behind.request(request.method, path, request.body, sent)
            answer = behind.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            return Reply(502)
        finally:
            behind.close()
        headers = {
            name: text for name, text in answer.headers.items() if name.lower() not in _HOP_BY_HOP
        }
        return Reply(answer.status, body, headers)
