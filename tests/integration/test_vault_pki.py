"""Certificates that a real OpenBao issues, from a real PKI mount to what a reader finds."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from tests.support.material import make_root
from tests.support.process import certagent, published, running
from tests.support.scripted import ScriptedServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.openbao import OpenBao

SIGN = "root/sign-intermediate"
WINDOWS = {"CERTAGENT_DISTRIBUTE": "6s", "CERTAGENT_RETIRE": "6s", "CERTAGENT_SLACK": "1s"}


@dataclass
class Pods:
    """A PKI mount of its own, and agents that publish what it issues."""

    openbao: OpenBao
    mount: str
    directory: Path
    token: str
    address: str
    numbers: count = field(default_factory=count)

    def config(self, *, ttl: str = "720h", more: str = "", **source: object) -> Path:
        """Write a configuration; `more` are further top-level lines."""
        wanted = {"mount": self.mount, "ttl": ttl, "commonName": "Mesh CA", "keyType": "ec-p256"}
        bundle = {
            "name": "istiod-ca",
            "source": {"vaultPKI": {**wanted, **source}},
            "output": {"directory": str(self.directory / "ca")},
        }
        path = self.directory / f"certagent-{next(self.numbers)}.yaml"
        path.write_text(f"bundles: [{json.dumps(bundle)}]\n{more}")
        return path

    @property
    def environ(self) -> dict[str, object]:
        return {
            "VAULT_ADDR": self.address,
            "VAULT_TOKEN": self.token,
            "CERTAGENT_INTERVAL": "200ms",
            "CERTAGENT_INIT_DEADLINE": "1s",
            "CERTAGENT_LOG_FORMAT": "json",
            "ISTIO_MULTIROOT_MESH": "true",
        }

    def init(self, config: Path | None = None, **environ: object):
        return certagent("init", "--config", config or self.config(), **{**self.environ, **environ})

    def files(self, name: str = "ca") -> dict[str, bytes]:
        return published(self.directory / name)

    def certificate(self, name: str = "ca") -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.files(name)["ca-cert.pem"])

    def state(self, name: str = "ca") -> tuple[str, str]:
        """The published signer's issuer and the roots, by common name: `A`, `AB`."""
        found = self.files(name)
        if not found:
            return "", ""
        roots = x509.load_pem_x509_certificates(found["root-cert.pem"])
        names = sorted(common_name(root.subject) for root in roots)
        return common_name(self.certificate(name).issuer), "".join(names)


def common_name(name: x509.Name) -> str:
    return name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


@pytest.fixture
def mount(openbao):
    """A mount with the root A, and nothing else."""
    made = openbao.pki()
    openbao.issuer(made, "A")
    return made


@pytest.fixture
def least(openbao, mount):
    """A token of the policy that the docs state."""
    policy = openbao.policy_of(
        **{
            f"{mount}/issuers": "list",
            f"{mount}/issuer/+/json": "read",
            f"{mount}/{SIGN}": "update",
            f"{mount}/issuer/+/sign-intermediate": "update",
        }
    )
    return openbao.create_token(policy)


@pytest.fixture
def pods(openbao, mount, least, tmp_path):
    return Pods(openbao, mount, tmp_path, least, openbao.address)


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

    def test_a_path_length_that_the_issuer_imposes_is_judged(self, pods, openbao):
        mount = openbao.pki()
        openbao.issuer(mount, "Narrow", max_path_length=0)

        done = pods.init(pods.config(mount=mount), VAULT_TOKEN=openbao.token)

        assert done.code in {65, 77}
        assert not pods.files()


