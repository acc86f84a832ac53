"""Certificate objects and JSON: taken apart, or refused with what to do about it."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    NoEncryption,
    pkcs12,
)

from certagent.errors import MaterialRefused
from certagent.material.objects import PEM_TYPE, PKCS12_TYPE, certificate_object, json_fields
from tests.support.material import make_root, new_key, pem, private_key_pem


@pytest.fixture(scope="module")
def ca():
    return make_root().intermediate()


def store(key, leaf, others, encryption=None, name=b"ca"):
    data = pkcs12.serialize_key_and_certificates(
        name, key, leaf, others, encryption or NoEncryption()
    )
    return base64.b64encode(data).decode()


def code(refused) -> str:
    return refused.value.findings[0].code


class TestPKCS12:
    def test_key_leaf_and_the_rest_come_out_as_pem(self, ca):
        text = store(ca.key, ca.certificate, [ca.root.certificate])

        found = certificate_object(text, PKCS12_TYPE, "ca")

        assert found.private_key == private_key_pem(ca.key)
        assert (found.certificate, found.rest) == (pem(ca), pem(ca.root))

    def test_a_password_is_refused_with_the_way_to_import_it(self, ca):
        text = store(ca.key, ca.certificate, [], BestAvailableEncryption(b"secret"))

        with pytest.raises(MaterialRefused, match="without a password") as refused:
            certificate_object(text, PKCS12_TYPE, "ca")

        assert code(refused) == "object-unreadable"
        assert "az keyvault certificate import" in refused.value.hint

    def test_without_a_key_the_policy_is_the_cause(self, ca):
        data = pkcs12.serialize_key_and_certificates(
            b"ca", None, None, [ca.certificate, ca.root.certificate], NoEncryption()
        )

        with pytest.raises(MaterialRefused, match="has no private key") as refused:
            certificate_object(base64.b64encode(data).decode(), PKCS12_TYPE, "ca")

        assert code(refused) == "part-missing"
        assert "exportable" in refused.value.hint

    def test_base64_may_be_in_lines(self, ca):
        text = store(ca.key, ca.certificate, [])

        found = certificate_object(f"{text[:76]}\r\n{text[76:]}\n", PKCS12_TYPE, "ca")

        assert found.certificate == pem(ca)

    @pytest.mark.parametrize("text", ["not base64!", "ä", "abc", "-----BEGIN CERTIFICATE-----"])
    def test_what_is_not_base64_is_refused(self, text):
        with pytest.raises(MaterialRefused, match="is not base64") as refused:
            certificate_object(text, PKCS12_TYPE, "ca")

        assert code(refused) == "object-unreadable"

    @pytest.mark.parametrize("data", [b"", b"garbage", b"\x30\x03\x02\x01\x03"])
    def test_what_is_no_pkcs12_is_refused(self, data):
        with pytest.raises(MaterialRefused, match="cannot be read as PKCS #12"):
            certificate_object(base64.b64encode(data).decode(), PKCS12_TYPE, "ca")


class TestPEM:
    def test_the_leaf_is_the_one_that_fits_the_key_wherever_it_stands(self, ca):
        text = (pem(ca.root, ca) + private_key_pem(ca.key)).decode()

        found = certificate_object(text, PEM_TYPE, "ca")

        assert (found.certificate, found.rest) == (pem(ca), pem(ca.root))

    def test_where_none_fits_the_first_one_stands_for_verification_to_refuse(self, ca):
        text = (private_key_pem(new_key()) + pem(ca, ca.root)).decode()

        assert certificate_object(text, PEM_TYPE, "ca").certificate == pem(ca)

    @pytest.mark.parametrize(
        "blocks", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    )
    def test_certificates_that_cannot_be_read_are_left_to_verification(self, ca, blocks):
        text = (private_key_pem(ca.key) + blocks).decode()

        assert certificate_object(text, PEM_TYPE, "ca").certificate == blocks

    def test_without_a_key_the_policy_is_the_cause(self, ca):
        with pytest.raises(MaterialRefused, match="has no private key"):
            certificate_object(pem(ca).decode(), PEM_TYPE, "ca")

    def test_what_go_would_misread_is_refused(self, ca):
        glued = private_key_pem(ca.key).decode().strip() + pem(ca).decode()

        with pytest.raises(MaterialRefused) as refused:
            certificate_object(glued, PEM_TYPE, "ca")

        assert code(refused) == "pem-glued"

    def test_another_content_type_is_no_certificate_object(self):
        with pytest.raises(MaterialRefused, match="'text/plain': no certificate object") as refused:
            certificate_object("x", "text/plain", "ca")

        assert code(refused) == "object-unreadable"


class TestJSON:
    def test_an_object_is_its_fields(self):
        assert json_fields(json.dumps({"ca_key": "x"}), "all", "ca_key") == {"ca_key": "x"}

    @pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "-----BEGIN", "[" * 100_000])
    def test_what_is_none_is_refused_with_how_it_looks(self, text):
        with pytest.raises(MaterialRefused, match="'all' is not a JSON object") as refused:
            json_fields(text, "all", "ca_key")

        assert code(refused) == "json-unreadable"
        assert '{"ca_key": "<PEM>"' in refused.value.hint


def test_the_key_is_not_shown(ca):
    found = certificate_object(store(ca.key, ca.certificate, []), PKCS12_TYPE, "ca")

    assert "PRIVATE KEY" not in repr(found)
