"""What a configuration of issued certificates may say, and every fault of it in one go."""

from __future__ import annotations

import json

import pytest

from certagent.config.decoding import load, parse_source
from certagent.config.model import RefreshConfig, VaultPKISource
from certagent.config.pki import pki_faults
from certagent.errors import ConfigurationError

AUTH = {"method": "kubernetes", "role": "istiod"}
VAULT = {"address": "https://vault.example.com:8200", "auth": AUTH}
CA = {"mount": "pki", "ttl": "720h", "commonName": "Mesh CA"}


@pytest.fixture
def decode(tmp_path):
    def decode_(source, environ=(), **more):
        bundle = {"name": "ca", "source": source, "output": {"directory": "/etc/ca"}}
        path = tmp_path / "certagent.yaml"
        path.write_text(json.dumps({"vault": VAULT, "bundles": [bundle], **more}))
        return load(str(path), dict(environ))

    return decode_


@pytest.fixture
def faults(decode):
    def faults_(source, **more):
        with pytest.raises(ConfigurationError) as refused:
            decode(source, **more)
        return refused.value.faults

    return faults_


def test_an_intermediate_needs_a_mount_a_ttl_and_a_common_name(decode):
    source = decode({"vaultPKI": CA}).bundles[0].source.vault_pki

    assert source == VaultPKISource(mount="pki", ttl="720h", common_name="Mesh CA")
    assert (source.key_type, source.path_length, source.issuer) == ("rsa-2048", 0, "")


def test_vaults_address_and_login_come_from_the_environment_as_for_secrets(decode):
    environ = {"VAULT_ADDR": "https://other:8200", "CERTAGENT_VAULT_ROLE": "other"}

    vault = decode({"vaultPKI": CA}, environ).vault

    assert (vault.address, vault.auth.role) == ("https://other:8200", "other")


def test_all_faults_are_told_with_their_keys(faults):
    source = {
        "mount": "pki",
        "ttl": "50ms",
        "keyType": "dsa",
        "pathLength": 11,
        "roll": "web",
    }

    told = faults({"vaultPKI": source})

    at = "bundles[0].source.vaultPKI"
    assert {fault.partition(": ")[0] for fault in told} == {
        f"{at}.keyType",
        f"{at}.pathLength",
        f"{at}.roll",
    }


def test_a_ca_has_a_name_and_neither_role_nor_alternative_names(faults):
    told = faults({"vaultPKI": {"mount": "pki", "ttl": "1h", "dnsNames": ["a"], "ipSans": ["x"]}})

    at = "bundles[0].source.vaultPKI"
    assert told == (
        f"{at}.commonName: missing; it is the CA's subject",
        f"{at}.dnsNames: a CA has no alternative names",
        f"{at}.ipSans: a CA has no alternative names",
        f"{at}.ipSans[0]: expected an IP address, got 'x'",
    )
    (told,) = faults({"vaultPKI": {**CA, "role": "web"}})
    assert told.startswith(f"{at}.role: for kind: tls")


def test_one_source_is_expected(faults):
    told = faults({"vaultPKI": CA, "files": {"directory": "/x"}})

    wanted = "expected exactly one of vaultKV, vaultPKI, azureKeyVault, files"
    assert told == (f"bundles[0].source: {wanted}",)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, [".role: missing", ".dnsNames: missing"]),
        ({"role": "web", "common_name": "a.example.com"}, [".dnsNames: missing"]),
        ({"role": "web", "uri_sans": ("spiffe://a/b",)}, []),
        ({"role": "web", "ip_sans": ("10.0.0.1", "::1")}, []),
        ({"role": "web", "dns_names": ("*.example.com",), "path_length": 1}, [".pathLength: "]),
        ({"role": "web", "dns_names": ("a,b",)}, [".dnsNames[0]: expected a DNS name"]),
        ({"role": "web", "dns_names": ("ö",)}, [".dnsNames[0]: expected a DNS name"]),
        ({"role": "web", "uri_sans": ("nothing",)}, [".uriSans[0]: expected a URI"]),
        ({"role": "../x", "ip_sans": ("10.0.0.1",)}, [".role: expected a name"]),
        ({"role": "a/b", "ip_sans": ("10.0.0.1",)}, [".role: expected a name"]),
        ({"role": "a b", "ip_sans": ("10.0.0.1",)}, [".role: expected a name"]),
        ({"role": "a", "dns_names": ("a. b",)}, [".dnsNames[0]: expected a DNS name"]),
        ({"role": "a", "dns_names": ("a",), "common_name": "ö" * 33}, [".commonName: expected at"]),
        ({"role": "a", "dns_names": ("a" * 200,)}, []),
        ({"role": "a", "issuer": "a/b", "ip_sans": ("10.0.0.1",)}, [".issuer: expected a name"]),
        ({"role": "a", "mount": "a/../b", "ip_sans": ("10.0.0.1",)}, [".mount: expected"]),
    ],
)
def test_a_leaf_needs_a_role_and_a_name(options, told):
    source = VaultPKISource(**{"mount": "team/pki", "ttl": "24h", **options})

    found = list(pki_faults(source, "tls", RefreshConfig()))

    assert len(found) == len(told)
    assert all(one.startswith(start) for one, start in zip(found, told, strict=True))


@pytest.mark.parametrize(
    ("ttl", "told"),
    [
        ("0s", ".ttl: expected more than nothing"),
        ("8000d", ".ttl: expected more than nothing and at most 20 years"),
        ("89s", ".ttl: 89s is shorter than three times refresh.interval, 30s"),
        ("90s", ""),
    ],
)
def test_a_ttl_lasts_for_some_polls_and_not_for_ever(ttl, told):
    source = VaultPKISource(mount="pki", ttl=ttl, common_name="x")

    found = list(pki_faults(source, "ca", RefreshConfig(interval="30s")))

    assert [one[: len(told)] for one in found] == ([told] if told else [])


def test_as_a_source_on_a_command_line_it_is_explained():
    with pytest.raises(ValueError, match="none are stored that could be read, planned or written"):
        parse_source("vault-pki:pki")
