"""Every refusal of istiod, every set that istiod takes and peers refuse, and what is only shown.

The rows are named by what is wrong with the set; `istiod` tells what istiod says of it.
"""

from __future__ import annotations

from base64 import b64decode
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA224, SHA256, SHA512
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ObjectIdentifier

from certagent.errors import MaterialRefused
from certagent.material.bundle import KeyCertBundle, tls_layout
from certagent.material.chains import MAX_SIGNATURE_CHECKS
from certagent.material.codes import ERRORS, WARNINGS
from certagent.material.finding import Severity
from certagent.material.pem import encode
from certagent.material.raw import RawBundle
from certagent.material.verification import VerifiedBundle, expiries, findings, verify
from tests.support import material
from tests.support.material import ANY, CLIENT, NOW, SERVER, a_set, make_ca, make_root

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
RSA_2048 = rsa.generate_private_key(public_exponent=65537, key_size=2048)
RSA_1024 = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC_PARAMETERS = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
RSA_512_KEY = b"""\
-----BEGIN PRIVATE KEY-----
MIIBVQIBADANBgkqhkiG9w0BAQEFAASCAT8wggE7AgEAAkEAqugXJtd60PPILSOP
E5CTJcMgAWshhbeW71BnR7YDAUfUWZ4d4YytQOizvcJC1Y8XcFi9df/yTC1nU9j8
pDD5lwIDAQABAkEAkhKYZxxY3mreNqZjzWcOPYJOwqecGTvXB2gDPil03AvwmZL/
ibX28ES/jhwGHcgirdRZ/zxSlTSK7HZ87V6tEQIhANugSqF47N7tf67JuXmiv+2W
ecTMDD1u642DVBgnOzXDAiEAxzYwK71qGiVTLJeNS7ez7n4KQwrnkZMfPnmc/Wft
650CIFqhFqrzX6vOjbXvAF61TkYYpj8ThKmFMCbBXt5osgJJAiEAhgs+SpA/jqxC
1SR83NAVcIq62PXDb77xLRajvhdqjjkCIGzvXkHCS3aMJ/atq/4QYn9ZBgka5ZNY
9JBri5VM5ula
-----END PRIVATE KEY-----
"""
RSA_512_ROOT = b"""\
-----BEGIN CERTIFICATE-----
MIIBmzCCAUWgAwIBAgIUHfbDZKgo2jljqLXYE+YsEJZNy5QwDQYJKoZIhvcNAQEL
BQAwIjEOMAwGA1UECgwFSXN0aW8xEDAOBgNVBAMMB1Jvb3QgQ0EwHhcNMjYxMTIx
MjMzMzI1WhcNNDYwMTIwMjMzMzI1WjAiMQ4wDAYDVQQKDAVJc3RpbzEQMA4GA1UE
AwwHUm9vdCBDQTBcMA0GCSqGSIb3DQEBAQUAA0sAMEgCQQCq6Bcm13rQ88gtI48T
kJMlwyABayGFt5bvUGdHtgMBR9RZnh3hjK1A6LO9wkLVjxdwWL11//JMLWdT2Pyk
MPmXAgMBAAGjUzBRMB0GA1UdDgQWBBRK0dO+CSoDbFHly6/byeX7Mchk3DAfBgNV
HSMEGDAWgBRK0dO+CSoDbFHly6/byeX7Mchk3DAPBgNVHRMBAf8EBTADAQH/MA0G
CSqGSIb3DQEBCwUAA0EAhDcciHeAZQMGTdzQnZtwVkNIQgKpxxg8UAAsX8UpxYLc
QhzcDzDZTCVxtsE4rCr3fkjfNjC1qx7gEXgxUiemlA==
-----END CERTIFICATE-----
"""
# Made with `openssl req -x509 -newkey rsa:512`: cryptography makes no key that short.
RSA_512 = RawBundle(RSA_512_KEY, RSA_512_ROOT, RSA_512_ROOT, RSA_512_ROOT)
OTHER_KEY = x509.AuthorityKeyIdentifier(b"another key", None, None)
OTHER_SERIAL = x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(x509.Name([]))], 1)
UNKNOWN_CRITICAL = (x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)


def found(raw: RawBundle, now=NOW):
    try:
        return findings(KeyCertBundle.decode(raw), now)
    except MaterialRefused as refused:
        return refused.findings


def errors(raw: RawBundle, now=NOW) -> list[str]:
    return [each.code for each in found(raw, now) if each.severity is Severity.ERROR]


