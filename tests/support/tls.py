"""A certificate authority for the test servers' own TLS: nothing to do with a mesh's CA."""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence

DAY = timedelta(days=1)

Certificate = Literal["good", "untrusted", "wrong name", "expired"]
"""What a server may show to its clients."""


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class TLSAuthority:
    """Signs server and client certificates on loopback; `ca_file` is what clients trust."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name(f"test authority {directory.name}")
        now = datetime.now(UTC)
        self.certificate = (
            self._builder(self._key.public_key(), now - DAY, now + DAY)
            .subject_name(self._subject)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_pem = self.certificate.public_bytes(Encoding.PEM).decode()
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_text(self.ca_pem)

    def issue(
        self,
        name: str,
        *,
        not_after: datetime | None = None,
        client: bool = False,
        names: Sequence[str] = ("localhost",),
        ip: bool = True,
    ) -> tuple[Path, Path]:
        """Return the files of a new certificate, for the names and 127.0.0.1, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        not_after = not_after or datetime.now(UTC) + DAY
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        hosts: list[x509.GeneralName] = [x509.DNSName(each) for each in names]
        if ip:
            hosts.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        certificate = (
            self._builder(key.public_key(), not_after - 2 * DAY, not_after)
            .subject_name(_name(name))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        cert_file = self._directory / f"{name}.pem"
        key_file = self._directory / f"{name}-key.pem"
        cert_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return cert_file, key_file

    def server_context(self, name: str = "server", **how: Any) -> ssl.SSLContext:
        """Return a context for a server with a new certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(name, **how))
        return context

    def showing(
        self, certificate: Certificate, name: str, names: Sequence[str] = ("localhost",)
    ) -> ssl.SSLContext:
        """Return a context for a server with a certificate that is good, or not."""
        if certificate == "wrong name":
            return self.server_context(f"{name}-elsewhere", names=("elsewhere.example",), ip=False)
        if certificate == "expired":
            then = datetime.now(UTC) - timedelta(hours=1)
            return self.server_context(f"{name}-old", names=names, not_after=then)
        if certificate == "untrusted":
            with tempfile.TemporaryDirectory() as directory:
                return TLSAuthority(Path(directory)).server_context(name, names=names)
        return self.server_context(name, names=names)

    def _builder(
        self, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
    ) -> x509.CertificateBuilder:
        identifier = x509.SubjectKeyIdentifier.from_public_key(key)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(identifier, critical=False)
            .add_extension(issuer, critical=False)
        )
