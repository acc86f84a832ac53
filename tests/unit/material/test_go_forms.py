"""What OpenSSL reads and Go does not: keys, signatures and names in unusual forms.

The forms are made here byte by byte, so that the tests need nothing but themselves; where there is
an `openssl`, it makes the usual forms, none of which may be refused.
"""

from __future__ import annotations

import shutil
import subprocess
import warnings
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certagent.errors import MaterialRefused
from certagent.material import names
from certagent.material.bundle import KeyCertBundle
from certagent.material.certificates import Certificate, RevocationList, Unparseable
from certagent.material.der import inside
from certagent.material.finding import Severity
from certagent.material.pem import decode, encode
from certagent.material.raw import RawBundle
from certagent.material.verification import findings
from tests.support import material
from tests.support.material import NOW, make_ca, make_root

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.derive_private_key(7, ec.SECP256R1())

# SEC 2, 2.4.2: P-256, parameter by parameter.
P = (1 << 256) - (1 << 224) + (1 << 192) + (1 << 96) - 1
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

EC_OID = bytes.fromhex("06072a8648ce3d0201")
PSS_OID = bytes.fromhex("06092a864886f70d01010a")
RSA_OID = bytes.fromhex("06092a864886f70d010101")


def tlv(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    size = len(content)
    if size >= 0x80:
        long = size.to_bytes((size.bit_length() + 7) // 8, "big")
        return bytes((tag, 0x80 | len(long))) + long + content
    return bytes((tag, size)) + content


def sequence(*elements: bytes) -> bytes:
    return tlv(0x30, *elements)


def integer(number: int) -> bytes:
    return tlv(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def octets(number: int) -> bytes:
    return tlv(0x04, number.to_bytes(32, "big"))


def point(key, form: PublicFormat = PublicFormat.UncompressedPoint) -> bytes:
    return key.public_bytes(Encoding.X962, form)


def explicit() -> bytes:
    field = sequence(bytes.fromhex("06072a8648ce3d0101"), integer(P))
    generator = tlv(0x04, b"\x04", *(each.to_bytes(32, "big") for each in G))
    curve = sequence(octets(P - 3), octets(B))
    return sequence(integer(1), field, curve, generator, integer(N), integer(1))


def spki(algorithm: bytes, key: bytes) -> bytes:
    return sequence(algorithm, tlv(0x03, b"\x00", key))


def with_key_info(ca, info: bytes) -> bytes:
    """The certificate of a CA for another SubjectPublicKeyInfo, signed by its issuer, in PEM."""
    ((_, der),) = [(each.label, each.der) for each in decode(ca.pem, "certificate")[0]]
    signed, algorithm, _ = inside(der)
    fields = list(inside(signed))
    fields[6] = info
    signed = sequence(*fields)
    signature = ca.parent.key.sign(signed, ec.ECDSA(SHA256()))
    return encode("CERTIFICATE", sequence(signed, algorithm, tlv(0x03, b"\x00", signature)))


def der_of(pem: bytes) -> bytes:
    return decode(pem, "certificate")[0][0].der


def in_pkcs8(algorithm: bytes, key: bytes) -> bytes:
    return encode("PRIVATE KEY", sequence(integer(0), algorithm, tlv(0x04, key)))


def sec1(*parameters: bytes) -> bytes:
    public = tlv(0xA1, tlv(0x03, b"\x00", point(EC_KEY.public_key())))
    return sequence(integer(1), octets(7), *(tlv(0xA0, each) for each in parameters), public)


def rsa_pkcs1() -> bytes:
    return der_of(material.private_key_pem(RSA_KEY, "TraditionalOpenSSL"))


def refused(raw: RawBundle):
    with pytest.raises(MaterialRefused) as error:
        KeyCertBundle.decode(raw)
    return error.value.findings


def errors(raw: RawBundle, now: datetime = NOW) -> list[str]:
    found = findings(KeyCertBundle.decode(raw), now)
    return [each.code for each in found if each.severity is Severity.ERROR]


PRIVATE_KEYS = {
    "explicit curve parameters in PKCS #8": lambda: in_pkcs8(sequence(EC_OID, explicit()), sec1()),
    "explicit curve parameters in SEC 1": lambda: encode("EC PRIVATE KEY", sec1(explicit())),
    "explicit curve parameters within a named curve": lambda: in_pkcs8(
        sequence(EC_OID, bytes.fromhex("06082a8648ce3d030107")), sec1(explicit())
    ),
    "RSA-PSS only": lambda: in_pkcs8(sequence(PSS_OID), rsa_pkcs1()),
}


@pytest.mark.parametrize("form", PRIVATE_KEYS)
def test_a_private_key_in_a_form_that_go_lacks_is_refused(form):
    found = refused(make_ca(key=EC_KEY).raw(private_key=PRIVATE_KEYS[form]()))

    assert [(each.part, each.code) for each in found] == [("private_key", "key-form")]
    assert "named_curve" in found[0].hint or "genpkey" in found[0].hint


def test_the_same_private_keys_in_the_usual_form_are_accepted():
    named = sequence(EC_OID, bytes.fromhex("06082a8648ce3d030107"))
    keys = [
        (EC_KEY, in_pkcs8(named, sec1())),
        (EC_KEY, encode("EC PRIVATE KEY", sec1(bytes.fromhex("06082a8648ce3d030107")))),
        (RSA_KEY, in_pkcs8(sequence(RSA_OID, b"\x05\x00"), rsa_pkcs1())),
    ]

    for key, written in keys:
        assert errors(make_ca(key=key).raw(private_key=written)) == []


CERTIFICATES = {
    "explicit curve parameters": lambda: spki(
        sequence(EC_OID, explicit()), point(EC_KEY.public_key())
    ),
    "a compressed point": lambda: spki(
        sequence(EC_OID, bytes.fromhex("06082a8648ce3d030107")),
        point(EC_KEY.public_key(), PublicFormat.CompressedPoint),
    ),
    "RSA-PSS only": lambda: spki(
        sequence(PSS_OID), RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    ),
    "RSA without NULL": lambda: spki(
        sequence(RSA_OID), RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    ),
}


@pytest.mark.parametrize("form", CERTIFICATES)
def test_a_certificate_whose_key_is_in_a_form_that_go_lacks_is_refused(form):
    ca = make_ca()
    bad = with_key_info(ca, CERTIFICATES[form]())

    found = refused(ca.raw(certificate=bad, chain=bad + ca.root.pem))

    assert [(each.part, each.code) for each in found] == [
        ("certificate", "key-form"),
        ("chain", "key-form"),
    ]
    assert "named_curve" in found[0].hint or "genpkey" in found[0].hint


def test_a_certificate_that_is_put_together_with_the_usual_key_is_accepted():
    ca = make_ca()
    info = ca.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    same = with_key_info(ca, info)

    assert errors(ca.raw(certificate=same, chain=same + ca.root.pem)) == []


def test_an_rsa_key_with_an_exponent_that_go_refuses_is_refused():
    """crypto/rsa checkPublicKeySize: "public exponent too large"."""
    ca = make_ca()
    exponent = 2**31 + 1
    key = sequence(integer(RSA_KEY.public_key().public_numbers().n), integer(exponent))
    bad = with_key_info(ca, spki(sequence(RSA_OID, b"\x05\x00"), key))

    assert [each.code for each in refused(ca.raw(certificate=bad))] == ["certificate-unreadable"]


def test_a_private_key_with_an_exponent_that_go_refuses_is_refused():
    numbers = RSA_KEY.private_numbers()
    p, q, e = numbers.p, numbers.q, 2**31 + 1
    while True:
        try:
            d = pow(e, -1, (p - 1) * (q - 1))
            break
        except ValueError:
            e += 2
    key = sequence(
        integer(0),
        *map(integer, (p * q, e, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))),
    )

    found = refused(make_ca().raw(private_key=encode("RSA PRIVATE KEY", key)))

    assert [each.code for each in found] == ["key-unreadable"]
    assert "new key" in found[0].hint


@pytest.mark.parametrize(
    ("mask", "salt", "codes"),
    [
        (SHA256(), 32, []),
        (SHA256(), 20, ["insecure-signature"]),
        (SHA256(), 222, ["insecure-signature"]),
        (SHA384(), 32, ["insecure-signature"]),
    ],
)
def test_a_pss_signature_is_one_of_the_three_that_go_knows(mask, salt, codes):
    """crypto/x509.getSignatureAlgorithmFromAI."""
    root = make_root(key=RSA_KEY)
    ca = root.intermediate(padding=padding.PSS(padding.MGF1(mask), salt))

    assert errors(ca.raw()) == codes


def test_a_pss_signature_tells_which_salt_to_take():
    ca = make_root(key=RSA_KEY).intermediate(padding=padding.PSS(padding.MGF1(SHA256()), 20))

    (found,) = (f for f in findings(KeyCertBundle.decode(ca.raw()), NOW) if f.severity == "error")

    assert "RSA-PSS" in found.message
    assert "rsa_pss_saltlen:digest" in found.hint


@pytest.mark.parametrize("salt", [20, 32])
def test_a_list_signed_with_a_pss_that_go_lacks_counts_for_nothing(salt):
    root = make_root(key=RSA_KEY)
    ca = root.intermediate()
    builder = x509.CertificateRevocationListBuilder().issuer_name(root.certificate.subject)
    crl = (
        builder.last_update(material.NOT_BEFORE)
        .next_update(material.NOT_AFTER)
        .sign(RSA_KEY, SHA256(), rsa_padding=padding.PSS(padding.MGF1(SHA256()), salt))
    )

    found = errors(ca.raw(crls=ca.crl() + crl.public_bytes(Encoding.PEM)))

    assert found == ([] if salt == 32 else ["crl-missing"])


def test_a_list_of_version_1_is_refused():
    """crypto/x509.ParseRevocationList: "unsupported crl version"."""
    der = der_of(make_ca().crl())
    signed, algorithm, signature = inside(der)
    old = sequence(*(each for each in inside(signed) if each[0] not in {0x02, 0xA0}))

    with pytest.raises(Unparseable, match="version 1"):
        RevocationList.load(sequence(old, algorithm, signature))


def test_a_certificate_that_states_two_signature_algorithms_is_refused():
    signed, algorithm, signature = inside(der_of(make_ca().pem))
    other = algorithm[:-1] + b"\x03"  # ecdsa-with-SHA384

    assert Certificate.load(sequence(signed, algorithm, signature))
    with pytest.raises(Unparseable):
        Certificate.load(sequence(signed, other, signature))


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "*",
        "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        "spiffe://cluster.local/ns/istio-system/sa/istiod",
        "http://user:word%20@ca.example:8080/a%20b?c=%zz#d",
        "https://[2001:db8::1]:443/",
        "//host/path",
        "///path",
        "spiffe:///path",
        "relative/path:1",
    ],
)
def test_an_alternative_name_that_go_parses_is_accepted(uri):
    assert errors(make_ca(uris=(uri,)).raw()) == []


