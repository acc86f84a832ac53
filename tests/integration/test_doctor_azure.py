"""certagent doctor against a Key Vault on loopback, with the SDK as it comes."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest

from certagent.cli.diagnosis import azure as diagnosis
from tests.support.azure import EXCHANGE, FederatedCredential
from tests.support.azure.faults import answers
from tests.support.azure.operator import SECRET, store, store_part
from tests.support.diagnosis import Report, configured
from tests.support.material import make_root
from tests.support.process import certagent

HOUR = 3600


@pytest.fixture(scope="module")
def ca():
    return make_root().intermediate()


class Pod:
    """An application that a pod logs in as, with its federated token."""

    def __init__(self, azure, home):
        self.azure, self.home = azure, home
        self.tenant = azure.tenant()
        self.issuer = FederatedCredential().issuer
        self.app = self.tenant.application(federated=[FederatedCredential()], secret=SECRET)
        self.vault = azure.vault("mesh", self.tenant)
        self.vault.grant(self.app, "get", "list")
        self.token_file = home / "token"
        self.token_file.write_text(self.issuer.mint())

    @property
    def credential(self):
        return {
            "method": "workloadIdentity",
            "tenantId": self.tenant.id,
            "clientId": self.app.client_id,
            "tokenFile": str(self.token_file),
        }

    def config(self, credential=None, **more):
        source = {"azureKeyVault": more.pop("source", {})}
        settings = {
            "vaultUrl": more.pop("url", self.vault.url),
            "credential": credential or self.credential,
            "requestTimeout": "2s",
        }
        return configured(self.home, source, azure=settings, **more)

    def examine(self, **more):
        return Report(diagnosis.results(self.config(**more), datetime.now(UTC), ()))


@pytest.fixture
def pod(azure, tmp_path):
    return Pod(azure, tmp_path)


def test_all_is_well(pod, ca):
    store(pod.vault, ca.raw())

    report = pod.examine()

    assert not report.failures
    for name in ("server", "clock", "login", "list", "read", "history", "newest"):
        assert report.verdicts(name) == ["ok"], name
    assert pod.app.client_id in report.the("login").message


def test_nothing_is_written(pod, ca):
    store(pod.vault, ca.raw())

    pod.examine()

    assert {method for method, _, _ in pod.azure.requests(pod.vault)} <= {"GET", "CONNECT"}


def test_a_client_secret(pod, ca):
    store(pod.vault, ca.raw())
    (pod.home / "secret").write_text(SECRET)
    credential = {
        "method": "clientSecret",
        "tenantId": pod.tenant.id,
        "clientId": pod.app.client_id,
        "secretFile": str(pod.home / "secret"),
    }

    report = pod.examine(credential=credential)

    assert not report.failures
    assert SECRET not in report.text


class TestLogin:
    def test_a_wrong_audience(self, pod):
        pod.token_file.write_text(pod.issuer.mint(audience="vault"))

        report = pod.examine()

        assert report.failures == [("login", 77)]
        assert EXCHANGE in report.text
        assert "AADSTS" in report.the("login").message
        assert report.verdicts("read") == ["skipped"]

    def test_an_unknown_application(self, pod):
        report = pod.examine(credential={**pod.credential, "clientId": "nobody"})

        assert report.failures == [("login", 77)]
        assert "clientId" in report.the("login").fix

    def test_a_token_that_the_vault_does_not_take(self, pod, azure):
        azure.faults.inject(answers(401), times=None)

        report = pod.examine()

        assert report.failures == [("login", 77)]
        assert "tenant" in report.the("login").fix

    def test_no_token_file(self, pod):
        pod.token_file.unlink()

        report = pod.examine()

        assert report.failures == [("credential", 77)]
        assert report.verdicts("server") == ["ok"]
        assert report.verdicts("login") == ["skipped"]


class TestServer:
    def test_a_vault_that_does_not_exist(self, pod):
        report = pod.examine(url="https://msh.vault.azure.net")

        assert report.failures == [("server", 69)]
        assert "Is there a vault of that name" in report.the("server").fix

    def test_a_certificate_that_is_not_trusted(self, pod, azure):
        azure.present(pod.vault.host, "untrusted")

        report = pod.examine()

        assert report.failures == [("server", 69)]
        assert "REQUESTS_CA_BUNDLE" in report.the("server").fix

    def test_one_that_cannot_serve_now(self, pod, azure):
        azure.faults.inject(answers(503), times=None)

        report = pod.examine()

        assert report.failures == [("server", 69)]

    def test_one_that_breaks_down_meanwhile(self, pod, azure, ca):
        store(pod.vault, ca.raw())
        azure.faults.inject(answers(503), path="/secrets/.*/versions", times=None)

        report = pod.examine()

        assert report.failures == [("login", 69)]
        assert report.verdicts("read") == ["skipped"]


class TestClock:
    @pytest.mark.parametrize(("offset", "told"), [(2 * HOUR, "ahead of"), (-2 * HOUR, "behind")])
    def test_a_clock_that_is_off(self, pod, azure, offset, told):
        azure.clock.offset = offset

        clock = pod.examine().the("clock")

        assert clock.verdict == "warning"
        # A Date header has whole seconds.
        assert re.search(rf"(1:59:59|2:00:0[01]) {told} ours", clock.message), clock.message

    def test_a_clock_within_the_slack(self, pod, azure):
        azure.clock.offset = 60

        assert pod.examine().verdicts("clock") == ["ok"]


class TestPermissions:
    def test_no_permission_at_all(self, pod, ca):
        store(pod.vault, ca.raw())
        pod.vault.revoke(pod.app, "get", "list")

        report = pod.examine()

        assert report.verdicts("login") == ["ok"]
        assert report.verdicts("list") == ["warning"]
        assert report.failures == [("read", 77)]
        assert "Key Vault Secrets User" in report.the("read").fix

    def test_to_get_without_listing(self, pod, ca):
        store(pod.vault, ca.raw())
        pod.vault.revoke(pod.app, "list")

        report = pod.examine()

        assert not report.failures
        assert "'ca-key'" in report.the("list", "warning").message
        assert report.verdicts("history") == ["warning"]
        assert report.verdicts("newest") == ["ok"]

    def test_to_list_without_getting(self, pod, ca):
        store(pod.vault, ca.raw())
        pod.vault.revoke(pod.app, "get")

        report = pod.examine()

        assert report.verdicts("list") == ["ok"]
        assert report.failures == [("read", 77)]


class TestSecrets:
    def test_one_is_missing(self, pod, ca):
        store(pod.vault, ca.raw(), ("private_key", "certificate", "chain"))

        report = pod.examine()

        assert report.failures == [("read", 66)]
        assert "'root-cert'" in report.text

    def test_a_newest_set_whose_key_is_disabled(self, pod, ca):
        store(pod.vault, ca.raw())
        pod.vault.disable("ca-key")

        assert pod.examine().failures == [("newest", 66)]

    def test_a_newest_set_that_has_expired_in_its_store(self, pod, ca):
        now = int(pod.azure.clock.now())
        store(pod.vault, ca.raw(), created_on=now - 10 * HOUR, expires=now - HOUR)

        report = pod.examine()

        assert report.failures == [("newest", 65)]
        assert "az keyvault" in report.text or "later expiry date" in report.text

    def test_an_operator_in_the_middle_of_storing_a_set(self, pod, ca):
        now = int(pod.azure.clock.now())
        store(pod.vault, ca.raw(), created_on=now - 10 * HOUR)
        store_part(pod.vault, make_root().intermediate().raw(), "private_key", created_on=now)

        report = pod.examine()

        assert not report.failures
        assert "do not belong together" in report.the("newest", "warning").message


def test_without_a_bundle_from_there_key_vault_is_not_asked(pod, azure):
    config = configured(
        pod.home,
        {"files": {"directory": str(pod.home)}},
        azure={"vaultUrl": pod.vault.url, "credential": pod.credential},
    )

    assert not list(diagnosis.results(config, datetime.now(UTC), ()))
    assert not azure.exchanges


def test_the_verb_runs_where_nothing_of_vault_is(pod, ca):
    store(pod.vault, ca.raw())
    pod.config()

    done = certagent("doctor", "--config", pod.home / "certagent.yaml", "--format", "json")

    shown = json.loads(done.stdout)
    assert (done.code, shown["exitCode"]) == (0, 0), done.stdout
    names = {each["name"] for each in shown["checks"]}
    assert {"credential", "login", "list", "read", "directory", "probes"} <= names
