"""What is made of the parts of kind tls: whose certificate it is, and what is sent with it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from certagent.errors import MaterialRefused
from certagent.material.kinds import CA
from certagent.material.raw import TLS_FILES, RawBundle
from certagent.material.serving import decode, tls
from tests.support import material
from tests.support.material import NOW, a_set, make_ca, make_leaf, make_root, pem

ROOT = make_root()
UPPER = ROOT.middle(pathlen=2)
LOWER = UPPER.middle(subject="CN=Lower CA")
LEAF = make_leaf(LOWER)
STRANGER = make_ca("stranger")
PARAMETERS = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"


def sent(raw: RawBundle) -> list[str]:
    """The fingerprints of what would be sent."""
    bundle = decode(raw)
    return [each.fingerprint for each in (bundle.certificate, *bundle.chain)]


def fingerprints(*leaves) -> list[str]:
    return [each.fingerprint for each in leaves]


def notes(raw: RawBundle) -> list[str]:
    return [each.code for each in decode(raw).notes]


def refused(raw: RawBundle) -> list[tuple[str, str]]:
    with pytest.raises(MaterialRefused) as error:
        decode(raw)
    return [(each.part, each.code) for each in error.value.findings]


def test_a_set_in_order_is_taken_as_it_stands():
    raw = LEAF.raw()

    assert sent(raw) == fingerprints(LEAF, LOWER, UPPER)
    assert notes(raw) == []


@pytest.mark.parametrize(
    "order",
    [
        (LOWER, LEAF, UPPER),
        (UPPER, LOWER, LEAF),
        (LEAF, UPPER, LOWER),
        (LEAF, LOWER, LOWER, UPPER, LEAF),
    ],
)
def test_a_chain_out_of_order_is_put_right_and_reported(order):
    assert sent(LEAF.raw(*order)) == fingerprints(LEAF, LOWER, UPPER)
    assert notes(LEAF.raw(*order)) == ["chain-repaired"]


def test_a_chain_in_a_part_of_its_own_follows_the_certificate():
    raw = LEAF.raw(LEAF, chain=pem(LOWER, UPPER))

    assert sent(raw) == fingerprints(LEAF, LOWER, UPPER)
    assert notes(raw) == []


def test_what_the_certificate_does_not_need_is_left_out_and_reported():
    raw = LEAF.raw(LEAF, STRANGER, LOWER, UPPER)

    assert sent(raw) == fingerprints(LEAF, LOWER, UPPER)
    assert notes(raw) == ["chain-unused"]


def test_a_certificate_before_a_renewal_with_the_same_key_is_left_out():
    renewed = make_leaf(LOWER, key=LEAF.key)

    assert sent(LEAF.raw(renewed, LEAF, LOWER, UPPER)) == fingerprints(renewed, LOWER, UPPER)


def test_a_root_is_sent_where_it_was_stored():
    assert sent(LEAF.raw(LEAF, LOWER, UPPER, ROOT)) == fingerprints(LEAF, LOWER, UPPER, ROOT)


def test_both_issuers_of_a_cross_signed_chain_are_sent():
    other = make_root(subject="CN=Other Root")
    crossed = other.middle(subject="CN=Lower CA", key=LOWER.key)

    assert sent(LEAF.raw(LEAF, crossed, UPPER, LOWER)) == fingerprints(LEAF, crossed, LOWER, UPPER)


def test_a_namesake_of_a_missing_issuer_stays_for_verification_to_refuse():
    namesake = make_root().middle(subject="CN=Lower CA")

    assert sent(LEAF.raw(LEAF, namesake)) == fingerprints(LEAF, namesake)


def test_a_root_that_is_a_namesake_of_the_missing_one_is_left_out():
    assert sent(LEAF.raw(LEAF, LOWER, UPPER, make_root())) == fingerprints(LEAF, LOWER, UPPER)


def test_a_namesake_beside_the_issuer_is_left_out():
    namesake = make_root().middle(subject="CN=Lower CA")

    assert sent(LEAF.raw(LEAF, namesake, LOWER, UPPER)) == fingerprints(LEAF, LOWER, UPPER)


def test_where_no_certificate_is_the_keys_the_first_stands_for_it():
    raw = replace(LEAF.raw(), private_key=STRANGER.key_pem)

    assert sent(raw)[0] == LEAF.fingerprint


@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
def test_a_key_is_kept_in_the_form_that_it_came_in(form):
    key = material.private_key_pem(LEAF.key, form)

    assert decode(LEAF.raw(private_key=key)).private_key.pem == key


def test_parameters_before_a_key_are_passed_over_as_x509_key_pair_does():
    key = material.private_key_pem(LEAF.key, "TraditionalOpenSSL")

    assert decode(LEAF.raw(private_key=PARAMETERS + key)).private_key.pem == key


def test_parameters_alone_are_no_key():
    assert refused(LEAF.raw(private_key=PARAMETERS)) == [("private_key", "key-label")]


def test_all_faults_of_all_parts_are_told_at_once():
    raw = LEAF.raw(
        private_key=b"no PEM", certificate=pem(LEAF) + LEAF.key_pem, roots=b"-----BEGIN "
    )

    assert [part for part, _ in refused(raw)] == ["private_key", "certificate", "roots"]


def test_messages_name_a_gateways_files():
    with pytest.raises(MaterialRefused) as error:
        decode(RawBundle(b"", b""))

    text = " ".join(f"{each.message} {each.hint}" for each in error.value.findings)
    assert "tls.key" in text
    assert "tls.crt" in text
    assert "ca-" not in text
    assert "istiod" not in text


def test_what_is_published_is_the_certificate_with_its_chain():
    bundle = decode(make_leaf(LOWER, roots=(ROOT,)).raw())

    files = tls().files_of(bundle)

    assert list(files) == ["tls.key", "tls.crt", "ca.crt"]
    assert files["tls.crt"].count(b"BEGIN CERTIFICATE") == 3
    assert files["ca.crt"] == ROOT.pem


def test_without_roots_there_is_no_ca_crt():
    assert set(tls().files_of(decode(LEAF.raw()))) == {"tls.key", "tls.crt"}


def test_roots_are_a_set_in_one_order():
    others = [make_root(), make_root()]
    both = [
        tls().files_of(decode(make_leaf(roots=order).raw())) for order in (others, others[::-1])
    ]

    assert both[0]["ca.crt"] == both[1]["ca.crt"]


def test_the_kind_has_a_name_for_each_part_and_a_chain_only_if_named():
    kind = tls()

    assert kind.named({}).names == {
        "private_key": "tls_key",
        "certificate": "tls_cert",
        "roots": "ca_cert",
    }
    assert kind.named({}).optional == {"roots"}
    assert kind.named({"chain": "tls_chain", "roots": "ca"}).optional == frozenset()
    assert kind.files == TLS_FILES


def test_a_named_chain_is_stored_apart():
    canonical = decode(LEAF.raw()).canonical()
    apart = tls().named({"chain": "tls_chain"})

    stored = apart.give(canonical)

    assert stored["tls_cert"] == LEAF.pem
    assert stored["tls_chain"] == pem(LOWER, UPPER)
    assert decode(apart.take(stored)) == decode(LEAF.raw())


def test_a_ca_is_read_and_given_as_before():
    raw = a_set()

    assert CA.bundle_of(CA.files_of(CA.decode(raw))) == CA.decode(raw)


@given(st.permutations([LEAF, LOWER, UPPER, ROOT, STRANGER]), st.integers(1, 5), st.integers(0, 4))
@settings(max_examples=60)
def test_the_published_form_is_a_fixed_point(order, size, repeated):
    stored = [*order[:size], order[repeated % size]]
    kind = tls()

    bundle = decode(LEAF.raw(*stored, roots=ROOT.pem))
    files = kind.files_of(bundle)

    again = kind.bundle_of(files)
    assert again == bundle
    assert again.notes == ()
    assert kind.files_of(again) == files


@given(st.binary(max_size=200), st.sampled_from(["private_key", "certificate", "chain", "roots"]))
@settings(max_examples=60)
def test_any_bytes_are_decoded_or_refused(data, part):
    with suppress(MaterialRefused):
        tls().findings(decode(LEAF.raw(**{part: data})), NOW)