def warnings(raw: RawBundle, now=NOW) -> list[str]:
    return [each.code for each in found(raw, now) if each.severity is Severity.WARNING]


def deep(root=None, **middle):
    """root -> middle -> intermediate."""
    return (root or make_root()).middle(**middle).intermediate()


def a_set_with(**parts: bytes) -> RawBundle:
    return make_ca().raw(**parts)


def der_of(ca) -> bytes:
    return ca.certificate.public_bytes(Encoding.DER)


def sec1(ca) -> bytes:
    return material.private_key_pem(ca.key, "TraditionalOpenSSL")


def headed(pem: bytes, header: bytes) -> bytes:
    first, rest = pem.split(b"\n", 1)
    return b"\n".join([first, header, b"", rest])


def relabelled(pem: bytes, label: bytes) -> bytes:
    return pem.replace(b"CERTIFICATE", label)


def indented(pem: bytes) -> bytes:
    return b"".join(b"  " + line for line in pem.splitlines(keepends=True))


def forged_serial() -> RawBundle:
    serial = 0x7F112233445566778899
    ca = make_ca(serial=serial)
    old = b"\x02\x0a" + serial.to_bytes(10, "big")
    der = material.forge_der(ca, old, b"\x02\x0a\xff" + old[3:], ca.parent.key)
    return ca.raw(certificate=encode("CERTIFICATE", der))


def forged_curve() -> RawBundle:
    ca = make_ca()
    p256, p192v3 = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d030106")
    der = material.forge_der(ca, p256, p192v3, ca.parent.key)
    return ca.raw(certificate=encode("CERTIFICATE", der))


def replaced(ca, certificate: x509.Certificate):
    """The CA with another certificate for its key."""
    return type(ca)(certificate, ca.key, ca.parent)


def sha1_signed():
    root = make_root(key=RSA_2048)
    ca = root.intermediate()
    return replaced(ca, material.forge(ca, material.SHA256_RSA, material.SHA1_RSA, root.key))


def sha1_root() -> RawBundle:
    root = make_root(key=RSA_2048)
    old = replaced(root, material.forge(root, material.SHA256_RSA, material.SHA1_RSA))
    return old.intermediate().raw()


def converted(change) -> RawBundle:
    raw = a_set()
    return RawBundle(
        change(raw.private_key), change(raw.certificate), change(raw.chain), change(raw.roots)
    )


def garbage_root(root) -> bytes:
    return root.pem.replace(root.pem[100:110], b"!!!!!!!!!!")


