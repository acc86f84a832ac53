"""What a TLS server on the pod's loopback shows, whoever signed it, in bounded time.

Import this module where confirmation is configured: `ssl` is not for those who do without.
"""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass

from certagent.config.loopback import is_loopback
from certagent.errors import ConfigurationError

ATTEMPT_SECONDS = 1.0
"""Seconds that one look may take, however the server hangs or drips."""

_HIGHEST_PORT = 65535

_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})
"""What OpenSSL says when the first bytes of the answer are no TLS record."""


class Unanswered(Exception):
    """The server showed no certificate; the one argument says why."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Where the reader serves: a numeric loopback address, a port, and the SNI.

    `within` is how many seconds it has to take a set.
    """

    host: str
    port: int
    server_name: str = ""
    within: float = 30.0

    @classmethod
    def at(cls, address: str, server_name: str = "", within: float = 30.0) -> Reader:
        """Read `HOST:PORT`; raises `ConfigurationError`, also for what is not on loopback.

        A server name that ssl does not take is refused too, here and not in the loop.

        Over a network, somebody else could answer, and confirm what nobody took; and a name has
        several addresses, each of which could hang.
        """
        host, _, port = address.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        numeric = port.isascii() and port.isdigit() and 0 < int(port[:9]) <= _HIGHEST_PORT
        local = is_loopback(host) and host != "localhost"
        if not (numeric and local and bracketed == (":" in host)):
            raise ConfigurationError(
                f"{address!r} is not an address to confirm a set at.",
                hint="Write 127.0.0.1:PORT or [::1]:PORT: the reader is in the same pod.",
            )
        try:
            _context().wrap_bio(
                ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=server_name or None
            )
        except (ValueError, TypeError):
            raise ConfigurationError(
                f"{server_name!r} is not a server name to confirm a set by.",
                hint="Write the host that the Gateway serves, such as shop.example.com.",
            ) from None
        return cls(host, int(port), server_name, within)

    @property
    def address(self) -> str:
        """The address as it is written."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def handshake(reader: Reader) -> bytes:
    """Return the DER of the certificate that the reader serves.

    Connection and handshake together take `ATTEMPT_SECONDS` at most: ssl bounds a handshake as a
    whole, also one that drips. Raises `Unanswered`.
    """
    until = time.monotonic() + ATTEMPT_SECONDS
    try:
        connection = socket.create_connection((reader.host, reader.port), ATTEMPT_SECONDS)
    except ConnectionRefusedError:
        raise Unanswered("refused the connection") from None
    except OSError as error:
        raise Unanswered(f"cannot be connected to: {error.strerror or error}") from None
    with connection:
        connection.settimeout(max(0.001, until - time.monotonic()))
        try:
            with _context().wrap_socket(
                connection, server_hostname=reader.server_name or None
            ) as secured:
                der = secured.getpeercert(binary_form=True)
        except OSError as error:
            raise Unanswered(_explained(error)) from None
    if not der:
        raise Unanswered("showed no certificate")
    return der


def _context() -> ssl.SSLContext:
    """Return a context that takes any certificate: the comparison is what verifies here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def _explained(error: OSError) -> str:
    """Say in a few words why a handshake failed."""
    match error:
        case TimeoutError():
            return f"hangs: it took the connection, and no handshake in {ATTEMPT_SECONDS:g} s"
        case ssl.SSLEOFError() | ConnectionResetError() | BrokenPipeError():
            return "broke the connection off in the handshake"
        case ssl.SSLError(reason=reason) if reason in _NOT_TLS:
            return f"does not speak TLS ({reason})"
        case ssl.SSLError(reason=reason):
            return f"refused the handshake ({reason})"
        case _:
            return f"failed in the handshake: {error.strerror or error}"
