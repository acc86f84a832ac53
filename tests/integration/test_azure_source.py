"""certagent as a pod of AKS runs it, with a Key Vault on loopback behind the SDK as it comes."""

from __future__ import annotations

import base64
import json
import re
import signal
import time
import urllib.request

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

from tests.support.azure import EXCHANGE
from tests.support.azure.faults import answers, hangs
from tests.support.azure.operator import SECRETS, store, store_part
from tests.support.azure.pod import AGO, Pod
from tests.support.azure.vault import PKCS12
from tests.support.material import (
    fields,
    files,
    make_leaf,
    make_root,
    new_key,
    pem,
    private_key_pem,
)
from tests.support.openbao import free_port
from tests.support.process import certagent, published


@pytest.fixture(scope="module")
def root():
    return make_root()


@pytest.fixture(scope="module")
def ca(root):
    return root.intermediate()


@pytest.fixture
def certs(tmp_path, ca):
    directory = tmp_path / "certs"
    directory.mkdir()
    for name, data in files(ca.raw()).items():
        (directory / name).write_bytes(data)
    return directory


@pytest.fixture
def pod(azure, tmp_path):
    return Pod(azure, "public", tmp_path)


@pytest.mark.parametrize("cloud", ["public", "china", "usGovernment"])
def test_a_pod_of_each_cloud_gets_its_ca_with_what_aks_injects(azure, tmp_path, ca, cloud):
    pod = Pod(azure, cloud, tmp_path)
    store(pod.vault, ca.raw())

    done = pod.init()

    assert (done.code, published(pod.directory)) == (0, files(ca.raw()))


@pytest.mark.parametrize(
    ("source", "write"),
    [
        (
            {"certificate": "ca", "roots": "roots"},
            lambda vault, ca: (
                vault.certificate("ca", ca.key, [ca.certificate, ca.root.certificate]),
                vault.set("roots", pem(ca.root).decode()),
            ),
        ),
        ({"secret": "all"}, lambda vault, ca: vault.set("all", json.dumps(fields(ca.raw())))),
    ],
    ids=["certificate", "secret"],
)
def test_the_other_forms_are_published_as_well(pod, ca, tmp_path, source, write):
    write(pod.vault, ca)
    document = {
        "azure": {"vaultUrl": pod.vault.url, "credential": "workloadIdentity"},
        "bundles": [
            {
                "name": "istiod-ca",
                "source": {"azureKeyVault": source},
                "output": {"directory": str(pod.directory)},
            }
        ],
    }
    (tmp_path / "certagent.yaml").write_text(json.dumps(document))

    done = certagent(
        "init",
        "--config",
        tmp_path / "certagent.yaml",
        **{**pod.environment, "CERTAGENT_SOURCE": None, "ROOT_CA_DIR": None},
    )

    assert (done.code, published(pod.directory)) == (0, files(ca.raw()))


def test_a_gateway_gets_its_certificate_object(pod, tmp_path):
    leaf = make_leaf()
    pod.vault.certificate("ingress", leaf.key, [each.certificate for each in leaf.sent])
    document = {
        "bundles": [
            {
                "name": "ingress",
                "kind": "tls",
                "source": {"azureKeyVault": {"certificate": "ingress"}},
                "output": {"directory": str(tmp_path / "ingress")},
            }
        ]
    }
    (tmp_path / "certagent.yaml").write_text(json.dumps(document))
    only = {"CERTAGENT_CONFIG": tmp_path / "certagent.yaml", "CERTAGENT_SOURCE": None}

    done = pod.init(CERTAGENT_AZURE_VAULT_URL=pod.vault.url, ROOT_CA_DIR=None, **only)

    assert done.code == 0, done.stderr
    assert (tmp_path / "ingress/current/tls.crt").read_bytes().startswith(leaf.pem)
    assert (tmp_path / "ingress/current/tls.key").read_bytes() == leaf.key_pem