# Section 2.2: what istiod refuses, at its start or when it reloads.
ISTIOD_REFUSES = {
    "2 ca-cert has no PEM": (lambda: a_set_with(certificate=b"hello"), ["pem-missing"]),
    "2 ca-cert is empty": (lambda: a_set_with(certificate=b" \n"), ["part-empty"]),
    "2 ca-cert is indented": (
        lambda: (ca := make_ca()).raw(certificate=indented(ca.pem)),
        ["pem-indented"],
    ),
    "2 ca-cert is DER": (
        lambda: (ca := make_ca()).raw(certificate=der_of(ca)),
        ["pem-missing"],
    ),
    "3 ca-cert begins with the key": (
        lambda: (ca := make_ca()).raw(certificate=ca.key_pem + ca.pem),
        ["key-in-public-part"],
    ),
    "3 ca-cert has a negative serial number": (forged_serial, ["certificate-unreadable"]),
    "3 ca-cert has a curve that Go lacks": (forged_curve, ["certificate-unreadable"]),
    "3 ca-cert is on secp256k1": (
        lambda: make_ca(key=ec.generate_private_key(ec.SECP256K1())).raw(),
        ["key-unreadable", "certificate-unreadable", "certificate-unreadable"],
    ),
    "4 ca-cert expired": (
        lambda: make_ca(not_after=NOW - SECOND).raw(),
        ["certificate-expired"],
    ),
    "4 ca-cert is not valid yet": (
        lambda: make_ca(not_before=NOW + SECOND).raw(),
        ["certificate-not-yet-valid"],
    ),
    "4 an intermediate expired": (
        lambda: deep(not_after=NOW - DAY).raw(),
        ["certificate-expired"],
    ),
    "4 the only root expired": (
        lambda: make_root(not_after=NOW - DAY).intermediate().raw(),
        ["certificate-expired"],
    ),
    "5 the roots hold another root of another name": (
        lambda: make_ca().raw(roots=(make_root(subject="CN=Other"),)),
        ["unknown-authority"],
    ),
    "5 the roots hold another root of the same name": (
        lambda: (ca := make_ca()).raw(chain=(ca,), roots=(make_root(),)),
        ["signature-mismatch"],
    ),
    "5 the roots and the chain are of two roots of the same name": (
        lambda: make_ca().raw(roots=(make_root(),)),
        ["unknown-authority"],
    ),
    "5 the roots are empty": (lambda: a_set_with(roots=b""), ["part-empty"]),
    "5 the roots are garbage": (
        lambda: (ca := make_ca()).raw(roots=garbage_root(ca.root)),
        ["pem-malformed"],
    ),
    "5 the middle intermediate is missing": (
        lambda: (ca := deep()).raw(chain=(ca, ca.root)),
        ["unknown-authority"],
    ),
    "6 an issuer is not a CA": (lambda: deep(ca=False).raw(), ["not-a-ca"]),
    "6 an issuer has no basicConstraints": (lambda: deep(ca=None).raw(), ["not-a-ca"]),
    "6 an issuer may not sign certificates": (
        lambda: deep(key_usage=("digital_signature",)).raw(),
        ["key-usage-lacks-cert-sign"],
    ),
    "6 the root may not sign certificates": (
        lambda: make_root(key_usage=("crl_sign",)).intermediate().raw(),
        ["key-usage-lacks-cert-sign"],
    ),
    "7 a signature below the root is SHA-1": (
        lambda: sha1_signed().raw(),
        ["insecure-signature"],
    ),
    "8 ca-cert is for clients only": (
        lambda: make_ca(eku=(CLIENT,)).raw(),
        ["extended-key-usage"],
    ),
    "8 an intermediate is for clients only": (
        lambda: deep(eku=(CLIENT,)).raw(),
        ["extended-key-usage"],
    ),
    "8 the root is for clients only": (
        lambda: make_root(eku=(CLIENT,)).intermediate().raw(),
        ["extended-key-usage"],
    ),
    "9 ca-cert has an unknown critical extension": (
        lambda: make_ca(extensions=(UNKNOWN_CRITICAL,)).raw(),
        ["unhandled-critical-extension"],
    ),
    "9 the root has an unknown critical extension": (
        lambda: make_root(extensions=(UNKNOWN_CRITICAL,)).intermediate().raw(),
        ["unhandled-critical-extension"],
    ),
    "9 a critical name constraint of a kind that Go lacks": (
        lambda: make_root(permitted=[x509.DirectoryName(x509.Name([]))]).intermediate().raw(),
        ["unhandled-critical-extension"],
    ),
    "9 critical alternative names of kinds that Go lacks": (
        lambda: make_ca(
            dns=(),
            extensions=(
                (x509.SubjectAlternativeName([x509.RegisteredID(ObjectIdentifier("1.2.3"))]), True),
            ),
        ).raw(),
        ["unhandled-critical-extension"],
    ),
    "10 the root may not sign for the name of ca-cert": (
        lambda: make_root(permitted=[x509.DNSName("example.com")]).intermediate().raw(),
        ["name-constraints-violated"],
    ),
    "10 the root excludes the name of ca-cert": (
        lambda: make_root(excluded=[x509.DNSName("svc")]).intermediate().raw(),
        ["name-constraints-violated"],
    ),
    "11 pathlen is exceeded by ca-cert itself": (
        lambda: deep(make_root(pathlen=0)).raw(),
        ["path-length"],
    ),
    "12 the key has no PEM": (lambda: a_set_with(private_key=b"secret"), ["pem-missing"]),
    "13 the key begins with EC PARAMETERS": (
        lambda: (ca := make_ca()).raw(private_key=EC_PARAMETERS + sec1(ca)),
        ["key-ec-parameters"],
    ),
    "13 the key is encrypted": (
        lambda: a_set_with(private_key=encode("ENCRYPTED PRIVATE KEY", b"0\x03\x02\x01\x00")),
        ["key-encrypted"],
    ),
    "13 the key is a certificate": (
        lambda: (ca := make_ca()).raw(private_key=ca.pem),
        ["key-label"],
    ),
    "14 the key is encrypted the traditional way": (
        lambda: (ca := make_ca()).raw(private_key=headed(sec1(ca), b"Proc-Type: 4,ENCRYPTED")),
        ["key-encrypted"],
    ),
    "14 the key's label is not that of its content": (
        lambda: (ca := make_ca()).raw(
            private_key=ca.key_pem.replace(b"PRIVATE KEY", b"RSA PRIVATE KEY")
        ),
        ["key-label"],
    ),
    "15 the key is another CA's": (
        lambda: a_set_with(private_key=make_ca().key_pem),
        ["key-mismatch"],
    ),
    "15 ca-cert begins with the root": (
        lambda: (ca := make_ca()).raw(certificate=material.pem(ca.root, ca)),
        ["key-mismatch", "chain-order"],
    ),
    "16 ca-cert is an X509 CERTIFICATE": (
        lambda: (ca := make_ca()).raw(certificate=relabelled(ca.pem, b"X509 CERTIFICATE")),
        ["pem-label"],
    ),
    "16 a root is a TRUSTED CERTIFICATE": (
        lambda: (ca := make_ca()).raw(roots=relabelled(ca.root.pem, b"TRUSTED CERTIFICATE")),
        ["pem-label"],
    ),
    "17 ca-cert is not a CA": (lambda: make_ca(ca=False).raw(), ["not-a-ca"]),
    "18 the chain is garbage": (lambda: a_set_with(chain=b"garbage"), ["pem-missing"]),
    "18 the chain is glued": (
        lambda: (ca := make_ca()).raw(chain=ca.pem.rstrip() + ca.root.pem),
        ["pem-glued"],
    ),
    "19 the first of the chain expired": (
        lambda: (ca := make_ca()).raw(
            chain=(ca.root.intermediate(not_after=NOW - DAY), ca, ca.root)
        ),
        ["chain-order"],
    ),
}

