"""istiod as far as certagent can see it: a TLS server that signs its certificate with the CA."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.support.material import CA, private_key_pem

if TYPE_CHECKING:
    from pathlib import Path


class FakeIstiod:
    """Serves on loopback; each handshake is answered with a leaf of the CA that it has read.

    One that `reloads` reads the directory anew for every connection, another at `start` alone.
    """

    def __init__(self, directory: Path, *, reloads: bool) -> None:
        self._directory = directory
        self._reloads = reloads
        self._context: ssl.SSLContext | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def start(self) -> None:
        """Read the set, as istiod does at its start."""
        certificate = x509.load_pem_x509_certificate((self._directory / "ca-cert.pem").read_bytes())
        key = load_pem_private_key((self._directory / "ca-key.pem").read_bytes(), None)
        leaf = CA(certificate, key).workload_leaf(dns=("istiod.istio-system.svc",))
        pem = self._directory.with_name("istiod.pem")
        pem.write_bytes(leaf.pem + private_key_pem(leaf.key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self._context = context

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                if self._context is not None and self._reloads:
                    self.start()
                if self._context is not None:
                    self._context.wrap_socket(connection, server_side=True).close()
