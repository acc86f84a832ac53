"""Sets that a store holds as one object: PKCS #12, PEM with everything, one JSON object."""

from __future__ import annotations

import base64
import json
from functools import cache

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat, pkcs12
from hypothesis import given, settings
from hypothesis import strategies as st

from certagent.config.model import AzureKeyVaultSource
from certagent.errors import MaterialRefused
from certagent.material import pem
from certagent.material.der import rounds
from certagent.material.kinds import CA
from certagent.material.objects import PEM_TYPE, PKCS12_TYPE, certificate_object
from certagent.material.serving import tls
from certagent.sources.azure.contents import Content, form_of
from tests.fuzz.judging import corpus, judge_findings, typed
from tests.fuzz.mutations import mangled, mangled_der, mangled_json, mangled_pem
from tests.support.effort import effort
from tests.support.material import NOW, fields, make_root, private_key_pem

FORMS = {
    "ca": (CA, AzureKeyVaultSource(certificate="object", roots="roots")),
    "tls": (tls("both"), AzureKeyVaultSource(certificate="object")),
    "json": (CA, AzureKeyVaultSource(secret="object")),
}


@cache
def ca():
    return make_root().intermediate()


@cache
def stores():
    """PKCS #12 without a password: in the clear, and encrypted with the empty one."""
    mine = (b"ca", ca().key, ca().certificate, [ca().root.certificate])
    modern = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(1000).hmac_hash(hashes.SHA256())
    return [
        pkcs12.serialize_key_and_certificates(*mine, NoEncryption()),
        pkcs12.serialize_key_and_certificates(*mine, modern.build(b"x")),
    ]


@cache
def blocks():
    text = ca().pem + ca().root.pem + private_key_pem(ca().key, "TraditionalOpenSSL") + ca().key_pem
    return [(block.label, block.der) for block in pem.decode(text, "chain")[0]]


@cache
def secrets():
    return [base64.b64encode(der).decode() for label, der in blocks() if "KEY" in label]


def examples() -> list[bytes]:
    """What atheris starts from, beside the corpus: made anew, for it has keys."""
    return [
        *map(base64.b64encode, stores()),
        ca().key_pem + ca().pem,
        json.dumps(fields(ca().raw())).encode(),
    ]


def attempt(data: bytes) -> None:
    """Take the bytes for the value of a secret of each content type."""
    text = data.decode("utf-8", "surrogateescape")
    for kind, config in FORMS.values():
        for content_type in (PKCS12_TYPE, PEM_TYPE, text[:300]):
            contents = {
                "object": Content(text, content_type),
                "roots": Content(ca().root.pem.decode()),
            }
            hidden = secrets() if content_type != text[:300] else ()  # a type is no secret
            with typed(secrets=hidden):
                raw = form_of(config, kind).take(contents)
                judge_findings(kind.findings(kind.decode(raw), NOW), secrets())


@pytest.mark.parametrize("data", corpus("objects"))
def test_whatever_has_been_found_is_refused_or_judged(data):
    attempt(data)


@settings(max_examples=effort(50, 50_000))
@given(st.data())
def test_any_pkcs12_is_refused_or_taken_apart(data):
    attempt(base64.b64encode(data.draw(mangled_der(stores()) | mangled(stores()))))


@settings(max_examples=effort(20, 20_000))
@given(st.data())
def test_any_pem_with_everything_is_refused_or_taken_apart(data):
    attempt(data.draw(mangled_pem(blocks())))


@settings(max_examples=effort(20, 20_000))
@given(st.data())
def test_any_json_object_is_refused_or_taken_apart(data):
    attempt(data.draw(mangled_json([fields(ca().raw())])))


@pytest.mark.parametrize("which", [0, 1])
def test_as_many_rounds_as_a_store_asks_for_are_found(which):
    assert max(rounds(stores()[which])) >= 1000


def test_a_password_that_is_to_be_hashed_a_billion_times_is_refused_and_not_hashed():
    usual, many = b"\x02\x02\x08\x00", b"\x02\x04\x7f\xff\xff\xff"
    content, _, end = stores()[0][4:].rpartition(usual)
    assert not end
    text = base64.b64encode(stores()[0][:4] + content + many).decode()

    with pytest.raises(MaterialRefused, match="hash a password more than"):
        certificate_object(text, PKCS12_TYPE, "ca")
