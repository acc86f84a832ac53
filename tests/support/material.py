"""Material for tests: mesh CAs that are good, and CAs that break exactly one rule.

    root = make_root()                      # EC P-256, valid from 2025 to 2045
    ca = root.intermediate("cluster1")      # Istio's profile: pathlen 0, SAN, SKI, AKI
    ca.raw()                                # RawBundle: chain = ca + root, roots = root
    root.intermediate("cluster1").raw()     # a new intermediate under the same root
    ca.raw(roots=(root, make_root()))       # two roots
    ca.workload_leaf()                      # what istiod would sign with it
    make_leaf()                             # a gateway's certificate, under an intermediate
    make_leaf(ca, roots=(ca.root,)).raw()   # RawBundle of kind tls, for mutual TLS

`a_set()` is one good set from scratch; `files()` and `fields()` are a set under the names of
istiod's files and of a Vault secret. Every knob of `make_root` and `intermediate` is one of
`Profile`. The default dates hold at `NOW` and at the machine's own clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec.structs import replace

from certagent.material.raw import CA_FILES, TLS_FILES, RawBundle

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
NOT_BEFORE = datetime(2025, 1, 1, tzinfo=UTC)
ROOT_NOT_AFTER = datetime(2045, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(2040, 1, 1, tzinfo=UTC)

VAULT_FIELDS = {
    "private_key": "ca_key",
    "certificate": "ca_cert",
    "chain": "cert_chain",
    "roots": "root_cert",
    "crls": "ca_crl",
}

SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE

ISTIO_KEY_USAGE = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "key_cert_sign",
    "crl_sign",
)
_KEY_USAGES = (
    *ISTIO_KEY_USAGE,
    "data_encipherment",
    "key_agreement",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True)
class Profile:
    """What a certificate says: a knob per rule. None leaves an extension out."""

    subject: str = "O=Istio,CN=Root CA"
    not_before: datetime = NOT_BEFORE
    not_after: datetime = ROOT_NOT_AFTER
    key: Any = None  # a private key; a new P-256 one when None
    serial: int | None = None
    ca: bool | None = True  # None: no basicConstraints
    pathlen: int | None = None
    key_usage: Sequence[str] | None = ISTIO_KEY_USAGE
    eku: Sequence[x509.ObjectIdentifier] | None = None
    dns: Sequence[str] = ()
    uris: Sequence[str] = ()
    ski: bool = True
    aki: bool = True
    permitted: Sequence[x509.GeneralName] | None = None
    excluded: Sequence[x509.GeneralName] | None = None
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = ()  # further ones: (value, critical)
    hash: Any = field(default_factory=hashes.SHA256)
    padding: Any = None  # of an RSA issuer's signature; PKCS #1 v1.5 when None


@dataclass(frozen=True)
class Leaf:
    certificate: x509.Certificate
    key: Any = field(repr=False)

    @property
    def pem(self) -> bytes:
        return cert_pem(self.certificate)

    @property
    def key_pem(self) -> bytes:
        return private_key_pem(self.key)

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()


@dataclass(frozen=True)
class CA(Leaf):
    parent: CA | None = None

    @property
    def path(self) -> tuple[CA, ...]:
        """This CA, its issuer, … its root."""
        return (self, *(self.parent.path if self.parent else ()))

    @property
    def root(self) -> CA:
        return self.path[-1]

    def intermediate(self, cluster: str = "cluster1", **knobs: Any) -> CA:
        """A CA below this one; `knobs` are those of `Profile`."""
        defaults = {
            "subject": f"O=Istio,CN=Intermediate CA,L={cluster}",
            "not_after": NOT_AFTER,
            "pathlen": 0,
            "dns": ("istiod.istio-system.svc",),
        }
        profile = Profile(**{**defaults, **knobs})
        key = profile.key or new_key()
        return CA(sign(profile, key.public_key(), self), key, parent=self)

    def middle(self, **knobs: Any) -> CA:
        """A CA that may stand between a root and another intermediate."""
        return self.intermediate(
            **{"subject": "O=Istio,CN=Middle CA", "pathlen": 1, "dns": (), **knobs}
        )

    def workload_leaf(
        self, uri: str = "spiffe://cluster.local/ns/default/sa/default", **knobs: Any
    ) -> Leaf:
        """What istiod signs for a workload: a day, for both sides of TLS, with a SPIFFE id."""
        defaults = {
            "subject": "O=cluster.local",
            "not_before": NOW - timedelta(minutes=2),
            "not_after": NOW + timedelta(days=1),
            "ca": False,
            "key_usage": ("digital_signature", "key_encipherment"),
            "eku": (SERVER, CLIENT),
            "uris": (uri,),
        }
        profile = Profile(**{**defaults, **knobs})
        key = profile.key or new_key()
        return Leaf(sign(profile, key.public_key(), self), key)

    def crl(
        self,
        revoked: Iterable[x509.Certificate] = (),
        this_update: datetime = NOT_BEFORE,
        next_update: datetime = NOT_AFTER,
        key: Any = None,
    ) -> bytes:
        """A CRL of this CA in PEM; `key` signs it instead of the CA's own."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(this_update)
            .next_update(next_update)
        )
        for certificate in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(this_update)
                .build()
            )
        crl = builder.sign(key or self.key, hashes.SHA256())
        return crl.public_bytes(serialization.Encoding.PEM)

    def raw(
        self,
        *,
        chain: Sequence[Leaf] | bytes | None = None,
        roots: Sequence[Leaf] | bytes | None = None,
        crls: bytes = b"",
        **parts: bytes,
    ) -> RawBundle:
        """The set that istiod would sign with this CA; `parts` replaces whole parts by bytes."""
        raw = RawBundle(
            private_key=self.key_pem,
            certificate=self.pem,
            chain=_joined(self.path if chain is None else chain),
            roots=_joined((self.root,) if roots is None else roots),
            crls=crls,
        )
        return replace(raw, **parts)


