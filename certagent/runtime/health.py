"""Probes and metrics over HTTP, from a thread that can only read.

Who may connect is the cluster's network, so nobody is trusted to be quick: a request has
`REQUEST_SECONDS` and `REQUEST_BYTES` as a whole, however it drips, and its connection is closed
after the answer. A few are served at a time, each in a daemon thread of its own, so that a client
that hangs does not fail the kubelet's probe; who comes while all are taken is turned away.

Import this module where the server starts: `http.server` is not for those who do not serve.
"""

from __future__ import annotations

import errno
import logging
import socket
import socketserver
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

from certagent.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from certagent.runtime.status import AgentStatus

REQUEST_SECONDS = 2.0
"""Seconds for a client to send its request, and as long again to take the answer."""

REQUEST_BYTES = 8192
"""Bytes of a request's line and headers."""

CONNECTIONS = 16
"""Requests that are served at the same time."""

SERVER = "certagent"
"""The `Server` header of every answer."""

_PLAIN = "text/plain; charset=utf-8"
_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
_HIGHEST_PORT = 65535
_STOP_POLL = 0.2  # seconds for which `close` may have to wait

_log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """What a path answers."""

    status: HTTPStatus
    body: bytes
    content_type: str = _PLAIN


def livez(status: AgentStatus, now: float) -> Answer:
    """Answer whether the loop advances; `now` is monotonic, in seconds.

    A store that is down does not count: restarting the agent would not bring it back.
    """
    late = now - status.turned_at - status.turn_due_within
    if late <= 0:
        return Answer(HTTPStatus.OK, b"ok\n")
    reason = f"the loop last turned {now - status.turned_at:.0f} s ago, and is {late:.0f} s late\n"
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, reason.encode())


def readyz(status: AgentStatus) -> Answer:
    """Answer whether every required bundle stands published, and name those that do not."""
    if status.ready:
        return Answer(HTTPStatus.OK, b"ok\n")
    missing = [bundle.name for bundle in status.bundles if bundle.required and not bundle.ready]
    reason = f"not published: {', '.join(missing)}\n"
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, reason.encode())


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`; no host means all, an IPv6 one stands in brackets.

    Raises `ConfigurationError`.
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    numeric = port.isascii() and port.isdigit() and len(port) <= len(str(_HIGHEST_PORT))
    known = colon and numeric and int(port) <= _HIGHEST_PORT
    if not known or (":" in host and not bracketed):
        raise ConfigurationError(
            f"{address!r} is not an address for probes and metrics.",
            hint="Write HOST:PORT, :PORT for all interfaces, or [::1]:PORT for an IPv6 host.",
        )
    return (host[1:-1] if bracketed else host), int(port)


class HealthServer:
    """Answers `/livez`, `/readyz` and `/metrics`, from construction until `close`.

    `address` is `HOST:PORT`; port 0 takes a free one, which the attribute `address` then tells.
    `status` returns the agent's present state, `metrics` its exposition. Raises
    `ConfigurationError` where the address cannot be understood, or not be listened on.
    """

    def __init__(
        self, address: str, status: Callable[[], AgentStatus], metrics: Callable[[], bytes]
    ) -> None:
        def answer(path: str) -> Answer:
            match path:
                case "/livez":
                    return livez(status(), time.monotonic())
                case "/readyz":
                    return readyz(status())
                case "/metrics":
                    return Answer(HTTPStatus.OK, metrics(), _EXPOSITION)
                case _:
                    return Answer(HTTPStatus.NOT_FOUND, b"there are /livez, /readyz, /metrics\n")

        listener = listen(address)
        host, port = listener.getsockname()[:2]
        self.address: tuple[str, int] = (host, port)
        self._server = _Server(listener, answer)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_STOP_POLL,), name="health", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening; a request that is being answered ends by itself."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def listen(address: str) -> socket.socket:
    """Return a socket that listens on `HOST:PORT`; raises `ConfigurationError`."""
    host, port = parse_address(address)
    try:
        return _listen_on(host, port) if host else _listen_on_all(port)
    except (OSError, ValueError) as error:
        # A host's name can be wrong in ways that are no OSError: a NUL, an empty label.
        reason = getattr(error, "strerror", None) or str(error)
        # `socket.create_server` repeats the address in brackets.
        reason = reason.partition(" (while")[0]
        raise ConfigurationError(
            f"Cannot listen on {address!r} for probes and metrics: {reason}.",
            hint="Perhaps another container of the pod has it: set server.address to a free one.",
        ) from error


def _listen_on(host: str, port: int) -> socket.socket:
    family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(where[:2], family=family)


def _listen_on_all(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            # The kernel knows IPv6, and this pod's network has it switched off.
            if error.errno != errno.EADDRNOTAVAIL:
                raise
    return socket.create_server(("", port))


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves `CONNECTIONS` at a time from a socket that listens already."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, answer: Callable[[str], Answer]) -> None:
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.answer = answer
        self._free = threading.BoundedSemaphore(CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - likewise
        """Make no noise: the client was too slow, or has gone."""
        _log.debug("a request for a probe was not completed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request, in plain text, without saying what serves it."""

    server: _Server

    def setup(self) -> None:
        head = _head(self.request)
        self.request.settimeout(REQUEST_SECONDS)
        super().setup()
        # What is parsed lies in memory: the parser can neither wait nor read without end.
        self.rfile = BytesIO(head)

    def do_GET(self) -> None:
        try:
            answer = self.server.answer(self.path.partition("?")[0])
        except Exception:  # noqa: BLE001 - a bug here must not look like a dead agent
            _log.exception("a probe could not be answered")
            answer = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"see the log of certagent\n")
        self._send(answer)

    do_HEAD = do_GET  # noqa: N815 - as http.server calls it

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def send_error(
        self,
        code: int,
        message: str | None = None,  # noqa: ARG002 - http.server's own; it may quote the request
        explain: str | None = None,  # noqa: ARG002 - likewise
    ) -> None:
        """Answer what cannot be parsed, or asks for a method that does not exist here."""
        status = HTTPStatus(code)
        if status is HTTPStatus.NOT_IMPLEMENTED:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self._send(Answer(status, f"{status.phrase.lower()}\n".encode()))

    def version_string(self) -> str:
        return SERVER

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's own
        _log.debug(format, *args)


def _head(connection: socket.socket) -> bytes:
    """Return a request's line and headers, read within `REQUEST_SECONDS` however they drip.

    Raises `TimeoutError`, or another `OSError` where the client breaks off or sends too much.
    """
    deadline = time.monotonic() + REQUEST_SECONDS
    head = b""
    while b"\r\n\r\n" not in head and b"\n\n" not in head:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        received = connection.recv(REQUEST_BYTES)
        head += received
        if not received:
            raise ConnectionError("the client closed before it had asked")
        if len(head) > REQUEST_BYTES:
            raise ConnectionError("the client sent too much")
    return head
