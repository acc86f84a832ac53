"""The parts of a set: keys, certificates, chains, roots and revocation lists, of both kinds.

Whatever stands in one of them: it is refused, or it is read; what is read is published in one form,
which reads as the same; and OpenSSL reads it too.
"""

from __future__ import annotations

import base64
import contextlib
import ssl
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from certagent.errors import MaterialRefused
from certagent.material import chains, names, pem, revocation
from certagent.material.kinds import CA
from certagent.material.serving import tls
from tests.fuzz.judging import corpus, judge_findings, typed
from tests.fuzz.mutations import mangled_pem
from tests.support.effort import effort
from tests.support.material import NOW, make_leaf, make_root, new_key, private_key_pem

KINDS = {"ca": CA, "tls": tls("both")}
PARTS = {
    "ca": ("private_key", "certificate", "chain", "roots", "crls"),
    "tls": ("private_key", "certificate", "roots"),
}
PLACES = [(name, part) for name, parts in PARTS.items() for part in parts]


@cache
def good():
    """A good set of each kind."""
    root = make_root()
    ca = root.middle().intermediate()
    crls = ca.crl() + ca.parent.crl([ca.certificate]) + root.crl()
    return {"ca": ca.raw(crls=crls), "tls": make_leaf(roots=(root,)).raw()}


@cache
def blocks():
    """What is damaged: the blocks of good sets, and keys of every kind."""
    keys = (new_key(), rsa.generate_private_key(65537, 1024), ed25519.Ed25519PrivateKey.generate())
    texts = [getattr(raw, part) for raw in good().values() for part in PARTS["ca"]]
    texts += [private_key_pem(key) for key in keys]
    texts += [private_key_pem(key, "TraditionalOpenSSL") for key in keys[:2]]
    texts += [make_root(key=keys[1]).pem, make_root(key=keys[2]).pem]
    read = (pem.decode(text, "chain")[0] for text in texts)
    return [(block.label, block.der) for every in read for block in every]


@cache
def secrets():
    """The private keys, as base64."""
    return [base64.b64encode(der).decode() for label, der in blocks() if "KEY" in label]


def examples() -> list[bytes]:
    """What atheris starts from, beside the corpus: made anew, for it has keys."""
    return [pem.encode(label, der) for label, der in blocks()]


def attempt(data: bytes) -> None:
    """Put the bytes into each part of each kind of set."""
    for name, parts in PARTS.items():
        for part in parts:
            tried(name, part, data)


def tried(name: str, part: str, data: bytes) -> None:
    """Read and judge a set with these bytes as one part."""
    kind, raw = KINDS[name], replace(good()[name], **{part: data})
    with typed(secrets=secrets()):
        bundle = kind.decode(raw)
        found = kind.findings(bundle, NOW)
        judge_findings(found, secrets())
        again = kind.bundle_of(kind.files_of(bundle))
        assert again == bundle
        assert again.canonical() == bundle.canonical()
        kind.verify(bundle, NOW)


@pytest.mark.parametrize("data", corpus("pem"))
def test_whatever_has_been_found_is_refused_or_judged(data):
    attempt(data)


@settings(max_examples=effort(60, 100_000))
@given(st.data(), st.sampled_from(PLACES))
def test_any_part_is_refused_or_judged_and_its_canonical_form_is_the_same_set(data, place):
    tried(*place, data.draw(mangled_pem(blocks())))


@settings(max_examples=effort(25, 20_000))
@given(st.data(), st.sampled_from(tuple(PARTS)))
def test_openssl_reads_what_is_published_and_finds_the_same_key(tmp_path_factory, data, name):
    """Whether a key fits a certificate is OpenSSL's verdict too (SSL_CTX_check_private_key)."""
    kind, raw = KINDS[name], good()[name]
    part = data.draw(st.sampled_from(("private_key", "certificate")))
    try:
        bundle = kind.decode(replace(raw, **{part: data.draw(mangled_pem(blocks()))}))
    except MaterialRefused:
        return
    folder = tmp_path_factory.mktemp("published")
    for file, content in kind.files_of(bundle).items():
        (folder / file).write_bytes(content)
    certificate, key = (folder / kind.files[each] for each in ("certificate", "private_key"))
    codes = {finding.code for finding in kind.findings(bundle, NOW)}

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    told = contextlib.nullcontext()
    if "key-mismatch" in codes:
        told = pytest.raises(ssl.SSLError)
    with told:
        context.load_cert_chain(certificate, key)


class TestWork:
    """What somebody stores must not keep an agent busy for minutes, nor fill its memory."""

    def test_blocks_that_are_none_are_counted_too(self):
        blocks_, found = pem.decode(b"-----BEGIN x\n" * 80_000, "chain")

        assert blocks_ == ()
        assert [finding.code for finding in found] == ["too-many-blocks"]

    def test_certificates_of_one_name_are_not_tried_each_with_each(self, monkeypatch):
        root = make_root()
        leaf = make_leaf(root)
        again = [root.intermediate(key=root.key, subject="O=Istio,CN=Root CA") for _ in range(30)]
        checks = counted(monkeypatch, chains, "signed")

        with pytest.raises(MaterialRefused) as refused:
            KINDS["tls"].decode(leaf.raw(leaf, *again))

        assert [finding.code for finding in refused.value.findings] == ["too-many-paths"]
        assert len(checks) <= chains.MAX_SIGNATURE_CHECKS

    def test_lists_of_one_name_are_not_tried_each_with_each(self, monkeypatch):
        root = make_root()
        again = [root.intermediate(key=root.key, subject="O=Istio,CN=Root CA") for _ in range(15)]
        raw = root.raw(chain=(root, *again), crls=root.crl() * 15)
        checks = counted(monkeypatch, revocation, "_signed_by")

        found = CA.findings(CA.decode(raw), NOW)

        assert "crl-too-many" in {finding.code for finding in found}
        assert checks == []

    def test_names_and_constraints_are_compared_as_often_as_go_does_and_then_refused(
        self, monkeypatch
    ):
        names_ = [f"n{number}.example.com" for number in range(600)]
        root = make_root(permitted=[x509.DNSName(name) for name in names_])
        checks = counted(monkeypatch, names, "_matches")

        found = CA.findings(CA.decode(root.intermediate(dns=names_).raw()), NOW)

        assert "name-constraints-too-many" in {finding.code for finding in found}
        assert len(checks) <= names.MAX_COMPARISONS


def counted(monkeypatch, module, name):
    """The calls of a function of a module, from now on."""
    calls, original = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given: (calls.append(given), original(*given))[1])
    return calls