def make_root(**knobs: Any) -> CA:
    """A self-signed CA; `knobs` are those of `Profile`."""
    profile = Profile(**knobs)
    key = profile.key or new_key()
    return CA(sign(profile, key.public_key(), None, key=key), key)


@dataclass(frozen=True)
class ServingLeaf(Leaf):
    """A certificate of kind tls, and what is stored with it."""

    issuer: CA
    roots: Sequence[Leaf] = ()

    @property
    def sent(self) -> tuple[Leaf, ...]:
        """The certificate, and the intermediates above it."""
        return (self, *self.issuer.path[:-1])

    def raw(self, *sent: Leaf, **parts: bytes) -> RawBundle:
        """The set, with `sent` in the certificate's part; `parts` replaces whole parts by bytes."""
        raw = RawBundle(self.key_pem, pem(*(sent or self.sent)), roots=pem(*self.roots))
        return replace(raw, **parts)


def make_leaf(issuer: CA | None = None, *, roots: Sequence[Leaf] = (), **knobs: Any) -> ServingLeaf:
    """A gateway's certificate, by an intermediate of its own; `knobs` are those of `Profile`."""
    issuer = issuer or make_root().intermediate("gateways", dns=())
    defaults = {
        "subject": "CN=ingress.example.com",
        "not_after": NOT_AFTER,
        "ca": False,
        "key_usage": ("digital_signature",),
        "eku": (SERVER,),
        "dns": ("ingress.example.com", "localhost"),
    }
    profile = Profile(**{**defaults, **knobs})
    key = profile.key or new_key()
    return ServingLeaf(sign(profile, key.public_key(), issuer), key, issuer, roots)


def make_ca(cluster: str = "cluster1", **knobs: Any) -> CA:
    """An intermediate under a root of its own; `knobs` are the intermediate's."""
    return make_root().intermediate(cluster, **knobs)


def a_set(cluster: str = "cluster1", **knobs: Any) -> RawBundle:
    """One good set: an intermediate under a new root; `knobs` are the intermediate's."""
    return make_ca(cluster, **knobs).raw()


def files(raw: RawBundle) -> dict[str, bytes]:
    """The set under the names that istiod reads, as a directory would hold it."""
    return _named(raw, CA_FILES)


def fields(raw: RawBundle) -> dict[str, str]:
    """The set as the fields of a Vault secret."""
    return {name: value.decode() for name, value in _named(raw, VAULT_FIELDS).items()}


def tls_files(raw: RawBundle) -> dict[str, bytes]:
    """The set of kind tls under the names of a kubernetes.io/tls Secret."""
    return _named(raw, TLS_FILES)


def tls_fields(raw: RawBundle) -> dict[str, str]:
    """The set of kind tls as the fields of a Vault secret."""
    names = {"private_key": "tls_key", "certificate": "tls_cert", "roots": "ca_cert"}
    return {name: value.decode() for name, value in _named(raw, names).items()}