# Section 2.4: what istiod takes, and the peers of its workloads refuse.
BREAKS_THE_MESH = {
    "the chain is empty": (lambda: a_set_with(chain=b""), ["chain-lacks-certificate"]),
    "the chain holds the root alone": (
        lambda: (ca := make_ca()).raw(chain=(ca.root,)),
        ["chain-lacks-certificate"],
    ),
    "the chain holds the intermediate before": (
        lambda: (ca := make_ca()).raw(chain=(ca.root.intermediate(), ca.root)),
        ["chain-lacks-certificate"],
    ),
    "the chain holds another certificate for the same key": (
        lambda: (ca := make_ca()).raw(chain=(ca.root.intermediate(key=ca.key), ca.root)),
        ["chain-lacks-certificate"],
    ),
    "ca-cert may not sign certificates": (
        lambda: make_ca(key_usage=("digital_signature", "crl_sign")).raw(),
        ["key-usage-lacks-cert-sign"],
    ),
    "the root has pathlen 0": (
        lambda: make_root(pathlen=0).intermediate().raw(),
        ["leaf-path-length"],
    ),
    "a middle CA has pathlen 0": (lambda: deep(pathlen=0).raw(), ["leaf-path-length"]),
    "ca-cert is for servers only": (
        lambda: make_ca(eku=(SERVER,)).raw(),
        ["extended-key-usage"],
    ),
    "ca-cert is for any purpose, by that name only": (
        lambda: make_ca(eku=(ANY,)).raw(),
        ["extended-key-usage"],
    ),
    "an intermediate is for servers only": (
        lambda: deep(eku=(SERVER,)).raw(),
        ["extended-key-usage"],
    ),
    "the root is for servers only": (
        lambda: make_root(eku=(SERVER,)).intermediate().raw(),
        ["extended-key-usage"],
    ),
    "an intermediate requires a policy": (
        lambda: make_ca(extensions=((x509.PolicyConstraints(0, None), True),)).raw(),
        ["policy-required"],
    ),
    "a root beside the path is not a CA": (
        lambda: (ca := make_ca()).raw(roots=(ca.root, ca.workload_leaf())),
        ["root-not-a-ca"],
    ),
    "ca-cert names another key of its issuer": (
        lambda: make_ca(aki=False, extensions=((OTHER_KEY, False),)).raw(),
        ["key-id-mismatch"],
    ),
    "ca-cert names another serial number of its issuer": (
        lambda: make_ca(aki=False, extensions=((OTHER_SERIAL, False),)).raw(),
        ["key-id-mismatch"],
    ),
    "the TLS layout, tls.crt without a newline at its end": (
        lambda: (ca := make_ca()) and tls_layout(ca.pem.rstrip(), ca.key_pem, ca.root.pem),
        ["pem-glued"],
    ),
    "the TLS layout, an intermediate missing": (
        lambda: (ca := deep()) and tls_layout(ca.pem, ca.key_pem, ca.root.pem),
        ["unknown-authority"],
    ),
}

