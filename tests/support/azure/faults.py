"""What goes wrong between a client and Azure, on purpose.

azure.faults.inject(answers(429, throttled(), Retry_After="8"), path="/secrets/ca-key", times=2)
azure.faults.inject(hangs, to="entra")
azure.faults.inject(afterwards(resets), method="PUT")    # done, but the answer is lost
azure.faults.inject(meanwhile(lambda: vault.set("ca-cert", new)), path="/secrets/ca-key")
azure.faults.inject(hangs, to="vault", method="CONNECT")  # packets that a firewall drops
"""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.azure.wire import Reply, reset

if TYPE_CHECKING:
    import socket
    import threading
    from collections.abc import Callable


@dataclass
class Exchange:
    """A request that has arrived; `status` is None until it is answered, if it ever is.

    `to` is the kind of host: entra, vault, imds, appService, or elsewhere. `at` is when, in
    seconds of the wall clock, as files have it.
    """

    to: str
    host: str
    method: str
    path: str
    status: int | None = None
    at: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Call:
    """A request in a fault's hands; `proceed` does what was asked, and returns the answer."""

    connection: socket.socket
    proceed: Callable[[], Reply]
    stopping: threading.Event
    path: str = ""

    def drip(self, data: bytes, every: float) -> None:
        """Send byte by byte, `every` seconds, until the other side goes away."""
        for byte in data:
            if self.stopping.wait(every):
                return
            self.connection.sendall(bytes([byte]))


if TYPE_CHECKING:
    How = Callable[[Call], Reply | None]


def answers(status: int, body: object = b"", **headers: str) -> How:
    """Answer this, and do nothing; `Retry_After` is the header Retry-After."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Reply(status, body, given)


def redirects(address: str) -> How:
    """Send the client to the same place at another address."""
    return lambda call: Reply(307, b"", {"Location": address + call.path})


def hangs(call: Call) -> None:
    """Never answer."""
    with contextlib.suppress(OSError):
        call.connection.recv(1)


def resets(call: Call) -> None:
    """Break the connection with RST."""
    reset(call.connection)


def closes(call: Call) -> None:
    """End the connection, in an orderly way, without an answer."""


def halves(call: Call) -> None:
    """Do it, and send all but the last half of the answer's body."""
    head, _, body = bytes(call.proceed()).partition(b"\r\n\r\n")
    call.connection.sendall(head + b"\r\n\r\n" + body[: len(body) // 2])


def floods(size: int = 100 << 20) -> How:
    """Send a body of so many bytes, or as many of them as the other side takes."""

    def fault(call: Call) -> None:
        call.connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        block = b" " * (1 << 20)
        for _ in range(size // len(block)):
            call.connection.sendall(block)

    return fault


def drips(every: float = 0.05) -> How:
    """Do it, and send the answer byte by byte, `every` seconds."""
    return lambda call: call.drip(bytes(call.proceed()), every)


def afterwards(how: How) -> How:
    """Do what was asked; then the fault, in place of the answer."""

    def fault(call: Call) -> Reply | None:
        call.proceed()
        return how(call)

    return fault


def meanwhile(action: Callable[[], object]) -> How:
    """Something else happens just before what was asked is done, and answered."""

    def fault(call: Call) -> Reply:
        action()
        return call.proceed()

    return fault


@dataclass
class Fault:
    """Where one strikes; `times` is how often it still will, None for always."""

    how: How = field(repr=False)
    to: str
    method: str | None
    path: str
    times: int | None

    def strikes(self, exchange: Exchange) -> bool:
        """Whether it does, here; without a method, wherever the connection stands already."""
        right_method = (
            exchange.method != "CONNECT" if self.method is None else exchange.method == self.method
        )
        return (
            self.times != 0
            and exchange.to == self.to
            and right_method
            and re.search(self.path, exchange.path) is not None
        )


class Faults:
    """Those that wait for their requests: the first that fits one strikes."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def inject(
        self,
        how: How,
        *,
        to: str = "vault",
        method: str | None = None,
        path: str = "",
        times: int | None = 1,
    ) -> Fault:
        """Let it strike requests to a kind of host whose path the expression is found in."""
        fault = Fault(how, to, method, path, times)
        self._waiting.append(fault)
        return fault

    def clear(self) -> None:
        """Let nothing go wrong any more."""
        self._waiting.clear()

    def strike(self, exchange: Exchange) -> How | None:
        """Return what is to go wrong with this one."""
        for fault in self._waiting:
            if fault.strikes(exchange):
                if fault.times is not None:
                    fault.times -= 1
                return fault.how
        return None
