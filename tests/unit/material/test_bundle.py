"""The bundle: parts in, canonical bytes out."""

from __future__ import annotations

import base64
import hashlib
import random
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from certagent.errors import MaterialRefused
from certagent.material import certificates, keys
from certagent.material.bundle import KeyCertBundle, refusal, tls_layout
from certagent.material.certificates import Certificate, RevocationList, Unparseable
from certagent.material.finding import Finding, Severity
from certagent.material.keys import PrivateKey
from certagent.material.pem import encode
from certagent.material.raw import RawBundle
from certagent.material.verification import findings
from tests.support import material
from tests.support.material import NOW, a_set, make_ca, make_root

PARTS = ("private_key", "certificate", "chain", "roots", "crls")
CA = make_ca()
GOOD = CA.raw(crls=CA.crl() + CA.root.crl())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def replaced(part: str, data: bytes) -> RawBundle:
    return RawBundle(**{**{name: getattr(GOOD, name) for name in PARTS}, part: data})


def refused(raw: RawBundle) -> list[tuple[str, str]]:
    with pytest.raises(MaterialRefused) as error:
        KeyCertBundle.decode(raw)
    return [(each.part, each.code) for each in error.value.findings]


def test_the_parts_are_read():
    bundle = KeyCertBundle.decode(GOOD)

    assert bundle.certificate.fingerprint == CA.fingerprint
    assert [each.subject for each in bundle.chain] == [
        "L=cluster1,CN=Intermediate CA,O=Istio",
        "CN=Root CA,O=Istio",
    ]
    assert [each.fingerprint for each in bundle.roots] == [CA.root.fingerprint]
    assert [each.issuer for each in bundle.crls] == [each.subject for each in bundle.chain]
    assert bundle.notes == ()


def test_a_certificate_tells_what_openssl_tells():
    certificate = KeyCertBundle.decode(make_ca(serial=0xABC).raw()).certificate

    assert certificate.serial == "0ABC"
    assert certificate.issuer == "CN=Root CA,O=Istio"
    assert certificate.not_before == material.NOT_BEFORE
    assert certificate.not_after == material.NOT_AFTER
    assert certificate.fingerprint == hashlib.sha256(certificate.der).hexdigest()


def test_the_canonical_form_of_canonical_parts_is_the_parts():
    assert KeyCertBundle.decode(GOOD).canonical() == GOOD


def test_untidy_parts_have_the_canonical_form_of_the_tidy_ones():
    untidy = RawBundle(
        *(b"# text\r\n" + getattr(GOOD, part).replace(b"\n", b" \r\n").rstrip() for part in PARTS)
    )

    assert KeyCertBundle.decode(untidy).canonical() == GOOD


def test_a_key_keeps_its_label():
    sec1 = material.private_key_pem(CA.key, "TraditionalOpenSSL")

    assert KeyCertBundle.decode(replaced("private_key", sec1)).canonical().private_key == sec1


roots = [
    make_root(not_before=material.NOT_BEFORE + timedelta(days=days)) for days in (3, 1, 2, 1, 1)
]