class TestRenewal:
    def test_after_two_thirds_of_the_ttl_a_new_one_is_published(self, pods):
        config = pods.config(ttl="9s", more="rotation: {strategy: immediate}\n")
        with running("--config", config, **pods.environ) as agent:
            agent.until(pods.files)
            first, since = pods.certificate(), time.monotonic()
            agent.until(lambda: pods.certificate() != first)
            taken = time.monotonic() - since
            assert agent.stop() == 0

        renewed = pods.certificate()
        assert taken < 9
        assert renewed.public_key() != first.public_key()
        assert renewed.issuer == first.issuer
        assert len(agent.publications) == 2
        roots = {record["roots"] for record in agent.publications}
        assert len(roots) == 1

    def test_one_that_is_refused_leaves_what_is_published(self, pods, openbao):
        config = pods.config(ttl="6s", more="rotation: {strategy: immediate}\n")
        with running("--config", config, **pods.environ) as agent:
            agent.until(pods.files)
            before = pods.files()
            usage = {"issuer_name": "A", "usage": "read-only"}
            openbao.call("POST", f"{pods.mount}/issuer/A", usage)
            agent.until(lambda: agent.logged("requested usage"))

            assert pods.files() == before
            assert agent.stop() == 0

    def test_a_restart_goes_on_with_what_is_there(self, pods):
        with Recorder(pods) as recorder:
            for _ in range(3):
                with running("--config", pods.config(), **pods.environ) as agent:
                    agent.until(lambda: len(recorder.asked) > 1 and pods.files())
                    agent.until(lambda agent=agent: agent.logged("settled"))
                    assert agent.stop() == 0

            assert len(recorder.signed) == 1


class TestRotation:
    def test_a_new_issuer_goes_through_its_phases_for_all_that_are_there_and_are_born(
        self, pods, openbao
    ):
        """A signs, A+B published; B signs, A+B published; A is removed, and kept by who knows."""
        environ = {**pods.environ, **WINDOWS}
        config = pods.config()
        other = {"ROOT_CA_DIR": pods.directory / "born"}
        with running("--config", config, **environ) as agent:
            agent.until(lambda: pods.state() == ("A", "A"))
            # A root that Vault generates says to be 30 s older, which these windows do not cover.
            fresh = make_root(subject="CN=B", not_before=datetime.now(UTC))
            new = openbao.import_issuer(pods.mount, fresh.pem + fresh.key_pem)
            openbao.make_default(pods.mount, new)
            came = time.monotonic()
            agent.until(lambda: pods.state() == ("A", "AB"))
            assert certagent("init", "--config", config, **environ, **other).code == 0
            assert pods.state("born") == ("A", "AB")
            agent.until(lambda: pods.state() == ("B", "AB"))
            switched = time.monotonic() - came
            openbao.remove_issuer(pods.mount, "A")
            agent.until(lambda: agent.logged("switch"))
            assert pods.state() == ("B", "AB"), "kept until d + r after it was superseded"
            agent.until(lambda: pods.state() == ("B", "B"))
            settled = time.monotonic() - came
            assert agent.stop() == 0

        assert 5 < switched < 12
        assert settled > 11
        assert not agent.logged("stored")

    def test_an_issuer_that_is_added_ahead_signs_at_once_when_it_is_made_the_default(
        self, pods, openbao
    ):
        environ = {**pods.environ, **WINDOWS}
        with running("--config", pods.config(), **environ) as agent:
            agent.until(lambda: pods.state() == ("A", "A"))
            new = openbao.issuer(pods.mount, "B")
            agent.until(lambda: pods.state() == ("A", "AB"))
            agent.until(lambda: agent.logged("settled: "))
            deadline = time.monotonic() + 7
            agent.until(lambda: time.monotonic() > deadline)
            openbao.make_default(pods.mount, new)
            agent.until(lambda: pods.state() == ("B", "AB"), within=3)


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

    def test_an_issuer_without_the_usage(self, pods, openbao):
        usage = {"issuer_name": "A", "usage": "read-only,crl-signing"}
        openbao.call("POST", f"{pods.mount}/issuer/A", usage)
        self.refused(pods, None, 77, "may not issue certificates")


class Recorder(ScriptedServer):
    """A proxy before OpenBao that keeps every request, bodies included."""

    def __init__(self, pods: Pods) -> None:
        super().__init__(self._pass_on)
        self._pods = pods
        self._port = pods.openbao.port

    def __enter__(self):
        super().__enter__()
        self._pods.address = self.address
        return self

    @property
    def signed(self):
        return [asked for asked in self.asked if "sign" in asked.path]

    def _pass_on(self, asked, _):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        headers = {name: asked.headers[name] for name in asked.headers if name != "host"}
        try:
            connection.request(asked.method, asked.path, asked.body or None, headers)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        head = f"HTTP/1.1 {response.status} status\r\nContent-Length: {len(body)}\r\n"
        return f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode() + body
