"""Certificates that a real OpenBao issues, from a real PKI mount to what a reader finds."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.support.pods import SIGN, Recorder, common_name
from tests.support.process import certagent


class TestInit:
    def test_it_publishes_a_set_that_check_accepts(self, pods):
        done = pods.init()

        assert done.code == 0, done.stderr
        checked = certagent("check", pods.directory / "ca", "--format", "json")
        assert checked.code == 0, checked.stdout
        assert pods.state() == ("A", "A")
        key = serialization.load_pem_private_key(pods.files()["ca-key.pem"], None)
        assert key.public_key() == pods.certificate().public_key()
        constraints = pods.certificate().extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
        issuer = x509.load_pem_x509_certificate(pods.files()["root-cert.pem"])
        backdated = issuer.not_valid_before_utc - pods.certificate().not_valid_before_utc
        assert backdated > timedelta(minutes=3), "it is not young for those whose clocks are behind"

    def test_a_second_one_changes_nothing_and_asks_for_no_signature(self, pods):
        with Recorder(pods) as recorder:
            assert pods.init().code == 0
            before, current = pods.files(), (pods.directory / "ca" / "..data").readlink()
            recorder.asked.clear()

            assert pods.init().code == 0

            assert not recorder.signed
        assert pods.files() == before
        assert (pods.directory / "ca" / "..data").readlink() == current

    def test_the_key_is_in_no_request(self, pods):
        with Recorder(pods) as recorder:
            assert pods.init().code == 0
            bodies = [asked.body for asked in recorder.asked]
            assert len(recorder.signed) == 1
            asked = json.loads(recorder.signed[0].body)

        request = x509.load_pem_x509_csr(asked["csr"].encode())
        assert request.public_key() == pods.certificate().public_key()
        key = pods.files()["ca-key.pem"]
        inner = "".join(key.decode().splitlines()[1:-1]).encode()
        for body in bodies:
            text = body.replace(b"\\n", b"")
            assert b"PRIVATE" not in text
            assert inner[8:40] not in text

    @pytest.mark.parametrize("key_type", ["rsa-2048", "rsa-3072", "ec-p384"])
    def test_keys_of_every_kind_are_signed(self, pods, key_type):
        done = pods.init(pods.config(keyType=key_type))

        assert done.code == 0, done.stderr
        key = pods.certificate().public_key()
        assert key.key_size == int(key_type.rpartition("-")[2].removeprefix("p"))

    def test_an_intermediate_mount_is_chained_up_to_its_root(self, pods, openbao):
        below = openbao.pki()
        made = openbao.call(
            "POST", f"{below}/intermediate/generate/internal", {"common_name": "Int"}
        )
        signed = openbao.call(
            "POST",
            f"{pods.mount}/{SIGN}",
            {"csr": made["data"]["csr"], "common_name": "Int", "ttl": "8760h"},
        )
        chain = {"certificate": signed["data"]["certificate"]}
        openbao.call("POST", f"{below}/intermediate/set-signed", chain)
        token = openbao.token

        missing = pods.init(pods.config(mount=below), VAULT_TOKEN=token)

        assert missing.code == 66
        assert "has no root: it ends below 'CN=A'" in missing.log[-1]["message"]
        root = openbao.call("GET", f"{pods.mount}/issuer/default/json")["data"]["certificate"]
        openbao.call("POST", f"{below}/issuers/import/cert", {"pem_bundle": root})
        assert pods.init(pods.config(mount=below), VAULT_TOKEN=token).code == 0
        assert pods.state() == ("Int", "A")
        found = x509.load_pem_x509_certificates(pods.files()["cert-chain.pem"])
        assert [common_name(each.subject) for each in found] == ["Mesh CA", "Int"]
        assert certagent("check", pods.directory / "ca").code == 0

    def test_name_constraints_that_the_mount_imposes_are_judged(self, pods, openbao):
        mount = openbao.pki()
        openbao.issuer(mount, "Narrow", permitted_dns_domains=["example.com"])

        done = pods.init(pods.config(mount=mount), VAULT_TOKEN=openbao.token)

        assert done.code == 0
        assert "name-constraints-unusual" in {record.get("code") for record in done.log}


class TestRefusals:
    """Each: the exit code, and what is said."""

    def refused(self, pods, config, code, *told, **environ):
        done = pods.init(config, **environ)
        text = f"{done.log[-1]['message']}\n{done.log[-1].get('hint', '')}"

        assert done.code == code, done.stderr
        for each in told:
            assert each in text
        assert not pods.files()

    def test_a_policy_without_the_right(self, pods, openbao):
        token = openbao.create_token("default")
        path = f'"update" on "{pods.mount}/{SIGN}"'
        self.refused(pods, None, 77, path, VAULT_TOKEN=token)

    def test_a_mount_with_no_issuer(self, pods, openbao):
        config = pods.config(mount=openbao.pki())
        self.refused(pods, config, 66, "has no issuer", VAULT_TOKEN=openbao.token)

    def test_a_mount_that_is_not_pki(self, pods, openbao):
        for mount in (openbao.kv(1), openbao.kv(2)):
            config = pods.config(mount=mount)
            self.refused(pods, config, 66, mount, "mount", VAULT_TOKEN=openbao.token)

    def test_no_such_mount(self, pods, openbao):
        config = pods.config(mount="nowhere")
        self.refused(pods, config, 66, "no PKI engine at 'nowhere'", VAULT_TOKEN=openbao.token)
        self.refused(pods, config, 77, "also where there is no mount of this name")

    def test_no_such_issuer(self, pods):
        self.refused(pods, pods.config(issuer="B"), 66, "no 'B' issuer; there are: A")

    def test_a_ttl_above_the_mounts_limit(self, pods, openbao):
        mount = openbao.pki(max_ttl="100h")
        openbao.issuer(mount, "Short", ttl="100h")
        openbao.call("POST", f"sys/mounts/{mount}/tune", {"max_lease_ttl": "24h"})
        config = pods.config(mount=mount, ttl="48h")
        told = ("Vault gave 1 day", "ttl of 48h", "max-lease-ttl")
        self.refused(pods, config, 77, *told, VAULT_TOKEN=openbao.token)

    def test_an_issuer_that_expires_sooner_than_the_ttl(self, pods, openbao):
        mount = openbao.pki()
        openbao.issuer(mount, "Short", ttl="24h")
        config = pods.config(mount=mount, ttl="48h")
        told = ("sooner than a CA with a ttl of 48h", "new issuer")
        self.refused(pods, config, 77, *told, VAULT_TOKEN=openbao.token)

    def test_an_issuer_below_which_no_ca_may_be(self, pods, openbao):
        mount = openbao.pki()
        openbao.issuer(mount, "Narrow", max_path_length=0)
        told = ("max path length of zero", "leaves room for a CA")
        self.refused(pods, pods.config(mount=mount), 77, *told, VAULT_TOKEN=openbao.token)

    def test_an_issuer_without_the_usage(self, pods, openbao):
        usage = {"issuer_name": "A", "usage": "read-only,crl-signing"}
        openbao.call("POST", f"{pods.mount}/issuer/A", usage)
        self.refused(pods, None, 77, "may not issue certificates")


class TestOperators:
    def test_status_shows_what_was_issued(self, pods):
        config = pods.config()
        pods.init(config)

        shown = certagent("status", "--config", config, "--format", "json", **pods.environ)

        (report,) = json.loads(shown.stdout)
        assert shown.code == 0
        assert report["source"] == f"vault-pki:{pods.mount}"
        assert report["version"].startswith("sha256:")

    def test_plan_says_why_there_is_none(self, pods):
        done = certagent("plan", "--config", pods.config(), **pods.environ)

        assert done.code == 64
        assert "Vault issues a certificate to each pod, and stores no history" in done.stderr

    def test_push_says_that_nothing_can_be_stored(self, pods):
        done = certagent("push", f"vault-pki:{pods.mount}", "--from", "x", **pods.environ)

        assert done.code == 64
        assert "names certificates that Vault issues" in done.stderr