# Row 20, and what Envoy makes of the lists.
LISTS_REFUSED = {
    "20 a list is garbage": (
        lambda _: encode("X509 CRL", b"garbage"),
        ["crl-unreadable"],
    ),
    "20 a list is labelled CRL": (
        lambda ca: ca.crl().replace(b"X509 CRL", b"CRL"),
        ["pem-label"],
    ),
    "20 ca-cert has no list": (lambda ca: ca.root.crl(), ["crl-missing"]),
    "20 the root has no list": (lambda ca: ca.crl(), ["crl-missing"]),
    "20 a list was signed by another key": (
        lambda ca: ca.crl(key=material.new_key()) + ca.root.crl(),
        ["crl-missing"],
    ),
    "a list is past its next update": (
        lambda ca: ca.crl(next_update=NOW - SECOND) + ca.root.crl(),
        ["crl-expired"],
    ),
    "a list is not valid yet": (
        lambda ca: ca.crl(this_update=NOW + DAY) + ca.root.crl(),
        ["crl-not-yet-valid"],
    ),
    "the root's list revokes ca-cert": (
        lambda ca: ca.crl() + ca.root.crl([ca.certificate]),
        ["certificate-revoked"],
    ),
}

# "Not rejected" of section 2.2, and more that works.
ACCEPTED = {
    "an intermediate under a root": a_set,
    "two intermediates under a root": lambda: deep().raw(),
    "an RSA key of 1024 bits": lambda: make_ca(key=RSA_1024).raw(),
    "a P-224 key": lambda: make_ca(key=ec.generate_private_key(ec.SECP224R1())).raw(),
    "a P-384 key": lambda: make_ca(key=ec.generate_private_key(ec.SECP384R1())).raw(),
    "a P-521 key": lambda: make_ca(key=ec.generate_private_key(ec.SECP521R1())).raw(),
    "an Ed25519 key": lambda: make_ca(key=ed25519.Ed25519PrivateKey.generate()).raw(),
    "a PKCS #8 RSA key": lambda: make_ca(key=RSA_2048).raw(),
    "a PKCS #1 RSA key": lambda: (ca := make_ca(key=RSA_2048)).raw(private_key=sec1(ca)),
    "a SEC 1 EC key": lambda: (ca := make_ca()).raw(private_key=sec1(ca)),
    "CRLF line ends": lambda: converted(lambda pem: pem.replace(b"\n", b"\r\n")),
    "no newline at the end of a file": lambda: converted(bytes.rstrip),
    "text before BEGIN": lambda: converted(lambda pem: b"subject=Istio\n" + pem),
    "further certificates after the first of ca-cert": lambda: (ca := make_ca()).raw(
        certificate=material.pem(ca, ca.root)
    ),
    "an expired root beside the path": lambda: (ca := make_ca()).raw(
        roots=(make_root(not_after=NOW - DAY), ca.root)
    ),
    "an unrelated root beside the path": lambda: (ca := make_ca()).raw(
        roots=(make_root(subject="CN=Other"), ca.root)
    ),
    "another root of the same name beside the path": lambda: (ca := make_ca()).raw(
        roots=(make_root(), ca.root, make_root())
    ),
    "the self-signed root as ca-cert": lambda: make_root().raw(),
    "an intermediate as the only root": lambda: (ca := deep()).raw(roots=(ca.parent,)),
    "ca-cert itself as the only root": lambda: (ca := make_ca()).raw(roots=(ca,)),
    "the chain without the root": lambda: (ca := make_ca()).raw(chain=(ca,)),
    "issuers in any order after ca-cert": lambda: (ca := deep()).raw(
        chain=(ca, ca.root, ca.parent)
    ),
    "extendedKeyUsage with both sides of TLS": lambda: make_ca(eku=(CLIENT, SERVER)).raw(),
    "a root for any purpose": lambda: make_root(eku=(ANY,)).intermediate().raw(),
    "no keyUsage at all": lambda: make_root(key_usage=None).intermediate(key_usage=None).raw(),
    "no key identifiers at all": lambda: make_root(ski=False).intermediate(aki=False).raw(),
    "a root signed with SHA-1": sha1_root,
    "name constraints that permit the names": lambda: (
        make_root(permitted=[x509.DNSName("svc"), x509.UniformResourceIdentifier("cluster.local")])
        .intermediate()
        .raw()
    ),
    "a policy constraint of the root": lambda: (
        make_root(extensions=((x509.PolicyConstraints(0, None), True),)).intermediate().raw()
    ),
    "the TLS layout": lambda: (ca := make_ca()) and tls_layout(ca.pem, ca.key_pem, ca.root.pem),
    "the TLS layout with an intermediate in tls.crt": lambda: (
        (ca := deep()) and tls_layout(material.pem(ca, ca.parent), ca.key_pem, ca.root.pem)
    ),
    "lists of every signer": lambda: (ca := make_ca()).raw(crls=ca.crl() + ca.root.crl()),
    "a stale list beside a present one": lambda: (ca := make_ca()).raw(
        crls=ca.crl(next_update=NOW - DAY) + ca.crl() + ca.root.crl()
    ),
    "a list that revokes somebody else": lambda: (ca := make_ca()).raw(
        crls=ca.crl([ca.workload_leaf().certificate])
        + ca.root.crl([ca.root.intermediate().certificate])
    ),
}