def _named(raw: RawBundle, names: Any) -> dict[str, bytes]:
    parts = {name: getattr(raw, part) for part, name in names.items()}
    return {name: value for name, value in parts.items() if value}


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem(*certificates: Leaf) -> bytes:
    return b"".join(each.pem for each in certificates)


def _joined(certificates: Sequence[Leaf] | bytes) -> bytes:
    return certificates if isinstance(certificates, bytes) else pem(*certificates)


def cert_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def private_key_pem(key: Any, form: str = "PKCS8") -> bytes:
    """The key in PEM; `form` is PKCS8, or TraditionalOpenSSL (SEC 1, PKCS #1)."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        getattr(serialization.PrivateFormat, form),
        serialization.NoEncryption(),
    )


def sign(
    profile: Profile, public_key: Any, issuer: CA | None, *, key: Any = None
) -> x509.Certificate:
    """Certify `public_key` by `issuer`, or by `key` itself where there is none."""
    name = _name(profile.subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(public_key)
        .serial_number(profile.serial or x509.random_serial_number())
        .not_valid_before(profile.not_before)
        .not_valid_after(profile.not_after)
    )
    for extension, critical in _extensions(profile, public_key, issuer):
        builder = builder.add_extension(extension, critical=critical)
    signer = issuer.key if issuer else key
    pure = isinstance(signer, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey))
    return builder.sign(signer, None if pure else profile.hash, rsa_padding=profile.padding)


def _name(text: str) -> x509.Name:
    oids = {"O": NameOID.ORGANIZATION_NAME, "CN": NameOID.COMMON_NAME, "L": NameOID.LOCALITY_NAME}
    pairs = (attribute.split("=", 1) for attribute in text.split(",") if attribute)
    return x509.Name([x509.NameAttribute(oids[short], value) for short, value in pairs])


def _extensions(profile: Profile, public_key: Any, issuer: CA | None):
    if profile.ca is not None:
        pathlen = profile.pathlen if profile.ca else None
        yield x509.BasicConstraints(ca=profile.ca, path_length=pathlen), True
    if profile.key_usage is not None:
        yield x509.KeyUsage(**{use: use in profile.key_usage for use in _KEY_USAGES}), True
    if profile.eku is not None:
        yield x509.ExtendedKeyUsage(profile.eku), False
    names = [*map(x509.DNSName, profile.dns), *map(x509.UniformResourceIdentifier, profile.uris)]
    if names:
        yield x509.SubjectAlternativeName(names), False
    if profile.ski:
        yield x509.SubjectKeyIdentifier.from_public_key(public_key), False
    if profile.aki and issuer:
        yield x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), False
    if profile.permitted or profile.excluded:
        yield x509.NameConstraints(profile.permitted or None, profile.excluded or None), True
    yield from profile.extensions


def forge(leaf: Leaf, old: bytes, new: bytes, signer: Any = None) -> x509.Certificate:
    """The certificate with `old` replaced by `new` (same length) in its signed part, signed anew.

    For what the builder refuses to make: SHA-1 signatures, negative serials, unknown versions.
    `signer` is the issuer's private key, the leaf's own when None.
    """
    return x509.load_der_x509_certificate(forge_der(leaf, old, new, signer))


def forge_der(leaf: Leaf, old: bytes, new: bytes, signer: Any = None) -> bytes:
    """As `forge`, where the result cannot be loaded."""
    assert len(old) == len(new)
    tbs = leaf.certificate.tbs_certificate_bytes
    assert old in tbs
    signed = tbs.replace(old, new)
    signer = signer or leaf.key
    if isinstance(signer, rsa.RSAPrivateKey):
        algorithm = hashes.SHA1() if new == SHA1_RSA else hashes.SHA256()
        oid = SHA1_RSA if new == SHA1_RSA else SHA256_RSA
        suffix = _der(0x30, oid + b"\x05\x00")
        signature = signer.sign(signed, padding.PKCS1v15(), algorithm)
    else:
        suffix = _der(0x30, ECDSA_SHA256)
        signature = signer.sign(signed, ec.ECDSA(hashes.SHA256()))
    return _der(0x30, signed + suffix + _der(0x03, b"\x00" + signature))


SHA256_RSA = bytes.fromhex("06092a864886f70d01010b")
SHA1_RSA = bytes.fromhex("06092a864886f70d010105")
ECDSA_SHA256 = bytes.fromhex("06082a8648ce3d040302")


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