@pytest.mark.parametrize(
    "uri",
    [
        "http://[bad",
        "http://[::1]x/",
        "http://[1:2]/",
        "http://a b/",
        "http://a..b/",
        "http://.a/",
        "http://a./",
        "http://a:port/",
        "http://us er@a/",
        "http://a/%zz",
        "http://a/#%zz",
        "http://a/\t",
        ":missing-scheme",
        "1a:b",
    ],
)
def test_an_alternative_name_that_go_cannot_parse_is_refused(uri):
    """net/url.Parse and domainNameValid: "x509: cannot parse URI"."""
    found = refused(make_ca(uris=(uri,)).raw())

    assert {each.code for each in found} == {"certificate-unreadable"}
    assert "alternative name" in found[0].message
    assert "without that" in found[0].hint


def test_an_ipv4_address_written_as_ipv6_is_no_name_that_go_reads():
    assert not names.readable(x509.IPAddress(ip_address("::ffff:192.0.2.1")))
    assert names.readable(x509.IPAddress(ip_address("2001:db8::1")))


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        (x509.DNSName(""), True),
        (x509.DNSName(".svc.cluster.local"), True),
        (x509.DNSName("a..b"), False),
        (x509.DNSName("a.b."), False),
        (x509.DNSName("a b"), False),
        (x509.UniformResourceIdentifier("cluster.local"), True),
        (x509.UniformResourceIdentifier("192.0.2.1"), False),
        (x509.RFC822Name("ops@example.com"), True),
        (x509.RFC822Name("ops@example.com."), False),
        (x509.IPAddress(ip_network("10.0.0.0/8")), True),
        (x509.IPAddress(ip_network("::ffff:0:0/96")), False),
        (x509.DirectoryName(x509.Name([])), True),
    ],
)
def test_a_name_constraint_is_read_as_go_reads_it(constraint, expected):
    """crypto/x509.parseNameConstraintsExtension."""
    assert names.readable_constraint(constraint) is expected