# What is shown, and published.
WARNED = {
    "an RSA key under 2048 bits": (lambda: make_ca(key=RSA_1024).raw(), ["weak-key"]),
    "a P-224 key": (
        lambda: make_ca(key=ec.generate_private_key(ec.SECP224R1())).raw(),
        ["weak-key"],
    ),
    "an Ed25519 key": (
        lambda: make_ca(key=ed25519.Ed25519PrivateKey.generate()).raw(),
        ["ed25519-key"],
    ),
    "ca-cert without a subject key identifier": (lambda: make_ca(ski=False).raw(), ["no-key-id"]),
    "ca-cert expires within two workload TTLs": (
        lambda: make_ca(not_after=NOW + 2 * DAY - SECOND).raw(),
        ["expires-soon"],
    ),
    "the root expires within two workload TTLs": (
        lambda: make_root(not_after=NOW + DAY).intermediate().raw(),
        ["expires-soon"],
    ),
    "names of a default mesh are not permitted": (
        lambda: make_ca(permitted=[x509.UniformResourceIdentifier("mesh.example")]).raw(),
        ["name-constraints-unusual"],
    ),
    "a certificate of the chain is on no path": (
        lambda: (ca := make_ca()).raw(chain=(ca, ca.root.intermediate(), ca.root)),
        ["chain-unused"],
    ),
    "a root beside the path expired": (
        lambda: (ca := make_ca()).raw(roots=(ca.root, make_root(not_after=NOW - DAY))),
        ["root-not-valid"],
    ),
    "a root beside the path is not valid yet": (
        lambda: (ca := make_ca()).raw(roots=(ca.root, make_root(not_before=NOW + DAY))),
        ["root-not-valid"],
    ),
    "a root beside the path has no list": (
        lambda: (ca := make_ca()).raw(
            crls=ca.crl() + ca.root.crl(), roots=(ca.root, make_root(subject="CN=Other"))
        ),
        ["crl-missing-for-root"],
    ),
    "a certificate after the first of ca-cert, missing in the chain": (
        lambda: (ca := make_ca()).raw(certificate=material.pem(ca, ca.root.intermediate())),
        ["extra-blocks"],
    ),
    "a certificate after the key": (
        lambda: (ca := make_ca()).raw(private_key=ca.key_pem + ca.pem),
        ["extra-blocks"],
    ),
}


