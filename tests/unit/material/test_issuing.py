"""The profiles of Istio's tools/certs, read back from the DER."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from certagent.material import issuing
from certagent.material.bundle import KeyCertBundle
from certagent.material.issuing import KeyType, Validity
from certagent.material.verification import verify
from tests.support.material import NOT_AFTER, NOW

VALIDITY = Validity(NOW, NOT_AFTER)
ROOT = issuing.root(VALIDITY, key_type=KeyType.EC256)
CA = ROOT.intermediate("cluster1", VALIDITY, key_type=KeyType.EC256)
WORKLOAD = CA.workload("spiffe://cluster.local/ns/a/sa/b", Validity(NOW, NOW + timedelta(days=1)))

MAKEFILE_USAGES = {"digital_signature", "content_commitment", "key_encipherment", "key_cert_sign"}


def extensions(issued: issuing.Issued) -> dict[x509.ObjectIdentifier, x509.Extension]:
    return {each.oid: each for each in issued.certificate.extensions}


def usages(issued: issuing.Issued) -> set[str]:
    usage = issued.certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    names = {*MAKEFILE_USAGES, "crl_sign", "data_encipherment", "key_agreement"}
    return {name for name in names if getattr(usage.value, name)}


def subject(issued: issuing.Issued) -> list[tuple[str, str]]:
    return [(each.rfc4514_attribute_name, each.value) for each in issued.certificate.subject]


def test_a_root_has_the_makefiles_profile():
    found = extensions(ROOT)

    assert subject(ROOT) == [("O", "Istio"), ("CN", "Root CA")]
    assert ROOT.certificate.issuer == ROOT.certificate.subject
    assert found[ExtensionOID.BASIC_CONSTRAINTS].critical
    assert found[ExtensionOID.BASIC_CONSTRAINTS].value == x509.BasicConstraints(True, None)
    assert usages(ROOT) == MAKEFILE_USAGES
    assert set(found) == {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    }


def test_an_intermediate_has_the_makefiles_profile():
    found = extensions(CA)

    assert subject(CA) == [("O", "Istio"), ("CN", "Intermediate CA"), ("L", "cluster1")]
    assert CA.certificate.issuer == ROOT.certificate.subject
    assert found[ExtensionOID.BASIC_CONSTRAINTS].critical
    assert found[ExtensionOID.BASIC_CONSTRAINTS].value == x509.BasicConstraints(True, 0)
    assert usages(CA) == MAKEFILE_USAGES
    assert list(found[ExtensionOID.SUBJECT_ALTERNATIVE_NAME].value) == [
        x509.DNSName("istiod.istio-system.svc")
    ]
    assert ExtensionOID.EXTENDED_KEY_USAGE not in found


def test_an_intermediate_names_its_issuers_key():
    issuer = extensions(ROOT)[ExtensionOID.SUBJECT_KEY_IDENTIFIER].value
    named = extensions(CA)[ExtensionOID.AUTHORITY_KEY_IDENTIFIER].value

    assert named.key_identifier == issuer.digest


def test_a_workload_has_both_sides_of_tls_and_a_spiffe_id():
    found = extensions(WORKLOAD)

    assert subject(WORKLOAD) == []
    assert found[ExtensionOID.BASIC_CONSTRAINTS].value == x509.BasicConstraints(False, None)
    assert usages(WORKLOAD) == {"digital_signature", "key_encipherment"}
    assert list(found[ExtensionOID.EXTENDED_KEY_USAGE].value) == [
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    ]
    assert found[ExtensionOID.SUBJECT_ALTERNATIVE_NAME].critical
    assert list(found[ExtensionOID.SUBJECT_ALTERNATIVE_NAME].value) == [
        x509.UniformResourceIdentifier("spiffe://cluster.local/ns/a/sa/b")
    ]


def test_signatures_are_sha256_and_hold():
    for issued, issuer in ((ROOT, ROOT), (CA, ROOT), (WORKLOAD, CA)):
        assert issued.certificate.signature_hash_algorithm.name == "sha256"
        issued.certificate.verify_directly_issued_by(issuer.certificate)


def test_the_dates_are_the_callers():
    assert CA.certificate.not_valid_before_utc == NOW
    assert CA.certificate.not_valid_after_utc == NOT_AFTER


def test_crl_sign_is_added_when_asked_for():
    root = issuing.root(VALIDITY, key_type=KeyType.EC256, crl_sign=True)
    ca = root.intermediate("cluster1", VALIDITY, key_type=KeyType.EC256, crl_sign=True)

    assert usages(root) == usages(ca) == {*MAKEFILE_USAGES, "crl_sign"}


@pytest.mark.parametrize(
    ("key_type", "kind", "bits"),
    [
        (KeyType.RSA2048, rsa.RSAPrivateKey, 2048),
        (KeyType.RSA3072, rsa.RSAPrivateKey, 3072),
        (KeyType.EC256, ec.EllipticCurvePrivateKey, 256),
        (KeyType.EC384, ec.EllipticCurvePrivateKey, 384),
    ],
)
def test_a_key_is_of_the_type_that_was_asked_for(key_type, kind, bits):
    key = key_type.generate()

    assert isinstance(key, kind)
    assert key.key_size == bits


def test_the_makefiles_key_type_is_the_default():
    assert issuing.root.__kwdefaults__["key_type"] is KeyType.RSA4096
    assert issuing.Authority.intermediate.__kwdefaults__["key_type"] is KeyType.RSA4096


def test_the_set_of_an_intermediate_verifies_without_a_warning():
    verified = verify(KeyCertBundle.decode(CA.bundle()), NOW)

    assert verified.warnings == ()
    assert len(verified.path) == 2


def test_the_set_is_joined_as_the_makefile_joins_it():
    raw = CA.bundle()

    assert raw.chain == CA.certificate_pem + ROOT.certificate_pem
    assert raw.roots == ROOT.certificate_pem
    assert raw.private_key == CA.key_pem
    assert raw.private_key.startswith(b"-----BEGIN PRIVATE KEY-----")


def test_a_root_can_be_a_set_of_its_own():
    assert verify(KeyCertBundle.decode(ROOT.bundle()), NOW).warnings == ()


def test_two_clusters_under_one_root_have_one_set_of_roots():
    other = ROOT.intermediate("cluster2", VALIDITY, key_type=KeyType.EC256)
    bundles = [KeyCertBundle.decode(each.bundle()) for each in (CA, other)]

    assert bundles[0].root_set == bundles[1].root_set
    assert bundles[0].certificate.fingerprint != bundles[1].certificate.fingerprint


def test_a_key_has_no_repr():
    assert repr(CA) == "Authority()"
    assert repr(WORKLOAD) == "Issued()"
