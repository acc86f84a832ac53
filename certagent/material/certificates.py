"""Certificates and revocation lists, read to the last extension when they are made.

`cryptography` parses lazily: a certificate that loads may still raise when an extension or a name
is looked at. Everything that the rules look at is therefore touched here, once, and what Go's
parser (crypto/x509.parseCertificate) would refuse is refused here: negative serial numbers,
duplicate extensions, unknown versions and curves, data after the end.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import SignatureAlgorithmOID

from certagent.material import pem

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

_T = TypeVar("_T")
_ExtensionT = TypeVar("_ExtensionT", bound=x509.ExtensionType)

_MAX_NAME = 256
GO_CURVES = frozenset({"secp224r1", "secp256r1", "secp384r1", "secp521r1"})
"""The curves of Go's crypto/x509.namedCurveFromOID; any other makes its parser fail."""


class Unparseable(Exception):
    """The DER cannot be read; the one argument says why, without any of its content."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate, equal to another when their DER is.

    `fingerprint` is the SHA-256 of the DER in lower-case hex, `serial` as openssl prints it;
    `subject` and `issuer` are RFC 4514 texts made printable; the dates are aware, UTC.
    """

    der: bytes = field(repr=False)
    x509: x509.Certificate = field(repr=False, compare=False)
    fingerprint: str = field(compare=False)
    subject: str = field(compare=False)
    issuer: str = field(compare=False)
    serial: str = field(compare=False)
    not_before: datetime = field(compare=False)
    not_after: datetime = field(compare=False)

    @classmethod
    def load(cls, der: bytes) -> Certificate:
        """Read a certificate; raises `Unparseable`."""
        return guarded(lambda: cls._load(der))

    @classmethod
    def _load(cls, der: bytes) -> Certificate:
        parsed = x509.load_der_x509_certificate(der)
        if parsed.serial_number < 0:
            raise Unparseable("its serial number is negative")
        _require_go_key(parsed)
        _touch(parsed)
        return cls(
            der=der,
            x509=parsed,
            fingerprint=hashlib.sha256(der).hexdigest(),
            subject=_text(parsed.subject),
            issuer=_text(parsed.issuer),
            serial=_serial(parsed.serial_number),
            not_before=parsed.not_valid_before_utc,
            not_after=parsed.not_valid_after_utc,
        )

    @property
    def pem(self) -> bytes:
        """The canonical PEM."""
        return pem.encode("CERTIFICATE", self.der)

    @property
    def public_key_info(self) -> bytes:
        """The DER of its SubjectPublicKeyInfo: two keys are the same when these are."""
        key = self.x509.public_key()
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def extension(self, kind: type[_ExtensionT]) -> _ExtensionT | None:
        """Return the value of an extension, or None where the certificate has none of the kind."""
        try:
            return self.x509.extensions.get_extension_for_class(kind).value
        except x509.ExtensionNotFound:
            return None


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One CRL, equal to another when their DER is; `next_update` is None where it names none."""

    der: bytes = field(repr=False)
    x509: x509.CertificateRevocationList = field(repr=False, compare=False)
    issuer: str = field(compare=False)
    this_update: datetime = field(compare=False)
    next_update: datetime | None = field(compare=False)
    revoked: frozenset[int] = field(repr=False, compare=False)

    @classmethod
    def load(cls, der: bytes) -> RevocationList:
        """Read a CRL; raises `Unparseable`."""
        return guarded(lambda: cls._load(der))

    @classmethod
    def _load(cls, der: bytes) -> RevocationList:
        parsed = x509.load_der_x509_crl(der)
        parsed.issuer.public_bytes()
        tuple(parsed.extensions)
        return cls(
            der=der,
            x509=parsed,
            issuer=_text(parsed.issuer),
            this_update=parsed.last_update_utc,
            next_update=parsed.next_update_utc,
            revoked=frozenset(entry.serial_number for entry in parsed),
        )

    @property
    def pem(self) -> bytes:
        """The canonical PEM."""
        return pem.encode("X509 CRL", self.der)


def guarded(load: Callable[[], _T]) -> _T:
    """Call a parser of `cryptography`; whatever it raises becomes `Unparseable`.

    It raises ValueError, TypeError, UnsupportedAlgorithm, InvalidVersion, DuplicateExtension and
    more, promises no closed list, and a panic of its Rust part is a BaseException without a name
    that could be imported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load()
    except Unparseable:
        raise
    except BaseException as fault:
        if not isinstance(fault, Exception) and type(fault).__name__ != "PanicException":
            raise
        reason = str(fault).splitlines()[:1]
        raise Unparseable("".join(reason)[:160] or type(fault).__name__) from None


def _require_go_key(certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in GO_CURVES:
        return
    if not isinstance(key, (rsa.RSAPublicKey, ed25519.Ed25519PublicKey)):
        raise Unparseable("Go cannot use its kind of public key (RSA, P-256, P-384 are usual)")


def _touch(certificate: x509.Certificate) -> None:
    """Make `cryptography` parse what it would parse later, outside of `guarded`."""
    tuple(certificate.extensions)
    if certificate.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS:
        certificate.signature_hash_algorithm  # noqa: B018 - it parses the parameters
    for name in (certificate.subject, certificate.issuer):
        name.public_bytes()


def _text(name: x509.Name) -> str:
    """RFC 4514, on one line: a name is somebody else's text on its way into a log."""
    text = name.rfc4514_string()[:_MAX_NAME]
    return "".join(char if char.isprintable() else f"\\{ord(char):02X}" for char in text)


def _serial(number: int) -> str:
    digits = f"{number:X}"
    return digits.zfill(len(digits) + len(digits) % 2)