@given(st.lists(st.sampled_from(roots), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_bytes_of_the_roots_are_a_function_of_their_set(chosen, order):
    shuffled = random.Random(order.random()).sample(chosen, len(chosen))

    one = KeyCertBundle.decode(CA.raw(roots=chosen))
    two = KeyCertBundle.decode(CA.raw(roots=shuffled))
    alone = KeyCertBundle.decode(CA.raw(roots=tuple(set(chosen))))

    assert one.canonical().roots == two.canonical().roots == alone.canonical().roots
    assert one.root_set == two.root_set == alone.root_set


def test_roots_are_sorted_by_not_before_then_fingerprint():
    bundle = KeyCertBundle.decode(CA.raw(roots=roots))

    order = [(root.not_before, root.fingerprint) for root in bundle.roots]
    assert order == sorted(order)
    assert len(order) == len(roots)


def test_different_sets_of_roots_have_different_names():
    sets = [roots[:1], roots[:2], roots[1:2], roots]

    assert len({KeyCertBundle.decode(CA.raw(roots=each)).root_set for each in sets}) == len(sets)


def test_the_root_set_is_the_hash_of_the_sorted_hashes():
    (root,) = KeyCertBundle.decode(GOOD).roots

    digest = hashlib.sha256(hashlib.sha256(root.der).digest()).hexdigest()
    assert KeyCertBundle.decode(GOOD).root_set == digest


def test_the_chain_keeps_its_order_and_its_duplicates():
    bundle = KeyCertBundle.decode(CA.raw(chain=(CA.root, CA, CA)))

    assert bundle.canonical().chain == material.pem(CA.root, CA, CA)


def test_a_set_holds_from_the_latest_of_its_signers_and_the_earliest_root():
    day = timedelta(days=1)
    root, later = make_root(not_before=NOW - 5 * day), make_root(not_before=NOW + 9 * day)
    ca = root.middle(not_before=NOW - day).intermediate(not_before=NOW - 3 * day)

    assert KeyCertBundle.decode(ca.raw(roots=(root, later))).not_before == NOW - day
    assert KeyCertBundle.decode(ca.raw(chain=(ca,))).not_before == NOW - 3 * day
    assert KeyCertBundle.decode(ca.raw(roots=(later,))).not_before == NOW + 9 * day


def test_two_bundles_with_the_same_der_are_equal_whatever_is_noted():
    extra = replaced("certificate", CA.pem + make_root(subject="CN=Other").pem)

    noted = KeyCertBundle.decode(extra)

    assert [each.code for each in noted.notes] == ["extra-blocks"]
    assert noted == KeyCertBundle.decode(GOOD)


def test_a_certificate_after_the_first_that_the_chain_has_too_needs_no_note():
    assert KeyCertBundle.decode(replaced("certificate", CA.pem + CA.root.pem)).notes == ()


def test_the_faults_of_all_parts_are_told_in_one_go():
    broken = RawBundle(b"x", b"x", CA.pem.rstrip() + CA.pem, b"", b"x")

    assert refused(broken) == [
        ("private_key", "pem-missing"),
        ("certificate", "pem-missing"),
        ("chain", "pem-glued"),
        ("roots", "part-empty"),
        ("crls", "pem-missing"),
    ]


@pytest.mark.parametrize("part", ["certificate", "chain", "roots", "crls"])
def test_a_private_key_in_a_part_that_all_may_read_is_refused(part):
    assert refused(replaced(part, getattr(GOOD, part) + CA.key_pem)) == [
        (part, "key-in-public-part")
    ]


@pytest.mark.parametrize("part", ["certificate", "chain", "roots", "crls"])
def test_headers_are_refused(part):
    first, rest = getattr(GOOD, part).split(b"\n", 1)

    assert refused(replaced(part, b"\n".join([first, b"Comment: x", b"", rest]))) == [
        (part, "pem-headers")
    ]


@pytest.mark.parametrize("part", ["certificate", "chain", "roots"])
@pytest.mark.parametrize("label", [b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE", b"PKCS7"])
def test_another_label_is_refused(part, label):
    data = getattr(GOOD, part).replace(b"CERTIFICATE", label, 2)

    assert refused(replaced(part, data)) == [(part, "pem-label")]


def test_a_key_with_headers_that_is_not_encrypted_is_refused():
    first, rest = CA.key_pem.split(b"\n", 1)

    headed = b"\n".join([first, b"Comment: x", b"", rest])
    assert refused(replaced("private_key", headed)) == [("private_key", "pem-headers")]


@pytest.mark.parametrize("label", sorted(keys.LABELS - {"PRIVATE KEY"}))
def test_a_pkcs8_key_under_another_label_is_refused(label):
    data = CA.key_pem.replace(b"PRIVATE KEY", label.encode())

    assert refused(replaced("private_key", data)) == [("private_key", "key-label")]


def test_an_openssh_key_is_refused():
    data = encode("OPENSSH PRIVATE KEY", b"openssh-key-v1")

    assert refused(replaced("private_key", data)) == [("private_key", "key-label")]


@pytest.mark.parametrize("der", [b"\x30", b"\x30\x03\x02\x01\x00", b"\x31\x00", b"\x30\x82\x00"])
def test_a_damaged_key_is_refused_without_a_word_of_its_content(der):
    assert refused(replaced("private_key", encode("PRIVATE KEY", der))) == [
        ("private_key", "key-unreadable")
    ]


def test_a_key_on_a_curve_that_go_lacks_is_refused():
    key = ec.generate_private_key(ec.SECP256K1())

    assert refused(replaced("private_key", material.private_key_pem(key))) == [
        ("private_key", "key-unreadable")
    ]


def test_an_rsa_key_whose_numbers_do_not_fit_together_is_refused():
    """crypto/rsa PrivateKey.Validate; istiod would sign what nobody can verify."""
    good = material.private_key_pem(RSA_KEY, "TraditionalOpenSSL")
    numbers = RSA_KEY.private_numbers()
    length = (numbers.d.bit_length() + 7) // 8
    old = numbers.d.to_bytes(length, "big")
    der = b"".join(good.splitlines()[1:-1])

    broken = base64.b64decode(der).replace(old, (numbers.d - 2).to_bytes(length, "big"))

    assert PrivateKey.load("RSA PRIVATE KEY", base64.b64decode(der))
    with pytest.raises(Unparseable, match="do not fit together"):
        PrivateKey.load("RSA PRIVATE KEY", broken)


def test_a_certificate_with_a_repeated_extension_is_refused():
    """crypto/x509.parseCertificate: "certificate contains duplicate extensions"."""
    ca = make_ca(aki=True)
    ski, aki = bytes.fromhex("0603551d0e"), bytes.fromhex("0603551d23")

    with pytest.raises(Unparseable):
        Certificate.load(material.forge_der(ca, aki, ski, ca.parent.key))


def test_a_certificate_of_an_unknown_version_is_refused():
    ca = make_ca()
    v3, v9 = bytes.fromhex("a003020102"), bytes.fromhex("a003020108")

    with pytest.raises(Unparseable):
        Certificate.load(material.forge_der(ca, v3, v9, ca.parent.key))


def test_data_after_a_certificate_is_refused():
    der = Certificate.load(Certificate.load(der_of(CA)).der).der

    with pytest.raises(Unparseable):
        Certificate.load(der + b"\x00")


def der_of(ca) -> bytes:
    return KeyCertBundle.decode(ca.raw()).certificate.der


def test_a_name_with_control_characters_is_shown_on_one_line():
    ca = make_ca(subject="CN=a\nERROR forged \x1b[31m line")

    subject = KeyCertBundle.decode(ca.raw()).certificate.subject

    assert subject == "CN=a\\0AERROR forged \\1B[31m line"


def test_a_panic_of_the_parser_is_a_fault_of_its_input():
    class PanicException(BaseException):
        """As pyo3 names it; it cannot be imported."""

    def panic():
        raise PanicException("index out of range")

    with pytest.raises(Unparseable, match="index out of range"):
        certificates.guarded(panic)


def test_an_interrupt_is_not_a_fault_of_the_input():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        certificates.guarded(interrupted)


def test_nothing_of_a_key_is_in_a_repr():
    bundle = KeyCertBundle.decode(GOOD)

    assert repr(bundle.private_key) == "PrivateKey(label='PRIVATE KEY')"
    assert "key=<" not in repr(bundle)
    assert str(bundle.private_key.der) not in repr(bundle)


def test_the_tls_layout_joins_its_files_byte_by_byte():
    raw = tls_layout(b"leaf\n", b"key", b"root")

    assert raw == RawBundle(b"key", b"leaf\n", b"leaf\nroot", b"root", b"")


def test_a_refusal_of_one_fault_counts_nothing():
    finding = Finding("key-mismatch", Severity.ERROR, "private_key", "Not this one.", "Another.")

    error = refusal((finding,))

    assert str(error) == "private_key: Not this one.\nAnother."
    assert error.exit_code == 65


@given(st.sampled_from(PARTS), st.binary(max_size=200))
def test_any_bytes_of_any_part_end_in_a_bundle_or_a_refusal(part, data):
    for candidate in (data, encode("CERTIFICATE", data or b"x"), encode("X509 CRL", data or b"x")):
        decoded(replaced(part, candidate))


@given(st.sampled_from(PARTS), st.data())
def test_a_part_with_any_byte_changed_is_refused_or_judged(part, data):
    """The DER is damaged, not the PEM around it: that is where parsers break."""
    label, load = {
        "private_key": ("PRIVATE KEY", KeyCertBundle.decode(GOOD).private_key.der),
        "crls": ("X509 CRL", KeyCertBundle.decode(GOOD).crls[0].der),
    }.get(part, ("CERTIFICATE", KeyCertBundle.decode(GOOD).certificate.der))
    der = bytearray(load)
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))

    bundle = decoded(replaced(part, encode(label, bytes(der))))

    if bundle:
        findings(bundle, NOW)
        assert KeyCertBundle.decode(bundle.canonical()) == bundle
        assert KeyCertBundle.decode(bundle.canonical()).canonical() == bundle.canonical()


def decoded(raw: RawBundle) -> KeyCertBundle | None:
    try:
        return KeyCertBundle.decode(raw)
    except MaterialRefused:
        return None


def test_a_list_without_entries_revokes_nobody():
    crl = KeyCertBundle.decode(GOOD).crls[0]

    assert crl.revoked == frozenset()
    assert RevocationList.load(crl.der) == crl


def test_a_set_is_the_same_whoever_makes_it():
    raw = a_set()

    assert KeyCertBundle.decode(raw) == KeyCertBundle.decode(raw)
    assert KeyCertBundle.decode(raw) != KeyCertBundle.decode(GOOD)