def test_the_plan_of_a_vault_is_shown(pod, ca):
    store(pod.vault, ca.raw())

    done = certagent("plan", "azure:mesh", **pod.environment)

    assert done.code == 0
    assert done.stdout.startswith("istiod-ca: azure:mesh\n")
    assert "settled" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["plan", "azure:other"], 64, "the configuration's vault is https://mesh.vault.azure.net"),
        (["plan", "azure:mesh"], 0, ""),
        (["push", "azure:other", "--from", "."], 64, "the configuration's vault is"),
        (["retire", "azure:mesh"], 64, "cannot destroy one version"),
    ],
)
def test_an_operators_source_is_the_vault_of_the_configuration(
    pod, ca, tmp_path, words, code, said
):
    store(pod.vault, ca.raw())
    document = {
        "azure": {"vaultUrl": pod.vault.url},
        "bundles": [
            {
                "name": "istiod-ca",
                "source": {"azureKeyVault": {}},
                "output": {"directory": str(pod.directory)},
            }
        ],
    }
    (tmp_path / "certagent.yaml").write_text(json.dumps(document))
    environ = {**pod.environment, "CERTAGENT_SOURCE": None, "ROOT_CA_DIR": None}

    done = certagent(*words, "--config", tmp_path / "certagent.yaml", **environ)

    assert (done.code, said in done.stderr) == (code, True)


def test_a_configuration_without_a_key_vault_cannot_open_one(tmp_path, certs):
    document = {
        "bundles": [
            {
                "name": "istiod-ca",
                "source": {"files": {"directory": str(certs)}},
                "output": {"directory": str(tmp_path / "out")},
            }
        ]
    }
    (tmp_path / "certagent.yaml").write_text(json.dumps(document))

    done = certagent("plan", "azure:mesh", "--config", tmp_path / "certagent.yaml")

    assert done.code == 78
    assert "The configuration names no Key Vault" in done.stderr


def test_another_vault_than_the_configurations_is_not_confused_with_it(pod):
    done = certagent(
        "plan", "azure:other", **pod.environment, CERTAGENT_AZURE_VAULT_URL=pod.vault.url
    )

    assert done.code == 78


