"""Agents that publish what a real OpenBao issues, and a proxy that records what they ask."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.support.process import certagent, published
from tests.support.scripted import ScriptedServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.openbao import OpenBao

SIGN = "root/sign-intermediate"


@dataclass
class Pods:
    """A PKI mount of its own, and agents that publish what it issues."""

    openbao: OpenBao
    mount: str
    directory: Path
    token: str
    address: str
    numbers: count = field(default_factory=count)

    @classmethod
    def on(cls, openbao: OpenBao, directory: Path) -> Pods:
        """Mount an engine with the root A, for a token of the policy that the docs state."""
        mount = openbao.pki()
        openbao.issuer(mount, "A")
        policy = openbao.policy_of(
            **{
                f"{mount}/issuers": "list",
                f"{mount}/issuer/+/json": "read",
                f"{mount}/{SIGN}": "update",
                f"{mount}/issuer/+/sign-intermediate": "update",
            }
        )
        return cls(openbao, mount, directory, openbao.create_token(policy), openbao.address)

    def config(self, *, ttl: str = "720h", more: str = "", **source: object) -> Path:
        """Write a configuration; `more` are further top-level lines."""
        wanted = {"mount": self.mount, "ttl": ttl, "commonName": "Mesh CA", "keyType": "ec-p256"}
        bundle = {
            "name": "istiod-ca",
            "source": {"vaultPKI": {**wanted, **source}},
            "output": {"directory": str(self.directory / "ca")},
        }
        path = self.directory / f"certagent-{next(self.numbers)}.yaml"
        path.write_text(f"bundles: [{json.dumps(bundle)}]\n{more}")
        return path

    @property
    def environ(self) -> dict[str, object]:
        return {
            "VAULT_ADDR": self.address,
            "VAULT_TOKEN": self.token,
            "CERTAGENT_INTERVAL": "200ms",
            "CERTAGENT_INIT_DEADLINE": "300ms",
            "CERTAGENT_LOG_FORMAT": "json",
            "ISTIO_MULTIROOT_MESH": "true",
        }

    def init(self, config: Path | None = None, **environ: object):
        return certagent("init", "--config", config or self.config(), **{**self.environ, **environ})

    def files(self, name: str = "ca") -> dict[str, bytes]:
        return published(self.directory / name)

    def certificate(self, name: str = "ca") -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.files(name)["ca-cert.pem"])

    def state(self, name: str = "ca") -> tuple[str, str]:
        """The published signer's issuer and the roots, by common name: `A`, `AB`."""
        found = self.files(name)
        if not found:
            return "", ""
        roots = x509.load_pem_x509_certificates(found["root-cert.pem"])
        names = sorted(common_name(root.subject) for root in roots)
        return common_name(self.certificate(name).issuer), "".join(names)


def common_name(name: x509.Name) -> str:
    return name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


class Recorder(ScriptedServer):
    """A proxy before OpenBao that keeps every request, bodies included."""

    def __init__(self, pods: Pods) -> None:
        super().__init__(self._pass_on)
        self._pods = pods
        self._port = pods.openbao.port

    def __enter__(self):
        super().__enter__()
        self._pods.address = self.address
        return self

    @property
    def signed(self):
        return [asked for asked in self.asked if "sign" in asked.path]

    def _pass_on(self, asked, _):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        headers = {name: asked.headers[name] for name in asked.headers if name != "host"}
        try:
            connection.request(asked.method, asked.path, asked.body or None, headers)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        head = f"HTTP/1.1 {response.status} status\r\nContent-Length: {len(body)}\r\n"
        return f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode() + body
