"""Certificates and revocation lists, read to the last extension when they are made.

`cryptography` parses lazily: a certificate that loads may still raise when an extension or a name
is looked at. Everything that the rules look at is therefore touched here, once, and what Go's
parser (crypto/x509.parseCertificate) would refuse is refused here: negative serial numbers,
duplicate extensions, unknown versions and curves, keys in another form than the usual one,
alternative names that are none, data after the end.
"""

from __future__ import annotations

import hashlib
import warnings
from typing import TYPE_CHECKING, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import SignatureAlgorithmOID

from certagent.material import names, pem
from certagent.material.der import INTEGER, inside
from certagent.values import Identified, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

_T = TypeVar("_T")
_ExtensionT = TypeVar("_ExtensionT", bound=x509.ExtensionType)

_MAX_NAME = 256
_MAX_SHOWN = 80
GO_CURVES = frozenset({"secp224r1", "secp256r1", "secp384r1", "secp521r1"})
"""The curves of Go's crypto/x509.namedCurveFromOID; any other makes its parser fail."""


MAX_RSA_EXPONENT = 2**31 - 1
"""Go's crypto/rsa refuses to use a key with a larger one (checkPublicKeySize)."""

NAMED_CURVE = (
    "`openssl ec -in old-key.pem -param_enc named_curve -conv_form uncompressed -out new-key.pem`"
)
"""What writes an EC key as Go reads it."""

_FORM_OF_EC = (
    "Go reads a public key only with the name of its curve and an uncompressed point",
    "key-form",
    f"Write the key as {NAMED_CURVE} does, and issue the certificate again with that.",
)
_FORM_OF_OTHERS = (
    "Go reads a public key only without parameters, and not one that is for RSA-PSS alone",
    "key-form",
    "Make a new key (`openssl genpkey -algorithm RSA`), and issue the certificate for it.",
)
_NO_GO_KEY = (
    "Go cannot use its kind of public key, or one with so large an exponent",
    "",
    "Issue it for a new key: P-256, or RSA 3072 with the exponent 65537.",
)


class Unparseable(Exception):
    """The DER cannot be read; the message says why, without any content of a key.

    `code` and `hint` are those of the finding where the usual ones would mislead, else empty.
    """

    def __init__(self, why: str, code: str = "", hint: str = "") -> None:
        super().__init__(why)
        self.code = code
        self.hint = hint


class Certificate(Identified, frozen=True):
    """One certificate, equal to another when their DER is.

    `fingerprint` is the SHA-256 of the DER in lower-case hex, `serial` as openssl prints it;
    `subject` and `issuer` are RFC 4514 texts made printable, and `subject_name` and `issuer_name`
    the DER of both, which is what Go compares; the dates are aware, UTC.
    """

    der: bytes
    x509: x509.Certificate
    fingerprint: str
    subject: str
    issuer: str
    subject_name: bytes
    issuer_name: bytes
    serial: str
    not_before: datetime
    not_after: datetime

    def __repr__(self) -> str:
        """Show what is neither secret nor long."""
        return shown(self, "fingerprint", "subject", "issuer", "serial", "not_before", "not_after")

    @property
    def identity(self) -> object:
        """Its DER."""
        return self.der

    @classmethod
    def load(cls, der: bytes) -> Certificate:
        """Read a certificate; raises `Unparseable`."""
        return guarded(lambda: cls._load(der))

    @classmethod
    def _load(cls, der: bytes) -> Certificate:
        parsed = x509.load_der_x509_certificate(der)
        if parsed.serial_number < 0:
            raise Unparseable("its serial number is negative")
        _require_one_algorithm(der)
        fields = inside(parsed.tbs_certificate_bytes)
        versioned = fields[0][0] != INTEGER
        issuer, _, subject, key = fields[2 + versioned : 6 + versioned]
        _require_go_key(parsed, key)
        _require_go_names(parsed)
        _touch(parsed)
        return cls(
            der=der,
            x509=parsed,
            fingerprint=hashlib.sha256(der).hexdigest(),
            subject=_text(parsed.subject),
            issuer=_text(parsed.issuer),
            subject_name=subject,
            issuer_name=issuer,
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


class RevocationList(Identified, frozen=True):
    """One CRL, equal to another when their DER is.

    `issuer_name` is the DER of the issuer; `next_update` is None where the list names none.
    """

    der: bytes
    x509: x509.CertificateRevocationList
    issuer: str
    issuer_name: bytes
    this_update: datetime
    next_update: datetime | None
    revoked: frozenset[int]

    def __repr__(self) -> str:
        """Show what is neither secret nor long."""
        return shown(self, "issuer", "this_update", "next_update")

    @property
    def identity(self) -> object:
        """Its DER."""
        return self.der

    @classmethod
    def load(cls, der: bytes) -> RevocationList:
        """Read a CRL; raises `Unparseable`."""
        return guarded(lambda: cls._load(der))

    @classmethod
    def _load(cls, der: bytes) -> RevocationList:
        parsed = x509.load_der_x509_crl(der)
        tuple(parsed.extensions)
        _require_one_algorithm(der)
        version, _, issuer, *_ = inside(parsed.tbs_certlist_bytes)
        if version[0] != INTEGER:
            raise Unparseable("it is of version 1, and Go reads version 2 only")
        return cls(
            der=der,
            x509=parsed,
            issuer=_text(parsed.issuer),
            issuer_name=issuer,
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


def _require_one_algorithm(der: bytes) -> None:
    """Compare the algorithm under the signature with the one beside it, as Go's parsers do."""
    signed, beside, _ = inside(der)
    fields = inside(signed)
    if beside not in fields[:3]:
        raise Unparseable("its two statements of the signature algorithm differ")


def _require_go_key(certificate: x509.Certificate, written: bytes) -> None:
    """Mirror crypto/x509.parsePublicKey, which knows one form of each kind of key."""
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        known = key.curve.name in GO_CURVES
    elif isinstance(key, rsa.RSAPublicKey):
        known = key.public_numbers().e <= MAX_RSA_EXPONENT
    else:
        known = isinstance(key, ed25519.Ed25519PublicKey)
    if not known:
        raise Unparseable(*_NO_GO_KEY)
    if written != key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        is_ec = isinstance(key, ec.EllipticCurvePublicKey)
        raise Unparseable(*(_FORM_OF_EC if is_ec else _FORM_OF_OTHERS))


def _require_go_names(certificate: x509.Certificate) -> None:
    """Refuse names that make crypto/x509.processExtensions fail."""
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            _require(names.readable, value, "alternative name")
        elif isinstance(value, x509.NameConstraints):
            trees = (*(value.permitted_subtrees or ()), *(value.excluded_subtrees or ()))
            _require(names.readable_constraint, trees, "name constraint")


def _require(
    readable: Callable[[x509.GeneralName], bool], found: Iterable[x509.GeneralName], noun: str
) -> None:
    for name in found:
        if not readable(name):
            why = f"Go cannot read its {noun} {str(name.value)[:_MAX_SHOWN]!r}"
            raise Unparseable(why, hint=f"Issue it again without that {noun}.")


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
