"""Every set of kind tls that Envoy or its peers would refuse, and what is only shown."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ObjectIdentifier

from certagent.errors import MaterialRefused
from certagent.material.codes import ERRORS, WARNINGS
from certagent.material.finding import Severity
from certagent.material.raw import RawBundle
from certagent.material.serving import decode, tls
from certagent.material.verification import expiries
from tests.support import material
from tests.support.material import (
    ANY,
    CLIENT,
    NOT_BEFORE,
    NOW,
    SERVER,
    make_leaf,
    make_root,
    pem,
)

DAY = timedelta(days=1)
ROOT = make_root()
ISSUER = ROOT.intermediate("gateways", dns=())
KEY = material.new_key()
RSA_2048 = rsa.generate_private_key(public_exponent=65537, key_size=2048)
RSA_1024 = rsa.generate_private_key(public_exponent=65537, key_size=1024)
P224 = ec.generate_private_key(ec.SECP224R1())
MUST_STAPLE = (x509.TLSFeature([x509.TLSFeatureType.status_request]), False)
UNKNOWN_CRITICAL = (x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)
EXPLICIT_POLICY = (x509.PolicyConstraints(0, None), True)
POLICY = (
    x509.CertificatePolicies([x509.PolicyInformation(ObjectIdentifier("1.2.3"), None)]),
    False,
)
SCTS = (
    x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2"), b"\x04\x02\x00\x00"),
    False,
)


def leaf(issuer=ISSUER, **knobs):
    return make_leaf(issuer, **{"key": KEY, **knobs})


def found(raw: RawBundle, usage="server", now=NOW):
    try:
        return tls(usage).findings(decode(raw), now)
    except MaterialRefused as refused:
        return refused.findings


def errors(raw: RawBundle, usage="server", now=NOW) -> list[str]:
    return [each.code for each in found(raw, usage, now) if each.severity is Severity.ERROR]


def warnings(raw: RawBundle, usage="server", now=NOW) -> list[str]:
    return [each.code for each in found(raw, usage, now) if each.severity is Severity.WARNING]


def issuer(**knobs):
    return ROOT.intermediate("gateways", **{"dns": (), **knobs})


def sha1_signed(*, with_its_issuer: bool) -> RawBundle:
    by = make_root(key=RSA_2048).intermediate(key=RSA_2048)
    weak = material.forge(leaf(by), material.SHA256_RSA, material.SHA1_RSA, by.key)
    chain = by.pem if with_its_issuer else b""
    return leaf(by).raw(certificate=material.cert_pem(weak) + chain)


REFUSED = {
    "the key of another certificate": (
        lambda: leaf().raw(private_key=ROOT.key_pem),
        "key-mismatch",
    ),
    "an RSA key of 1024 bits": (lambda: leaf(key=RSA_1024).raw(), "key-too-small"),
    "a key on P-224": (lambda: leaf(key=P224).raw(), "key-unsupported"),
    "expired": (lambda: leaf(not_after=NOW - DAY).raw(), "certificate-expired"),
    "not valid yet": (lambda: leaf(not_before=NOW + DAY).raw(), "certificate-not-yet-valid"),
    "a critical extension that Go cannot read": (
        lambda: leaf(extensions=(UNKNOWN_CRITICAL,)).raw(),
        "unhandled-critical-extension",
    ),
    "must-staple": (lambda: leaf(extensions=(MUST_STAPLE,)).raw(), "must-staple"),
    "keyEncipherment alone": (
        lambda: leaf(key=RSA_2048, key_usage=("key_encipherment",)).raw(),
        "key-usage-lacks-digital-signature",
    ),
    "no alternative name": (lambda: leaf(dns=()).raw(), "san-missing"),
    "a signature with SHA-1": (
        lambda: sha1_signed(with_its_issuer=True),
        "insecure-signature",
    ),
    "a signature with SHA-1 by an issuer that is not sent": (
        lambda: sha1_signed(with_its_issuer=False),
        "insecure-signature",
    ),
    "an expired intermediate": (
        lambda: leaf(issuer(not_after=NOW - DAY)).raw(),
        "certificate-expired",
    ),
    "an intermediate that is not valid yet": (
        lambda: leaf(issuer(not_before=NOW + DAY)).raw(),
        "certificate-not-yet-valid",
    ),
    "an intermediate that is no CA": (lambda: leaf(issuer(ca=False)).raw(), "not-a-ca"),
    "an intermediate without keyCertSign": (
        lambda: leaf(issuer(key_usage=("digital_signature",))).raw(),
        "key-usage-lacks-cert-sign",
    ),
    "an intermediate for clients": (
        lambda: leaf(issuer(eku=(CLIENT,))).raw(),
        "extended-key-usage",
    ),
    "an intermediate whose pathlen is too small": (
        lambda: leaf(ROOT.middle(pathlen=0).intermediate(dns=())).raw(),
        "path-length",
    ),
    "an intermediate that may not sign for the name": (
        lambda: leaf(issuer(permitted=[x509.DNSName("other.example")])).raw(),
        "name-constraints-violated",
    ),
    "an intermediate that requires a policy": (
        lambda: leaf(issuer(extensions=(EXPLICIT_POLICY,))).raw(),
        "policy-required",
    ),
    "an intermediate of the same name that did not sign": (
        lambda: leaf().raw(leaf(), issuer()),
        "signature-mismatch",
    ),
    "an issuer with another key identifier": (
        lambda: leaf(
            aki=False, extensions=((x509.AuthorityKeyIdentifier(b"another", None, None), False),)
        ).raw(),
        "key-id-mismatch",
    ),
    "a root that may not sign": (
        lambda: leaf(roots=(make_root(key_usage=("digital_signature",)),)).raw(),
        "key-usage-lacks-cert-sign",
    ),
    "roots that have all expired": (
        lambda: leaf(roots=(make_root(not_after=NOW - DAY),)).raw(),
        "no-valid-root",
    ),
    "a key among the roots": (
        lambda: leaf().raw(roots=ROOT.pem + ROOT.key_pem),
        "key-in-public-part",
    ),
    "roots that cannot be read": (lambda: leaf().raw(roots=b"roots"), "pem-missing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    make, code = REFUSED[case]

    assert errors(make()) == [code]


def test_every_code_is_documented():
    assert {code for _, code in REFUSED.values()} <= set(ERRORS)


def test_a_good_set_has_nothing_to_be_said_of():
    assert found(leaf(roots=(ROOT,)).raw()) == ()


@pytest.mark.parametrize(
    "key", [RSA_2048, *(ec.generate_private_key(c()) for c in (ec.SECP384R1, ec.SECP521R1))]
)
def test_the_keys_that_envoy_loads_are_taken(key):
    assert found(leaf(key=key).raw()) == ()


@pytest.mark.parametrize(
    ("usage", "eku", "accepted"),
    [
        ("server", None, True),
        ("server", (SERVER,), True),
        ("server", (SERVER, CLIENT), True),
        ("server", (CLIENT,), False),
        ("server", (ANY,), False),
        ("client", None, True),
        ("client", (CLIENT,), True),
        ("client", (SERVER,), False),
        ("client", (ANY,), False),
        ("both", None, True),
        ("both", (SERVER, CLIENT), True),
        ("both", (SERVER,), False),
        ("both", (CLIENT,), False),
    ],
)
def test_the_extended_key_usage_must_name_what_it_is_shown_as(usage, eku, accepted):
    assert errors(leaf(eku=eku).raw(), usage) == ([] if accepted else ["extended-key-usage"])


def test_what_lacks_both_is_told_in_one_finding():
    (finding,) = [
        each for each in found(leaf(eku=(ANY,)).raw(), "both") if each.severity == "error"
    ]

    assert "serverAuth and clientAuth" in finding.message


def test_a_clients_certificate_needs_no_name_and_no_staple():
    raw = leaf(eku=(CLIENT,), dns=(), extensions=(MUST_STAPLE,)).raw()

    assert errors(raw, "client") == []
    assert warnings(raw, "client") == ["client-san-missing"]


def test_a_uri_is_a_name():
    assert found(leaf(dns=(), uris=("spiffe://cluster.local/ns/a/sa/b",)).raw()) == ()


def test_an_address_is_a_name():
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("192.0.2.1"))])

    assert found(leaf(dns=(), extensions=((address, False),)).raw()) == ()


def test_a_mailbox_is_no_name_of_a_server():
    mailbox = x509.SubjectAlternativeName([x509.RFC822Name("a@example.com")])

    assert errors(leaf(dns=(), extensions=((mailbox, False),)).raw()) == ["san-missing"]


@pytest.mark.parametrize(
    "name",
    ["", "*", "*.com", "a.*.example.com", "w*.example.com", "a..b", "a.example.com.", "-a.b"],
)
def test_a_name_that_no_client_can_ask_for_is_shown(name):
    assert warnings(leaf(dns=(name, "good.example.com")).raw()) == ["san-unusable"]
    assert errors(leaf(dns=(name,)).raw()) == ["san-missing"]


@pytest.mark.parametrize("name", ["*.example.com", "my_host", "xn--bcher-kva.example", "A.example"])
def test_a_name_that_clients_can_ask_for_is_taken(name):
    assert found(leaf(dns=(name,)).raw()) == ()


SHOWN = {
    "a chain out of order": (lambda: leaf().raw(ISSUER, leaf()), "chain-repaired"),
    "a stranger in the chain": (lambda: leaf().raw(leaf(), ISSUER, make_root()), "chain-unused"),
    "a root in the chain": (lambda: leaf().raw(leaf(), ISSUER, ROOT), "root-sent"),
    "a leaf that is a CA": (
        lambda: make_leaf(ROOT, ca=True, key_usage=None).raw(),
        "leaf-is-ca",
    ),
    "an Ed25519 key": (
        lambda: leaf(key=ed25519.Ed25519PrivateKey.generate()).raw(),
        "ed25519-key",
    ),
    "an intermediate with a short key": (lambda: leaf(issuer(key=RSA_1024)).raw(), "weak-key"),
    "a root with a short key": (lambda: leaf(roots=(make_root(key=RSA_1024),)).raw(), "weak-key"),
    "a peer's own certificate among the roots": (
        lambda: leaf(roots=(make_root(ca=False, key_usage=("digital_signature",)),)).raw(),
        "root-trusted-for-itself",
    ),
    "an old root, of before there were extensions": (
        lambda: leaf(roots=(make_root(ca=None, key_usage=None, ski=False),)).raw(),
        "root-trusted-for-itself",
    ),
    "an expired root beside a good one": (
        lambda: leaf(roots=(ROOT, make_root(not_after=NOW - DAY))).raw(),
        "root-not-valid",
    ),
    "a publicly trusted certificate without its issuer": (
        lambda: leaf(extensions=(SCTS,)).raw(leaf(extensions=(SCTS,))),
        "chain-incomplete",
    ),
    "keys after the key": (
        lambda: leaf().raw(private_key=leaf().key_pem + ROOT.key_pem),
        "extra-blocks",
    ),
}


@pytest.mark.parametrize("case", SHOWN)
def test_shown(case):
    make, code = SHOWN[case]

    assert errors(make()) == []
    assert warnings(make()) == [code]
    assert code in WARNINGS


def test_a_private_issuer_that_is_not_sent_may_be_the_root():
    assert found(make_leaf(ROOT).raw()) == ()


def test_a_self_signed_certificate_stands_alone():
    own = make_root(ca=False, eku=(SERVER,), key_usage=("digital_signature",), dns=("a.example",))

    assert found(RawBundle(own.key_pem, own.pem)) == ()


def test_an_issuer_that_requires_a_policy_is_good_where_there_is_one():
    assert found(leaf(issuer(extensions=(EXPLICIT_POLICY,)), extensions=(POLICY,)).raw()) == ()


@pytest.mark.parametrize("usage", ["server", "client", "both"])
def test_the_roots_need_not_have_issued_the_certificate(usage):
    raw = leaf(eku=None, roots=(make_root(subject="CN=Clients"),)).raw()

    assert found(raw, usage) == ()


@pytest.mark.parametrize(
    ("lifetime", "left", "told"),
    [
        (3 * DAY, DAY, False),
        (3 * DAY, DAY - timedelta(seconds=1), True),
        (365 * DAY, 31 * DAY, False),
        (365 * DAY, 29 * DAY, True),
    ],
)
def test_the_last_third_of_a_lifetime_is_spoken_of_30_days_at_most(lifetime, left, told):
    raw = leaf(not_before=NOW - lifetime + left, not_after=NOW + left).raw()

    assert warnings(raw) == (["expires-soon"] if told else [])


def test_a_link_that_ends_soon_is_spoken_of():
    soon = found(leaf(issuer(not_after=NOW + DAY), roots=(make_root(not_after=NOW + DAY),)).raw())

    assert [(each.code, each.part) for each in soon] == [
        ("expires-soon", "certificate"),
        ("expires-soon", "roots"),
    ]


def test_a_verified_set_holds_from_the_last_beginning_to_the_first_end():
    raw = leaf(
        issuer(not_after=NOW + 40 * DAY),
        not_before=NOW - DAY,
        roots=(make_root(not_after=NOW + 50 * DAY), make_root(not_after=NOW - DAY)),
    ).raw()
    verified = tls().verify(decode(raw), NOW)

    assert verified.not_before == NOW - DAY
    assert verified.not_after == NOW + 40 * DAY
    assert [each.subject for each in verified.path] == [
        "CN=ingress.example.com",
        "L=gateways,CN=Intermediate CA,O=Istio",
    ]


def test_a_set_ends_with_the_last_of_its_roots():
    roots = (make_root(not_after=NOW + 40 * DAY), make_root(not_after=NOW + 50 * DAY))

    assert tls().verify(decode(leaf(roots=roots).raw()), NOW).not_after == NOW + 50 * DAY


def test_each_part_tells_when_its_first_certificate_expires():
    raw = leaf(issuer(not_after=NOW + DAY), roots=(ROOT,)).raw()

    assert expiries(decode(raw)) == {
        "certificate": material.NOT_AFTER,
        "chain": NOW + DAY,
        "roots": material.ROOT_NOT_AFTER,
    }


def test_verification_raises_every_finding_errors_first():
    raw = leaf(dns=(), not_after=NOW - DAY).raw(leaf(dns=(), not_after=NOW - DAY), ISSUER, ROOT)

    with pytest.raises(MaterialRefused) as refused:
        tls().verify(decode(raw), NOW)

    assert [each.code for each in refused.value.findings] == [
        "certificate-expired",
        "san-missing",
        "root-sent",
    ]


def test_nothing_that_is_said_of_a_gateway_names_istiods_files():
    cases = [make for make, _ in (*REFUSED.values(), *SHOWN.values())]
    for make in cases:
        for finding in found(make()):
            text = f"{finding.message} {finding.hint}"
            assert not {"ca-cert", "ca-key", "cert-chain", "root-cert", "istiod"} & set(
                text.replace(".pem", "").split()
            ), text


def test_a_root_that_is_sent_beside_a_namesake_of_it_is_no_broken_link():
    """A root was renewed under its name, and its CA is cross-signed by the new one."""
    renewed = make_root()
    crossed = renewed.intermediate("gateways", dns=(), key=ISSUER.key)

    assert errors(leaf().raw(leaf(), ISSUER, crossed, ROOT)) == []


def test_an_empty_uri_is_no_name():
    assert errors(leaf(dns=(), uris=("",)).raw()) == ["san-missing"]


def test_both_issuers_of_a_cross_signed_chain_are_judged():
    other = make_root(subject="CN=Old Root", not_before=NOT_BEFORE)
    crossed = other.intermediate("gateways", dns=(), key=ISSUER.key, not_after=NOW - DAY)

    assert errors(leaf().raw(certificate=pem(leaf(), ISSUER, crossed))) == ["certificate-expired"]
