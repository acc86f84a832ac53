"""The private key of a bundle: read as Go reads it, kept as it was stored, never shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
)

from certagent.material import pem
from certagent.material.certificates import (
    GO_CURVES,
    MAX_RSA_EXPONENT,
    NAMED_CURVE,
    Unparseable,
    guarded,
)
from certagent.values import Identified, shown

if TYPE_CHECKING:
    from typing import TypeGuard

    SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_STRUCTURES = {0x30: "PRIVATE KEY", 0x02: "RSA PRIVATE KEY", 0x04: "EC PRIVATE KEY"}
"""What follows the version in PKCS #8 (RFC 5208), PKCS #1 (RFC 8017), SEC 1 (RFC 5915)."""

_PRIME_FIELD = bytes.fromhex("06072a8648ce3d0101")
_RSASSA_PSS = bytes.fromhex("06092a864886f70d01010a")

_NEW_KEY = "Make a new key (`openssl genpkey -algorithm RSA`), and issue the certificate for it."

LABELS = frozenset(_STRUCTURES.values())
"""The labels that istiod reads (security/pkg/pki/util/crypto.go ParsePemEncodedKey)."""


class PrivateKey(Identified, frozen=True):
    """A key and the label it was stored under, which tells its encoding; has no repr of the key."""

    label: str
    der: bytes
    key: SigningKey

    def __repr__(self) -> str:
        """Show what is neither secret nor long."""
        return shown(self, "label")

    @property
    def identity(self) -> object:
        """All but the parsed key."""
        return (self.label, self.der)

    @classmethod
    def load(cls, label: str, der: bytes) -> PrivateKey:
        """Read a key as ParsePemEncodedKey does; raises `Unparseable`.

        The label must tell the encoding, and Go must know the kind of key and its curve.
        """
        structure = _structure(der)
        if structure and structure != label:
            why = f"its label is {label!r} but its content is a {structure!r}"
            raise Unparseable(why, "key-label")
        _require_go_form(der)
        try:
            key = guarded(lambda: _load(der))
        except Unparseable:
            # Without the parser's words: no one can promise that they never quote the key.
            raise Unparseable("its DER cannot be read") from None
        if isinstance(key, rsa.RSAPrivateKey) and not _consistent(key):
            raise Unparseable("its numbers do not fit together")
        if not _signs(key):
            why = "Go cannot sign with its kind (RSA, P-256, P-384 are usual)"
            raise Unparseable(why, hint=_NEW_KEY)
        return cls(label, der, key)

    @property
    def pem(self) -> bytes:
        """The canonical PEM, under the label that it came with."""
        return pem.encode(self.label, self.der)

    @property
    def public_key_info(self) -> bytes:
        """The DER of the public key's SubjectPublicKeyInfo, to compare with a certificate's."""
        public = self.key.public_key()
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _load(der: bytes) -> object:
    # OpenSSL's own validation proves the primes: 0.3 s of every start for an RSA key of 4096 bits.
    # It protects who signs with the key; nobody does here, and _consistent() is what Go asks for.
    return load_der_private_key(der, password=None, unsafe_skip_rsa_key_validation=True)


def _consistent(key: rsa.RSAPrivateKey) -> bool:
    """Tell what crypto/rsa PrivateKey.Validate tells: the numbers of the key belong together."""
    own = key.private_numbers()
    modulus, exponent = own.public_numbers.n, own.public_numbers.e
    return (
        own.p > 1
        and own.q > 1
        and own.p * own.q == modulus
        and own.d * exponent % (own.p - 1) == 1
        and own.d * exponent % (own.q - 1) == 1
        and own.dmp1 == own.d % (own.p - 1)
        and own.dmq1 == own.d % (own.q - 1)
        and own.iqmp * own.q % own.p == 1
    )


def _require_go_form(der: bytes) -> None:
    """Refuse what only OpenSSL reads; such an object identifier is in no other private key."""
    if _PRIME_FIELD in der:
        why = "Go reads an EC key only with the name of its curve, not with the parameters"
        raise Unparseable(why, "key-form", f"Store what {NAMED_CURVE} writes.")
    if _RSASSA_PSS in der:
        raise Unparseable("Go does not read a key that is for RSA-PSS alone", "key-form", _NEW_KEY)


def _signs(key: object) -> TypeGuard[SigningKey]:
    """Tell whether Go's crypto/x509 can sign with the key."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.curve.name in GO_CURVES
    if isinstance(key, rsa.RSAPrivateKey):
        return key.private_numbers().public_numbers.e <= MAX_RSA_EXPONENT
    return isinstance(key, ed25519.Ed25519PrivateKey)


def _structure(der: bytes) -> str:
    """Return the label that fits the encoding, by its first two elements; empty if none does."""
    if len(der) < 2 or der[0] != 0x30:  # noqa: PLR2004 - a tag and a length
        return ""
    version = 2 + (der[1] & 0x7F if der[1] & 0x80 else 0)
    after = version + 3  # INTEGER of one byte
    if der[version : version + 2] != b"\x02\x01" or len(der) <= after:
        return ""
    return _STRUCTURES.get(der[after], "")
