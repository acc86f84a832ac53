"""Roots, intermediates and workload certificates with the profiles of Istio's tools/certs.

The one place of the material room that needs randomness: keys and serial numbers. Dates come from
the caller.

| | root | intermediate | workload |
|---|---|---|---|
| subject | O=Istio, CN=Root CA | O=Istio, CN=Intermediate CA, L=<cluster> | none (SAN critical) |
| basicConstraints, critical | CA:true | CA:true, pathlen:0 | CA:false |
| keyUsage, critical | digitalSignature, nonRepudiation, keyEncipherment, keyCertSign | the same | \
digitalSignature, keyEncipherment |
| extendedKeyUsage | none | none | serverAuth, clientAuth |
| subjectAltName | none | DNS:istiod.istio-system.svc | URI: the SPIFFE id |

(tools/certs/common.mk and Makefile.selfsigned.mk; SHA-256 signatures, subject and authority key
identifiers throughout.) The Makefile's CAs lack cRLSign, and a CRL of theirs can never be valid:
`crl_sign` adds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certagent.material import pem
from certagent.material.raw import RawBundle

if TYPE_CHECKING:
    from datetime import datetime

    PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

ISTIOD_DNS_NAME = "istiod.istio-system.svc"
"""`INTERMEDIATE_SAN_DNS` of the Makefile."""


class KeyType(StrEnum):
    """The kinds of key that every part of a mesh takes; the Makefile's is `rsa4096`."""

    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"
    RSA4096 = "rsa4096"
    EC256 = "ec256"
    EC384 = "ec384"

    def generate(self) -> PrivateKey:
        """Make a new key; an RSA key of 4096 bits takes about a second."""
        if self is KeyType.EC256:
            return ec.generate_private_key(ec.SECP256R1())
        if self is KeyType.EC384:
            return ec.generate_private_key(ec.SECP384R1())
        return rsa.generate_private_key(public_exponent=65537, key_size=int(self[3:]))

    def is_kind_of(self, key: object) -> bool:
        """Say whether a public key is of this kind."""
        if isinstance(key, rsa.RSAPublicKey):
            return self == f"rsa{key.key_size}"
        return isinstance(key, ec.EllipticCurvePublicKey) and self == f"ec{key.curve.key_size}"


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate holds: aware datetimes; X.509 keeps whole seconds."""

    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key; has no repr of the key."""

    certificate: x509.Certificate = field(repr=False)
    key: PrivateKey = field(repr=False)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key in PKCS #8 (`PRIVATE KEY`), as `openssl genrsa` writes it since OpenSSL 3."""
        return pem.encode("PRIVATE KEY", pkcs8(self.key))


@dataclass(frozen=True, slots=True)
class Authority(Issued):
    """A CA that can sign; `issuer` is None for a root."""

    issuer: Authority | None = field(default=None, repr=False)

    def intermediate(
        self,
        cluster: str,
        validity: Validity,
        *,
        key_type: KeyType = KeyType.RSA4096,
        crl_sign: bool = False,
    ) -> Authority:
        """Issue the CA of one cluster, whose name becomes the subject's L."""
        key = key_type.generate()
        subject = _istio_name("Intermediate CA", cluster)
        builder = _ca(_builder(subject, key, validity, self), crl_sign=crl_sign, pathlen=0)
        names = x509.SubjectAlternativeName([x509.DNSName(ISTIOD_DNS_NAME)])
        builder = builder.add_extension(names, critical=False)
        return Authority(_signed(builder, key, self), key, issuer=self)

    def workload(
        self, spiffe_id: str, validity: Validity, *, key_type: KeyType = KeyType.EC256
    ) -> Issued:
        """Issue what istiod issues to a workload: for both sides of TLS, named by a SPIFFE id.

        The profile of security/pkg/pki/util/generate_cert.go genCertTemplateFromCSR.
        """
        key = key_type.generate()
        usages = x509.ExtendedKeyUsage(
            [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        )
        # RFC 5280, 4.2.1.6: critical, because the subject is empty.
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
        builder = (
            _builder(x509.Name([]), key, validity, self)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage("digital_signature", "key_encipherment"), critical=True)
            .add_extension(usages, critical=False)
            .add_extension(names, critical=True)
        )
        return Issued(_signed(builder, key, self), key)

    @property
    def path(self) -> tuple[Authority, ...]:
        """This CA, its issuer, and so on to the root."""
        return (self, *(self.issuer.path if self.issuer else ()))

    def bundle(self) -> RawBundle:
        """Return the files of istiod that signs with this CA.

        As the Makefile joins them: the chain is this CA's certificate, its issuers', the root's.
        """
        path = self.path
        return RawBundle(
            private_key=self.key_pem,
            certificate=self.certificate_pem,
            chain=b"".join(each.certificate_pem for each in path),
            roots=path[-1].certificate_pem,
        )


def pkcs8(key: PrivateKey) -> bytes:
    """Return a key's DER in PKCS #8."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def root(
    validity: Validity, *, key_type: KeyType = KeyType.RSA4096, crl_sign: bool = False
) -> Authority:
    """Make the root CA of a mesh, signed by its own key."""
    key = key_type.generate()
    builder = _builder(_istio_name("Root CA"), key, validity, None)
    return Authority(_signed(_ca(builder, crl_sign=crl_sign, pathlen=None), key, None), key)


def _istio_name(common_name: str, locality: str = "") -> x509.Name:
    attributes = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Istio"),
        x509.NameAttribute(NameOID.COMMON_NAME, common_name),
    ]
    if locality:
        attributes.append(x509.NameAttribute(NameOID.LOCALITY_NAME, locality))
    return x509.Name(attributes)


def _builder(
    subject: x509.Name, key: PrivateKey, validity: Validity, issuer: Authority | None
) -> x509.CertificateBuilder:
    """Start with what all certificates have."""
    own_identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.not_before)
        .not_valid_after(validity.not_after)
        .add_extension(own_identifier, critical=False)
    )
    if issuer is None:
        return builder
    extensions = issuer.certificate.extensions
    identifier = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    return builder.add_extension(authority, critical=False)


def _ca(
    builder: x509.CertificateBuilder, *, crl_sign: bool, pathlen: int | None
) -> x509.CertificateBuilder:
    usages = ["digital_signature", "content_commitment", "key_encipherment", "key_cert_sign"]
    usage = _key_usage(*usages, *(["crl_sign"] if crl_sign else []))
    constraints = x509.BasicConstraints(ca=True, path_length=pathlen)
    return builder.add_extension(constraints, critical=True).add_extension(usage, critical=True)


def _key_usage(*usages: str) -> x509.KeyUsage:
    def has(usage: str) -> bool:
        return usage in usages

    return x509.KeyUsage(
        digital_signature=has("digital_signature"),
        content_commitment=has("content_commitment"),
        key_encipherment=has("key_encipherment"),
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=has("key_cert_sign"),
        crl_sign=has("crl_sign"),
        encipher_only=False,
        decipher_only=False,
    )


def _signed(
    builder: x509.CertificateBuilder, key: PrivateKey, issuer: Authority | None
) -> x509.Certificate:
    return builder.sign(issuer.key if issuer else key, hashes.SHA256())