def test_a_name_constraint_that_go_cannot_read_is_refused():
    found = refused(make_root(excluded=[x509.DNSName("a..b")]).intermediate().raw())

    assert {each.code for each in found} == {"certificate-unreadable"}
    assert "'a..b'" in found[0].message


def test_a_name_that_cryptography_warns_of_is_judged_in_silence():
    """A country of five letters: the parser warns whenever it looks at the name."""
    ca = make_ca()
    organization, country = bytes.fromhex("060355040a"), bytes.fromhex("0603550406")
    root_der = material.forge_der(ca.root, organization, country, ca.root.key)
    crl_der = der_of(ca.root.crl()).replace(organization, country)
    raw = ca.raw(roots=encode("CERTIFICATE", root_der), crls=ca.crl() + encode("X509 CRL", crl_der))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert errors(raw)


def openssl(*arguments: str, given: bytes = b"") -> bytes:
    done = subprocess.run(
        ["openssl", *arguments], input=given, capture_output=True, check=True, timeout=60
    )
    return done.stdout


needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl here")

GENPKEY = {
    "RSA 2048": ("RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
    "RSA 4096": ("RSA", "-pkeyopt", "rsa_keygen_bits:4096"),
    "P-256": ("EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:named_curve"),
    "P-384": ("EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-pkeyopt", "ec_param_enc:named_curve"),
    "Ed25519": ("Ed25519",),
}


def self_signed(key: bytes, directory) -> RawBundle:
    """A set of one certificate, as `openssl req -x509` makes it: its own root."""
    file = directory / "old-key.pem"
    file.write_bytes(key)
    certificate = openssl("req", "-x509", "-new", "-key", str(file), "-subj", "/O=Istio/CN=Root")
    return RawBundle(key, certificate, certificate, certificate)


@needs_openssl
@pytest.mark.parametrize("kind", GENPKEY)
def test_what_openssl_makes_is_accepted_in_both_encodings_of_the_key(kind, tmp_path):
    key = openssl("genpkey", "-algorithm", *GENPKEY[kind])
    raw = self_signed(key, tmp_path)

    assert errors(raw, datetime.now(UTC)) == []
    if kind != "Ed25519":
        command = "rsa" if kind.startswith("RSA") else "ec"
        old = openssl(command, *(["-traditional"] if command == "rsa" else []), given=key)
        assert decode(old, "private_key")[0][0].label == f"{command.upper()} PRIVATE KEY"
        again = RawBundle(old, raw.certificate, raw.chain, raw.roots)
        assert errors(again, datetime.now(UTC)) == []


@needs_openssl
def test_the_hint_for_explicit_parameters_makes_a_key_that_is_accepted(tmp_path):
    parameters = ("-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit")
    bad = self_signed(openssl("genpkey", "-algorithm", "EC", *parameters), tmp_path)

    found = refused(bad)

    assert {(each.part, each.code) for each in found} == {
        (part, "key-form") for part in ("private_key", "certificate", "chain", "roots")
    }
    command = found[0].hint.split("`")[1].split()
    where = {"old-key.pem": tmp_path / "old-key.pem", "new-key.pem": tmp_path / "new-key.pem"}
    openssl(*(str(where.get(word, word)) for word in command[1:]))
    named = where["new-key.pem"].read_bytes()
    assert errors(self_signed(named, tmp_path), datetime.now(UTC)) == []