def crowded() -> RawBundle:
    """More issuers of one name than a peer tries, none of which signed."""
    ca = make_ca()
    crowd = [make_root() for _ in range(MAX_SIGNATURE_CHECKS // 2 + 10)]
    return ca.raw(chain=(ca, *crowd), roots=crowd)


@pytest.mark.parametrize("row", [*ISTIOD_REFUSES, *BREAKS_THE_MESH])
def test_refused(row):
    build, codes = {**ISTIOD_REFUSES, **BREAKS_THE_MESH}[row]

    assert errors(build()) == codes


@pytest.mark.parametrize("row", LISTS_REFUSED)
def test_revocation_lists_refused(row):
    make, codes = LISTS_REFUSED[row]
    ca = make_ca()

    assert errors(ca.raw(crls=make(ca))) == codes


def test_a_list_of_a_ca_that_may_not_sign_lists_is_refused():
    """The Makefile's CAs have no cRLSign."""
    ca = make_ca(key_usage=("key_cert_sign",))

    assert errors(ca.raw(crls=ca.crl() + ca.root.crl())) == ["crl-signer"]


def test_a_chain_with_more_issuers_of_one_name_than_peers_try_is_refused():
    assert errors(crowded()) == ["too-many-paths"]


@pytest.mark.parametrize("row", ACCEPTED)
def test_accepted(row):
    raw = ACCEPTED[row]()

    assert errors(raw) == []
    assert isinstance(verify(KeyCertBundle.decode(raw), NOW), VerifiedBundle)


@pytest.mark.parametrize("row", WARNED)
def test_warned(row):
    build, codes = WARNED[row]
    raw = build()

    assert errors(raw) == []
    assert warnings(raw) == codes


def test_a_good_set_has_no_findings():
    assert found(a_set()) == ()


def test_every_finding_has_a_code_of_the_list_in_its_severity_a_hint_and_three_lines_at_most():
    tables = {**ISTIOD_REFUSES, **BREAKS_THE_MESH, **WARNED}
    for build, _ in tables.values():
        for finding in found(build()):
            listed = ERRORS if finding.severity is Severity.ERROR else WARNINGS
            assert finding.code in listed
            assert finding.hint
            assert finding.message.count("\n") == finding.hint.count("\n") == 0


def test_a_finding_names_the_certificate_that_is_wrong():
    ca = deep(not_after=NOW - DAY)

    (finding,) = found(ca.raw())

    assert finding.part == "chain"
    assert finding.subject == "CN=Middle CA,O=Istio"
    assert finding.fingerprint == ca.parent.fingerprint
    assert "2026-06-30T12:00:00Z" in finding.message


def test_two_faults_are_two_findings():
    ca = make_ca(not_after=NOW - DAY)

    assert errors(ca.raw(private_key=make_root().key_pem)) == [
        "key-mismatch",
        "certificate-expired",
    ]


def test_errors_come_before_warnings():
    ca = make_ca(ski=False)

    severities = [each.severity for each in found(ca.raw(chain=(ca.root,)))]

    assert severities == [Severity.ERROR, Severity.WARNING]


def test_a_refusal_tells_the_first_reason_the_count_and_what_to_do():
    raw = make_ca(not_after=NOW - DAY).raw(private_key=make_root().key_pem)

    with pytest.raises(MaterialRefused) as refused:
        verify(KeyCertBundle.decode(raw), NOW)

    assert "does not belong" in refused.value.message
    assert "(1 more: certificate-expired)" in refused.value.message
    assert refused.value.hint == refused.value.findings[0].hint
    assert str(refused.value).count("\n") < 3


def test_dates_hold_to_the_second():
    raw = make_ca(not_before=NOW, not_after=NOW + DAY).raw()

    assert errors(raw, NOW) == []
    assert errors(raw, NOW + DAY) == []
    assert errors(raw, NOW - SECOND) == ["certificate-not-yet-valid"]
    assert errors(raw, NOW + DAY + SECOND) == ["certificate-expired"]


def test_a_bad_path_after_a_good_one_does_no_harm():
    """A CA cross-signed by an expired root and by a good one."""
    old, new = make_root(subject="CN=Old", not_after=NOW - DAY), make_root(subject="CN=New")
    key = material.new_key()
    middle, crossed = old.middle(key=key), new.middle(key=key)
    ca = crossed.intermediate()

    raw = ca.raw(chain=(ca, crossed, middle), roots=(old, new))
    verified = verify(KeyCertBundle.decode(raw), NOW)

    assert [each.subject for each in verified.path] == [
        "L=cluster1,CN=Intermediate CA,O=Istio",
        "CN=Middle CA,O=Istio",
        "CN=New",
    ]
    assert [each.subject for each in verified.anchors] == ["CN=New"]


def test_a_bad_path_before_a_good_one_is_refused():
    """Go turns back and finds the good one; Envoy 1.40 and OpenSSL 3 do not."""
    old, new = make_root(subject="CN=Old", not_after=NOW - DAY), make_root(subject="CN=New")
    key = material.new_key()
    middle, crossed = old.middle(key=key), new.middle(key=key)
    ca = crossed.intermediate()

    (finding,) = found(ca.raw(chain=(ca, middle, crossed), roots=(old, new)))

    assert finding.code == "misleading-path"
    assert finding.subject == "CN=Old"
    assert "expired" in finding.message


def test_an_expired_root_beside_its_renewal_with_the_same_key_is_refused():
    old = make_root(not_before=material.NOT_BEFORE - DAY, not_after=NOW - DAY)
    new = make_root(key=old.key)
    ca = new.intermediate()

    assert errors(ca.raw(roots=(old, new))) == ["misleading-path"]
    assert errors(ca.raw(roots=(new,))) == []


def test_an_issuer_of_the_same_name_and_no_key_identifier_misleads():
    root = make_root(ski=False)
    impostor = make_root(ski=False, not_before=material.NOT_BEFORE - DAY)
    ca = root.intermediate(aki=False)

    (finding,) = found(ca.raw(roots=(root, impostor)))

    assert finding.code == "misleading-path"
    assert "another key" in finding.message


def test_the_anchors_are_the_roots_that_alone_verify_a_workload():
    old, new = make_root(subject="CN=Old"), make_root(subject="CN=New")
    key = material.new_key()
    middle, crossed = old.middle(key=key), new.middle(key=key)
    ca = crossed.intermediate()
    other = make_root(subject="CN=Other")

    raw = ca.raw(chain=(ca, middle, crossed), roots=(old, new, other))
    verified = verify(KeyCertBundle.decode(raw), NOW)

    assert {each.subject for each in verified.anchors} == {"CN=Old", "CN=New"}


def test_of_two_paths_the_longer_lived_is_told():
    old = make_root(subject="CN=Old", not_after=NOW + 30 * DAY)
    new = make_root(subject="CN=New")
    key = material.new_key()
    middle, crossed = old.middle(key=key), new.middle(key=key)
    ca = crossed.intermediate()

    raw = ca.raw(chain=(ca, middle, crossed), roots=(old, new))
    verified = verify(KeyCertBundle.decode(raw), NOW)

    assert verified.path[-1].subject == "CN=New"
    assert verified.not_after == material.NOT_AFTER


def test_a_verified_bundle_knows_from_when_to_when_its_path_holds():
    root = make_root(not_after=NOW + 3 * DAY)
    ca = root.intermediate(not_before=NOW - DAY)

    verified = verify(KeyCertBundle.decode(ca.raw()), NOW)

    assert (verified.not_before, verified.not_after) == (NOW - DAY, NOW + 3 * DAY)
    assert verified.warnings == ()


def test_only_verify_makes_a_verified_bundle():
    bundle = KeyCertBundle.decode(a_set())

    with pytest.raises(TypeError, match="only a verification"):
        VerifiedBundle(bundle, (), (), NOW, NOW, (), proof=object())


def test_expiries_tell_the_first_of_each_part():
    root = make_root(not_after=NOW + 9 * DAY)
    early = root.middle(not_after=NOW + 5 * DAY)
    ca = early.intermediate(not_after=NOW + 7 * DAY)
    other = make_root(not_after=NOW + 8 * DAY)

    bundle = KeyCertBundle.decode(ca.raw(roots=(root, other)))

    assert expiries(bundle) == {
        "certificate": NOW + 7 * DAY,
        "chain": NOW + 5 * DAY,
        "roots": NOW + 8 * DAY,
    }


def test_an_empty_chain_has_no_expiry():
    assert set(expiries(KeyCertBundle.decode(a_set_with(chain=b"")))) == {"certificate", "roots"}


def test_a_key_of_a_kind_that_istiod_cannot_sign_with_is_refused():
    raw = a_set_with(private_key=material.private_key_pem(ed448.Ed448PrivateKey.generate()))

    assert errors(raw) == ["key-unreadable"]


def test_a_signature_with_sha512_is_accepted_and_with_sha224_refused():
    root = make_root()
    good = root.intermediate(hash=SHA512())
    bad = root.intermediate(hash=SHA224())

    assert errors(good.raw()) == []
    assert errors(bad.raw()) == ["insecure-signature"]


def test_a_pss_signature_needs_a_strong_hash_too():
    root = make_root(key=RSA_2048)
    pss = padding.PSS(padding.MGF1(SHA256()), padding.PSS.DIGEST_LENGTH)
    weak = padding.PSS(padding.MGF1(SHA224()), padding.PSS.DIGEST_LENGTH)

    assert errors(root.intermediate(padding=pss).raw()) == []
    assert errors(root.intermediate(padding=weak, hash=SHA224()).raw()) == ["insecure-signature"]


def test_an_rsa_key_that_go_refuses_is_refused():
    assert errors(RSA_512, datetime(2030, 1, 1, tzinfo=UTC)) == ["key-too-small"]


def test_a_list_with_an_unknown_signature_algorithm_counts_for_nothing():
    ca = make_ca()
    lines = ca.crl().splitlines()
    der = b64decode(b"".join(lines[1:-1]))
    unknown = der.replace(material.ECDSA_SHA256, material.ECDSA_SHA256[:-1] + b"\x7f")

    assert errors(ca.raw(crls=encode("X509 CRL", unknown) + ca.root.crl())) == ["crl-missing"]


def test_an_address_that_a_root_does_not_permit_is_refused():
    inside = x509.IPAddress(ip_network("10.0.0.0/8"))
    names = x509.SubjectAlternativeName([x509.IPAddress(next(ip_network("192.0.2.0/24").hosts()))])
    root = make_root(permitted=[inside])

    assert errors(root.intermediate(dns=(), extensions=((names, False),)).raw()) == [
        "name-constraints-violated"
    ]