class TestBadInput:
    """Each with the exit code that runbooks know, and what to change."""

    def refused(self, pod, code, *said, **environ):
        done = pod.init(**environ)
        assert done.code == code, done.stderr
        for text in said:
            assert text in done.stderr
        assert pod.token_file.read_text() not in done.stderr
        assert published(pod.directory) == {}

    def test_a_wrong_tenant(self, pod):
        theirs = f"The vault is in tenant {pod.tenant.id}"

        self.refused(pod, 77, theirs, "tenantId", AZURE_TENANT_ID="11111111-0000")

    def test_a_wrong_client_id(self, pod):
        self.refused(pod, 77, "AADSTS700016", "clientId", AZURE_CLIENT_ID="11111111-0000")

    @pytest.mark.parametrize(
        ("claims", "said"),
        [
            ({"audience": "vault"}, "AADSTS700212"),
            ({"subject": "system:serviceaccount:istio-system:other"}, "AADSTS700213"),
        ],
    )
    def test_a_wrong_audience_or_subject(self, pod, claims, said):
        pod.token_file.write_text(pod.issuer.mint(**claims))

        self.refused(pod, 77, said, "federated credential", EXCHANGE)

    def test_a_token_that_is_not_there(self, pod):
        self.refused(pod, 77, "cannot be read", AZURE_FEDERATED_TOKEN_FILE="/nowhere/token")

    def test_a_clock_that_is_off(self, pod):
        pod.azure.clock.offset = -7200

        self.refused(pod, 77, "AADSTS700024", "The clock of this machine is off")

    def test_a_vaults_name_with_a_typo(self, pod):
        self.refused(pod, 69, "mseh.vault.azure.net", "a vault of that name",
                     CERTAGENT_SOURCE="azure:mseh")  # fmt: skip

    def test_a_cloud_that_the_authority_is_not_of(self, pod):
        self.refused(pod, 78, "AZURE_AUTHORITY_HOST", CERTAGENT_AZURE_CLOUD="china")

    def test_no_permission(self, pod, ca):
        store(pod.vault, ca.raw())
        pod.vault.revoke(pod.app, "get", "list")

        self.refused(pod, 77, "ForbiddenByRbac", "Key Vault Secrets User")

    def test_no_secret(self, pod, ca):
        store(pod.vault, ca.raw(), ["private_key"])

        self.refused(pod, 66, "no secret 'ca-cert' and no 'cert-chain' and no 'root-cert'")

    def test_a_disabled_one(self, pod, ca):
        store(pod.vault, ca.raw(), created_on=pod.start)
        pod.vault.disable("ca-key")

        self.refused(pod, 66, "was disabled at", "az keyvault secret set-attributes")

    def test_an_expired_one(self, pod, ca):
        store(pod.vault, ca.raw(), created_on=pod.start, expires=pod.start + AGO / 2)

        self.refused(pod, 65, "expired in its store at")

    def test_one_that_is_not_to_be_used_yet(self, pod, ca):
        store(pod.vault, ca.raw(), not_before=pod.start + 2 * AGO)

        self.refused(pod, 66, "activation date")

    def test_a_secret_that_is_not_pem(self, pod, ca):
        store(pod.vault, ca.raw(certificate=b"DER, perhaps"))

        self.refused(pod, 65, "pem-missing")

    def test_a_key_of_another_certificate(self, pod, ca):
        store(pod.vault, ca.raw(private_key=private_key_pem(new_key())))

        self.refused(pod, 65, "key-mismatch")

    @pytest.mark.parametrize(
        ("write", "said"),
        [
            (
                lambda vault, ca: vault.set(
                    "ca",
                    base64.b64encode(
                        pkcs12.serialize_key_and_certificates(
                            b"", ca.key, ca.certificate, None, BestAvailableEncryption(b"x" * 9)
                        )
                    ).decode(),
                    content_type=PKCS12,
                ),
                "without a password",
            ),
            (
                lambda vault, ca: vault.certificate(
                    "ca", ca.key, [ca.certificate], exportable=False
                ),
                "exportable",
            ),
        ],
        ids=["password", "not exportable"],
    )
    def test_a_certificate_object_that_has_no_readable_key(self, pod, ca, tmp_path, write, said):
        write(pod.vault, ca)
        pod.vault.set("roots", pem(ca.root).decode())
        document = {
            "bundles": [
                {
                    "name": "istiod-ca",
                    "source": {"azureKeyVault": {"certificate": "ca", "roots": "roots"}},
                    "output": {"directory": str(pod.directory)},
                }
            ]
        }
        (tmp_path / "certagent.yaml").write_text(json.dumps(document))
        only = {"CERTAGENT_CONFIG": tmp_path / "certagent.yaml", "CERTAGENT_SOURCE": None}

        self.refused(pod, 65, said, CERTAGENT_AZURE_VAULT_URL=pod.vault.url, **only)

    def test_a_limit_that_was_reached(self, pod, ca):
        store(pod.vault, ca.raw())
        pod.azure.faults.inject(answers(429, Retry_After="3600"), times=None)

        self.refused(pod, 69, "429", "4000 requests")


