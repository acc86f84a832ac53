"""A PKI mount in memory, whose clock a test turns: it answers as OpenBao's engine was seen to."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from certagent.sources.vault.client import VaultRefused
from tests.support.material import CA, NOW, cert_pem, make_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime


@dataclass
class Entry:
    """One issuer of the mount."""

    id: str
    name: str
    ca: CA
    has_key: bool = True
    root_is_known: bool = True
    also: tuple[CA, ...] = ()  # what stands in its chain beside its own path


@dataclass
class PKIMount:
    """Implements what a source needs of a `VaultConnection`; `asked` are its requests.

    `fault` is raised for each path that contains its key; `change` may alter a signed answer.
    """

    now: datetime = NOW
    backdating: timedelta = timedelta(seconds=30)
    max_ttl: timedelta = timedelta(days=3650)
    entries: list[Entry] = field(default_factory=list)
    default: str = ""
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    fault: dict[str, Exception] = field(default_factory=dict)
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda answer: answer

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)

    # What an operator does

    def add(
        self, name: str, *, came: datetime | None = None, ca: CA | None = None, **options: Any
    ) -> str:
        """Generate a root as Vault does, or import one that is older; the first is the default."""
        ca = ca or make_root(
            subject=f"CN={name}", not_before=(came or self.now) - self.backdating, key=_key()
        )
        entry = Entry(f"id-{next(self._numbers)}", name, ca, **options)
        self.entries.append(entry)
        self.default = self.default or entry.id
        return entry.id

    def remove(self, id_: str) -> None:
        self.entries = [entry for entry in self.entries if entry.id != id_]

    # What a source asks

    @property
    def signed(self) -> list[str]:
        """The paths at which something was signed."""
        return [path for method, path, _ in self.asked if method == "POST"]

    def call(self, operation: Callable[[Any], Any], _: str = "") -> Any:
        return operation(self)

    def request(self, method: str, url: str) -> dict[str, Any]:
        self._note(method, url, {})
        if not self.entries:
            raise VaultRefused(404, "")
        key_info = {
            entry.id: {
                "issuer_name": entry.name,
                "key_id": f"key of {entry.id}" if entry.has_key else "",
                "is_default": entry.id == self.default,
            }
            for entry in self.entries
        }
        return {"data": {"keys": list(key_info), "key_info": key_info}}

    def get(self, url: str) -> dict[str, Any]:
        self._note("GET", url, {})
        if "/sys/internal/" in url:
            return {"data": {"type": "pki"}}
        entry = self._entry(url.split("/")[-2])
        path = entry.ca.path if entry.root_is_known else entry.ca.path[:-1]
        chain = [cert_pem(each.certificate).decode() for each in (*path, *entry.also)]
        return {"data": {"certificate": chain[0], "ca_chain": chain}}

    def post(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        self._note("POST", url, body)
        parts = url.split("/")
        reference = parts[parts.index("issuer") + 1] if "issuer" in parts else self.default
        entry = self._entry(reference)
        is_leaf = "sign" in parts
        request = x509.load_pem_x509_csr(body["csr"].encode())
        certificate = self._signed(entry.ca, request, body, is_leaf=is_leaf)
        return self.change({"data": {"certificate": cert_pem(certificate).decode()}})

    def _entry(self, reference: str) -> Entry:
        wanted = self.default if reference == "default" else reference
        return next(each for each in self.entries if wanted in (each.id, each.name))

    def _note(self, method: str, url: str, body: dict[str, Any]) -> None:
        self.asked.append((method, url.removeprefix("/v1/"), body))
        for part, fault in self.fault.items():
            if part in url:
                raise fault

    def _signed(
        self,
        ca: CA,
        request: x509.CertificateSigningRequest,
        asked: dict[str, Any],
        *,
        is_leaf: bool,
    ) -> x509.Certificate:
        lifetime = min(timedelta(seconds=int(asked["ttl"].removesuffix("s"))), self.max_ttl)
        names = [asked["common_name"]] if asked["common_name"] else []
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
        path_length = None if is_leaf else asked["max_path_length"]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca.certificate.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - self.backdating)
            .not_valid_after(self.now + lifetime)
            .add_extension(x509.BasicConstraints(not is_leaf, path_length), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(request.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), False
            )
        )
        for extension in request.extensions if is_leaf else ():
            builder = builder.add_extension(extension.value, extension.critical)
        return builder.sign(ca.key, hashes.SHA256())


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())
