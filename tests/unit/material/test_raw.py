"""Taking the parts out of what a store returned."""

from __future__ import annotations

import pytest

from certagent.errors import MaterialRefused
from certagent.material.raw import MAX_PART_BYTES, RawBundle
from tests.support.material import VAULT_FIELDS, a_set, fields

GOOD = a_set()


def refused(**changes) -> list[tuple[str, str]]:
    with pytest.raises(MaterialRefused) as error:
        RawBundle.of({**fields(GOOD), **changes}, VAULT_FIELDS)
    return [(each.part, each.code) for each in error.value.findings]


def test_text_and_bytes_are_taken():
    as_bytes = {name: text.encode() for name, text in fields(GOOD).items()}

    assert RawBundle.of(fields(GOOD), VAULT_FIELDS) == GOOD
    assert RawBundle.of(as_bytes, VAULT_FIELDS) == GOOD


def test_lists_of_revoked_certificates_may_be_missing():
    assert RawBundle.of({**fields(GOOD), "ca_crl": None}, VAULT_FIELDS).crls == b""


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "part-missing"),
        ("", "part-empty"),
        (" \n", "part-empty"),
        (17, "part-not-text"),
        ({"pem": "x"}, "part-not-text"),
        ("x" * (MAX_PART_BYTES + 1), "part-too-large"),
    ],
)
def test_a_part_that_cannot_be_taken_is_named(value, code):
    assert refused(cert_chain=value) == [("chain", code)]


def test_all_parts_that_cannot_be_taken_are_named():
    assert refused(ca_key="", root_cert=None) == [
        ("private_key", "part-empty"),
        ("roots", "part-missing"),
    ]


def test_a_lone_surrogate_is_bytes_for_the_decoder_to_refuse():
    assert RawBundle.of({**fields(GOOD), "ca_key": "\ud800"}, VAULT_FIELDS).private_key


def test_a_missing_part_tells_the_names_that_are_there_and_no_value():
    parts = {"ca_key": "canary-of-the-key"}

    with pytest.raises(MaterialRefused) as error:
        RawBundle.of(parts, VAULT_FIELDS)

    assert "present: ca_key" in str(error.value)
    assert "canary" not in str(error.value)


def test_the_parts_have_no_repr():
    assert repr(GOOD) == "RawBundle()"
