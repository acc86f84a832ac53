"""What never gets out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certagent.runtime import concealment
from certagent.runtime.concealment import CONCEALED, MOST_SECRETS, conceal, concealed


@pytest.fixture(autouse=True)
def no_secrets(monkeypatch):
    monkeypatch.setattr(concealment, "_secrets", ())


def test_a_secret_is_replaced_wherever_it_stands():
    conceal("canary-token")

    assert concealed("a canary-token, canary-token") == f"a {CONCEALED}, {CONCEALED}"


def test_bytes_are_a_secret_too():
    conceal(b"canary-token\n")

    assert concealed("canary-token") == CONCEALED
    assert concealed(str({"token": b"canary-token"})) == str({"token": CONCEALED}).replace(
        "'[", "b'["
    )


def test_a_secret_is_replaced_as_repr_writes_it():
    conceal("canary\nof 'two' lines")

    assert "lines" not in concealed(repr(["canary\nof 'two' lines"]).replace('"', "'"))
    assert "canary" not in concealed(repr("canary\nof 'two' lines"))


def test_a_secret_within_another_leaves_nothing_of_it():
    conceal("canary-short")
    conceal("canary-short-and-long")

    assert concealed("canary-short-and-long") == CONCEALED


@pytest.mark.parametrize("short", ["", "   ", "root", b"root"])
def test_a_value_too_short_to_be_a_secret_does_not_black_out_the_log(short):
    conceal(short)

    assert concealed("root-cert.pem is empty") == "root-cert.pem is empty"


def test_the_last_secrets_are_remembered_and_memory_is_bounded():
    for number in range(MOST_SECRETS + 1):
        conceal(f"canary-{number:04}")

    assert len(concealment._secrets) == MOST_SECRETS
    assert concealed("canary-0000") == "canary-0000"
    assert concealed(f"canary-{MOST_SECRETS:04}") == CONCEALED


def test_a_secret_that_is_given_again_is_not_forgotten():
    conceal("canary-again")
    for number in range(MOST_SECRETS - 1):
        conceal(f"canary-{number:04}")
    conceal("canary-again")
    conceal("canary-last")

    assert concealed("canary-again") == CONCEALED


@pytest.mark.parametrize(
    "secret",
    [
        "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----",
        "-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----\\nMIIE\\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nMIGH without an end",
        "hvs.CAESIJ0000000000000000000000",
        "hvb.AAAAAQJ000000000000000000000",
        "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW0ifQ.c2ln-bmF0_dXJl",
    ],
)
def test_keys_and_tokens_are_known_by_their_shape(secret):
    assert concealed(f"the server said: {secret}") == f"the server said: {CONCEALED}"


def test_a_certificate_is_no_secret():
    certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

    assert concealed(certificate) == certificate


@given(st.text(min_size=8), st.text(), st.text())
def test_no_text_holds_a_secret_after_it_was_concealed(secret, before, after):
    secret = f"canary{secret.strip()}"
    conceal(secret)

    assert secret not in concealed(before + secret + after)
