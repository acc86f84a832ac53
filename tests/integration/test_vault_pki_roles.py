"""What the roles of a real OpenBao sign, and what they answer when they do not."""

from __future__ import annotations

import pytest
from cryptography import x509

from certagent.config.model import TokenAuth, VaultConfig, VaultPKISource
from certagent.errors import AccessDenied, MaterialRefused, SecretNotFound, SourceUnavailable
from certagent.material.serving import tls
from certagent.sources.vault.connection import VaultConnection
from certagent.sources.vault.pki import Destination
from certagent.sources.vault.pki import VaultPKISource as PKISource
from tests.support.pods import Recorder, common_name
from tests.support.process import certagent, running


class TestRoles:
    """What a role answers, with the source alone: who publishes leafs is another's matter."""

    @pytest.fixture
    def leaf(self, pods, openbao):
        """Issue a leaf by the role `web` with these options, or as it is with None."""
        connection = VaultConnection(
            VaultConfig(address=openbao.address, auth=TokenAuth()), environment_token=openbao.token
        )

        def leaf_(role=(), **options):
            if role is not None:
                openbao.pki_role(pods.mount, "web", **dict(role))
            wanted = {"dns_names": ("a.example.com",), "ttl": "24h", "key_type": "ec-p256"}
            config = VaultPKISource(mount=pods.mount, role="web", **{**wanted, **options})
            source = PKISource(connection, config, Destination(tls("server")))
            return x509.load_pem_x509_certificate(next(source.revisions()).load().certificate)

        yield leaf_
        connection.close()

    def test_names_of_all_kinds_are_those_that_were_asked_for(self, leaf):
        found = leaf(
            dns_names=("a.example.com", "*.example.com"),
            uri_sans=("spiffe://cluster.local/ns/x/sa/y",),
            ip_sans=("10.0.0.1", "::1"),
        )

        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert sorted(str(name.value) for name in names) == [
            "*.example.com",
            "10.0.0.1",
            "::1",
            "a.example.com",
            "spiffe://cluster.local/ns/x/sa/y",
        ]
        assert common_name(found.subject) == "a.example.com"

    def test_a_role_that_takes_names_from_parameters_gives_the_same(self, leaf):
        assert leaf({"use_csr_sans": False, "use_csr_common_name": False}).subject

    def test_a_role_that_needs_no_common_name_gives_one_with_a_uri_alone(self, leaf):
        uris = ("spiffe://cluster.local/ns/x/sa/y",)

        assert not list(leaf({"require_cn": False}, dns_names=(), uri_sans=uris).subject)

    @pytest.mark.parametrize(
        ("role", "options", "error", "told"),
        [
            (None, {}, SecretNotFound, "no role of that name"),
            ({}, {"dns_names": ("a.example.org",)}, AccessDenied, "allowed_domains"),
            ({}, {"uri_sans": ("spiffe://other/x",)}, AccessDenied, "allowed_uri_sans"),
            ({"allow_ip_sans": False}, {"ip_sans": ("10.0.0.1",)}, AccessDenied, "ipSans"),
            ({"key_type": "rsa"}, {}, AccessDenied, "Set keyType to what the role asks for"),
            (
                {"key_type": "ec", "key_bits": 384},
                {},
                AccessDenied,
                "Set keyType to what the role asks for",
            ),
            (
                {"key_type": "rsa", "key_bits": 3072},
                {"key_type": "rsa-2048"},
                AccessDenied,
                "Set keyType to what the role asks for",
            ),
            (
                {},
                {"dns_names": (), "uri_sans": ("spiffe://cluster.local/x",)},
                AccessDenied,
                "require_cn=false",
            ),
            ({"max_ttl": "1h"}, {}, AccessDenied, "Vault gave 1:00:30 where a ttl of 24h"),
            (
                {"not_before_duration": "3h"},
                {},
                MaterialRefused,
                "longer than was asked for",
            ),
        ],
    )
    def test_a_refusal_says_what_to_change(self, leaf, role, options, error, told):
        with pytest.raises(error) as refused:
            leaf(role, **options)
        assert told in str(refused.value)

    def test_an_issuer_that_expires_sooner_is_told_with_vaults_own_words(self, leaf, pods, openbao):
        openbao.make_default(pods.mount, openbao.issuer(pods.mount, "Short", ttl="10h"))

        with pytest.raises(AccessDenied, match="beyond the expiration of the CA") as refused:
            leaf()
        assert "ask for a shorter ttl" in refused.value.hint

    def test_an_issuer_that_cuts_to_its_own_end_is_believed(self, leaf, pods, openbao):
        short = openbao.issuer(pods.mount, "Short", ttl="10h")
        behaviour = {"issuer_name": "Short", "leaf_not_after_behavior": "truncate"}
        openbao.call("POST", f"{pods.mount}/issuer/{short}", behaviour)
        openbao.make_default(pods.mount, short)

        assert common_name(leaf().issuer) == "Short"

    def test_a_role_with_an_issuer_of_its_own_says_to_name_it(self, leaf, pods, openbao):
        openbao.issuer(pods.mount, "B")

        with pytest.raises(SourceUnavailable, match="issuer_ref"):
            leaf({"issuer_ref": "B"})
        assert common_name(leaf({"issuer_ref": "B"}, issuer="B").issuer) == "B"


class TestAGateway:
    @pytest.fixture
    def config(self, pods, openbao, tmp_path):
        """An agent with a gateway's certificate, by the role `web` and the least policy."""
        openbao.pki_role(pods.mount, "web")
        policy = openbao.policy_of(
            **{
                f"{pods.mount}/issuers": "list",
                f"{pods.mount}/issuer/+/json": "read",
                f"{pods.mount}/sign/web": "update",
            }
        )
        pods.token = openbao.create_token(policy)
        path = tmp_path / "gateway.yaml"
        path.write_text(
            "bundles:\n"
            "- name: ingress\n"
            "  kind: tls\n"
            f"  source: {{vaultPKI: {{mount: {pods.mount}, role: web, ttl: 24h, keyType: ec-p256,\n"
            "                        dnsNames: [a.example.com]}}\n"
            f"  output: {{directory: {tmp_path / 'ingress'}}}\n"
        )
        return path

    @pytest.fixture
    def served(self, tmp_path):
        """What the gateway finds: its chain, and whom it trusts."""

        def served_():
            current = tmp_path / "ingress" / "current"
            if not current.exists():
                return [], []
            names = ("tls.crt", "ca.crt")
            return [
                [common_name(each.issuer) for each in x509.load_pem_x509_certificates(data)]
                for data in ((current / name).read_bytes() for name in names)
            ]

        return served_

    def test_it_gets_its_certificate_once_and_check_accepts_it(
        self, pods, config, served, tmp_path
    ):
        with Recorder(pods) as recorder:
            for _ in range(2):
                done = certagent("init", "--config", config, **pods.environ)
                assert done.code == 0, done.stderr

            assert [asked.path for asked in recorder.signed] == [f"/v1/{pods.mount}/sign/web"]
        assert served() == [["A"], ["A"]]
        checked = certagent("check", "--kind", "tls", tmp_path / "ingress" / "current")
        assert checked.code == 0, checked.stdout

    def test_a_new_issuer_signs_at_once(self, pods, config, served, openbao):
        with running("--config", config, **pods.environ) as agent:
            agent.until(lambda: served() == [["A"], ["A"]])
            openbao.make_default(pods.mount, openbao.issuer(pods.mount, "B"))

            agent.until(lambda: served()[0] == ["B"], within=5)

            assert sorted(served()[1]) == ["A", "B"]