class TestARunningAgent:
    def test_an_unchanged_poll_is_four_requests_also_while_a_rotation_is_under_way(self, pod, ca):
        store(pod.vault, ca.raw(), created_on=pod.start)
        other = make_root().intermediate()
        store(pod.vault, other.raw())
        with pod.run(ISTIO_MULTIROOT_MESH="true") as agent:
            agent.until(lambda: agent.publications)
            asked = len(pod.requests)
            agent.until(lambda: len(pod.requests) >= asked + 16)
            assert agent.stop() == 0

        assert agent.publications[0]["phase"] == "distribute"
        lists = [f"/secrets/{name}/versions" for name in SECRETS.values()]
        whole = pod.requests.index(lists[0], asked)  # before it, the end of a poll
        assert pod.requests[whole : whole + 12] == lists * 3
        assert len(pod.azure.token_requests) == 1

    def test_a_set_that_is_stored_part_by_part_is_published_once_it_is_whole(self, pod, root, ca):
        store(pod.vault, ca.raw(), created_on=pod.start)
        new = root.intermediate()
        with pod.run() as agent:
            agent.until(lambda: agent.publications)
            for index, part in enumerate(("chain", "roots", "private_key", "certificate")):
                pod.azure.clock.offset = index + 1
                polls = len(pod.requests)
                if index == 3:
                    assert len(agent.publications) == 1
                store_part(pod.vault, new.raw(), part)
                agent.until(lambda polls=polls: len(pod.requests) >= polls + 8)
            agent.until(lambda: len(agent.publications) == 2)
            agent.stop()

        assert published(pod.directory) == files(new.raw())
        assert not [each for each in agent.log if each["level"] == "error"]
        assert agent.logged("does not hold together, and is passed over")

    def test_a_pod_that_starts_in_the_middle_takes_the_whole_set_before(self, pod, root, ca):
        store(pod.vault, ca.raw(), created_on=pod.start)
        store(pod.vault, root.intermediate().raw(), ["private_key", "chain", "roots"])

        done = pod.init()

        assert (done.code, published(pod.directory)) == (0, files(ca.raw()))

    def test_a_token_that_is_revoked_costs_one_login(self, pod, ca):
        store(pod.vault, ca.raw())
        port = free_port()
        with pod.run(CERTAGENT_SERVER_ADDRESS=f"127.0.0.1:{port}") as agent:
            agent.until(lambda: agent.publications)
            pod.azure.revoke_tokens()
            agent.until(lambda: len(pod.azure.token_requests) == 2)
            asked = len(pod.requests)
            agent.until(lambda: len(pod.requests) >= asked + 8)
            metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read()
            agent.stop()

        assert len(pod.azure.token_requests) == 2
        assert not [each for each in agent.log if each["level"] == "error"]
        assert re.search(rb'certagent_logins_total\{[^}]*outcome="ok"[^}]*\} 2.0', metrics)
        assert re.search(rb'certagent_source_requests_total\{[^}]*outcome="ok"', metrics)

    def test_an_outage_leaves_the_last_good_set_and_is_over_when_it_is_over(self, pod, root, ca):
        store(pod.vault, ca.raw(), created_on=pod.start)
        with pod.run() as agent:
            agent.until(lambda: agent.publications)
            fault = pod.azure.faults.inject(answers(503), times=None)
            agent.until(lambda: agent.logged("cannot answer now (503"))
            assert published(pod.directory) == files(ca.raw())
            new = root.intermediate()
            store(pod.vault, new.raw())
            fault.times = 0
            agent.until(lambda: len(agent.publications) == 2)
            agent.until(lambda: agent.logged("recovered"))
            agent.stop()

        assert published(pod.directory) == files(new.raw())

    def test_a_stop_waits_for_the_request_in_flight_and_no_longer(self, pod, ca, tmp_path):
        store(pod.vault, ca.raw())
        azure = {"azure": {"requestTimeout": "1s"}}
        (tmp_path / "certagent.yaml").write_text(json.dumps(azure))
        with pod.run(CERTAGENT_CONFIG=tmp_path / "certagent.yaml") as agent:
            agent.until(lambda: agent.publications)
            pod.azure.faults.inject(hangs, times=None)
            asked = len(pod.requests)
            agent.until(lambda: len(pod.requests) > asked)
            began = time.monotonic()
            agent.signal(signal.SIGTERM)
            code = agent.process.wait(20)

        assert code == 0
        assert time.monotonic() - began < 5, "the second of one request, and an end"

    @pytest.mark.parametrize("log_format", ["text", "json"])
    def test_with_debug_logs_on_no_secret_is_shown(self, pod, root, ca, log_format):
        store(pod.vault, ca.raw(), created_on=pod.start)
        how = {"CERTAGENT_LOG_LEVEL": "debug", "CERTAGENT_LOG_FORMAT": log_format}
        with pod.run(**how) as agent:
            agent.until(lambda: published(pod.directory))
            store(pod.vault, root.intermediate().raw(certificate=ca.key_pem))
            agent.until(lambda: "key-in-public-part" in "".join(agent.lines))
            agent.stop()

        said = "".join(agent.lines)
        secrets = {line for line in ca.key_pem.decode().splitlines() if "-----" not in line}
        secrets |= {pod.token_file.read_text(), *(each.value for each in pod.azure.issued.tokens)}
        assert not [secret for secret in secrets if secret in said]
        assert "debug" in said.lower()
        assert "GET https://mesh.vault.azure.net/secrets/ca-key/versions: 200" in said
