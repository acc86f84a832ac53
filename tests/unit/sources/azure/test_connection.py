"""The login and the requests: the SDK as it comes, against Entra ID and Key Vault on loopback."""

from __future__ import annotations

import logging
import os
import time

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from certagent.config.model import (
    AzureCli,
    ClientCertificate,
    ManagedIdentity,
    WorkloadIdentity,
)
from certagent.errors import AccessDenied, SourceUnavailable, Stopping
from certagent.sources.azure.failures import AzureRefused
from certagent.sources.azure.shelf import version_of
from tests.support.azure import FederatedCredential, install_az, unresolvable
from tests.support.azure.faults import answers, closes, drips, halves, hangs, resets
from tests.support.azure.operator import SECRET
from tests.support.azure.tokens import signing_key
from tests.support.material import Profile, sign

CLOUDS = ["public", "china", "usGovernment"]


def get(connection, name="ca-key"):
    return connection.call(lambda client: client.get_secret(name)).value


@pytest.fixture(autouse=True)
def a_secret(vault):
    vault.set("ca-key", "the value")


@pytest.fixture
def issuer_token(tmp_path):
    """Write a token of the cluster's, which kubelet would project."""
    path = tmp_path / "token"

    def write(**claims: object):
        path.write_text(FederatedCredential().issuer.mint(**claims))
        return path

    write()
    return path, write


@pytest.fixture
def workload(tenant, app, config, issuer_token):
    """The configuration of a pod whose service account the application trusts."""
    app.federated.append(FederatedCredential())
    login = WorkloadIdentity(
        tenant_id=tenant.id, client_id=app.client_id, token_file=str(issuer_token[0])
    )
    return msgspec.structs.replace(config, credential=login)


@pytest.fixture
def log_in(config, connect):
    """Make a connection with another credential."""
    return lambda login: connect(msgspec.structs.replace(config, credential=login))


@pytest.fixture(scope="module")
def certificate():
    """A client certificate, self-signed, with an RSA key as Entra ID wants it."""
    profile = Profile(subject="CN=certagent", key=signing_key(), ca=False)
    return sign(profile, signing_key().public_key(), None, key=signing_key())


class TestRequests:
    def test_the_first_one_is_challenged_and_then_one_token_serves_all(self, azure, connect):
        connection = connect()

        assert [get(connection), get(connection)] == ["the value"] * 2
        assert connection.requests == {"ok": 3}
        assert connection.logins == {"ok": 1}
        assert len(azure.token_requests) == 1

    def test_the_api_version_is_one_that_every_cloud_has(self, azure, tenant, app, connect, config):
        old = azure.vault("old", tenant, api_versions=("7.4",))
        old.grant(app, "get")
        old.set("ca-key", "old")

        assert get(connect(msgspec.structs.replace(config, vault_url=old.url))) == "old"

    def test_what_the_vault_refuses_is_told_in_its_words(self, connect, vault, app):
        vault.revoke(app, "get")
        connection = connect()

        with pytest.raises(AzureRefused) as refused:
            get(connection)

        assert (refused.value.status, refused.value.code) == (403, "ForbiddenByRbac")
        assert "Caller is not authorized to perform action" in refused.value.reason
        assert "getSecret/action" in refused.value.reason
        assert connection.requests == {"ok": 1, "denied": 1}

    def test_what_is_not_there_is_counted_as_missing(self, connect):
        connection = connect()

        with pytest.raises(AzureRefused, match="SecretNotFound"):
            get(connection, "nothing")

        assert connection.requests["missing"] == 1

    def test_when_the_agent_is_to_stop_nothing_is_asked(self, azure, connect):
        connection = connect(stopping=lambda: True)

        with pytest.raises(Stopping):
            get(connection)

        assert azure.exchanges == []

    def test_a_stop_in_the_middle_of_a_login_is_one(self, azure, connect):
        connection = connect(stopping=lambda: len(azure.token_requests) + len(azure.exchanges) > 3)

        with pytest.raises(Stopping):
            get(connection)

    def test_a_closed_connection_has_no_token_left(self, connect):
        connection = connect()
        get(connection)
        connection.close()

        assert get(connection) == "the value"


class TestTokens:
    def test_one_that_the_vault_refuses_is_replaced_once(self, azure, connect):
        connection = connect()
        get(connection)
        azure.revoke_tokens()

        assert get(connection) == "the value"
        assert connection.logins == {"ok": 2}
        assert connection.requests["denied"] == 1

    def test_where_that_does_not_help_the_refusal_is_told(self, azure, connect):
        connection = connect()
        get(connection)
        azure.faults.inject(answers(401), times=None)

        with pytest.raises(AzureRefused) as refused:
            get(connection)

        assert refused.value.status == 401
        assert connection.logins["ok"] <= 2

    def test_early_renewal_that_fails_leaves_the_present_one(self, azure, connect, caplog):
        connection = connect()
        get(connection)
        login = connection._login
        azure.faults.inject(answers(503), to="entra", times=None)

        token = login.get_token_info("https://vault.azure.net/.default")
        again = login.get_token_info("https://vault.azure.net/.default")

        assert token is again
        assert connection.logins == {"ok": 1, "unavailable": 1}
        assert "No new token; the present one is good for" in caplog.text

    def test_one_that_is_about_to_end_is_no_help(self, azure, connect):
        connection = connect()
        get(connection)
        connection._login._token = replace_token(connection, time.time() + 30)
        azure.faults.inject(answers(503), to="entra", times=None)

        with pytest.raises(SourceUnavailable):
            connection._login.get_token_info("https://vault.azure.net/.default")

    def test_it_is_concealed_before_it_is_used_and_so_is_what_it_came_of(self, azure, connect):
        concealed = []
        connection = connect(conceal=concealed.append)
        get(connection)

        assert concealed == [SECRET, azure.issued.tokens[0].value]


def replace_token(connection, expires_on):
    token = connection._login._token
    return type(token)(token.token, int(expires_on), token_type="Bearer")


class TestCredentials:
    """Each credential in each cloud, to a secret's value."""

    @pytest.fixture(params=CLOUDS)
    def tenant(self, azure, request):
        return azure.tenant(request.param)

    def test_client_secret(self, connect):
        assert get(connect()) == "the value"

    def test_workload_identity(self, azure, connect, workload):
        assert get(connect(workload)) == "the value"
        assert (
            len([each for each in azure.exchanges if each.to == "entra" and each.method == "POST"])
            == 1
        )

    @pytest.mark.parametrize(
        "form", ["pem", "pkcs12", "pem with a password", "pkcs12 with a password"]
    )
    def test_client_certificate(self, app, tenant, log_in, certificate, tmp_path, form):
        app.certificates.append(certificate)
        locked = "password" in form
        encryption = BestAvailableEncryption(b"opensesame") if locked else NoEncryption()
        if form.startswith("pem"):
            key = signing_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
            data = key + certificate.public_bytes(Encoding.PEM)
        else:
            data = pkcs12.serialize_key_and_certificates(
                b"", signing_key(), certificate, None, encryption
            )
        (tmp_path / "client").write_bytes(data)
        (tmp_path / "password").write_text("opensesame\n")
        login = ClientCertificate(
            tenant_id=tenant.id,
            client_id=app.client_id,
            certificate_file=str(tmp_path / "client"),
            password_file=str(tmp_path / "password") if locked else "",
        )

        assert get(log_in(login)) == "the value"

    @pytest.mark.parametrize("client_id", ["", "b3c6cc3c-0000-0000-0000-000000000001"])
    def test_managed_identity(self, azure, tenant, vault, log_in, client_id):
        vault.grant(azure.managed_identity(tenant, client_id or None), "get")
        login = ManagedIdentity(client_id=client_id)

        assert get(log_in(login)) == "the value"

    def test_managed_identity_of_app_service(self, azure, tenant, vault, log_in, monkeypatch):
        for name, value in azure.app_service.items():
            monkeypatch.setenv(name, value)
        vault.grant(azure.managed_identity(tenant), "get")
        login = ManagedIdentity()

        assert get(log_in(login)) == "the value"

    def test_azure_cli(self, azure, tenant, app, log_in, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", install_az(tmp_path, azure, tenant, app))
        connection = log_in(AzureCli())

        assert get(connection) == "the value"
        assert connection.logins == {"ok": 1}


class TestLogins:
    def test_managed_identity_is_not_turned_into_workload_identity(
        self, azure, tenant, vault, log_in, workload, monkeypatch
    ):
        monkeypatch.setenv("AZURE_TENANT_ID", tenant.id)
        monkeypatch.setenv("AZURE_CLIENT_ID", workload.login.client_id)
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", workload.login.token_file)
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com")
        vault.grant(azure.managed_identity(tenant), "get")

        get(log_in(ManagedIdentity()))

        assert [each.to for each in azure.token_requests] == ["imds"]

    def test_a_service_account_token_is_read_afresh_at_each_login(
        self, connect, workload, issuer_token
    ):
        path, write = issuer_token
        path.write_text("garbage")
        connection = connect(workload)
        with pytest.raises(AccessDenied):
            get(connection)
        write()

        assert get(connection) == "the value"

    def test_a_client_secret_is_read_afresh_at_each_login(self, app, connect, secret_file):
        app.secrets.clear()
        connection = connect()
        with pytest.raises(AccessDenied, match="AADSTS7000215"):
            get(connection)
        app.secrets.add("another-secret-of-this-application")
        secret_file.write_text("another-secret-of-this-application")

        assert get(connection) == "the value"
        assert connection.logins == {"denied": 1, "ok": 1}

    def test_an_outage_of_entra_id_is_over_when_it_is_over(self, azure, connect):
        azure.faults.inject(answers(503), to="entra", path="token$")
        connection = connect()
        with pytest.raises(SourceUnavailable, match="503"):
            get(connection)

        assert get(connection) == "the value"
        assert connection.logins == {"unavailable": 1, "ok": 1}

    @pytest.mark.parametrize("asked", ["7", "0"])
    def test_a_wait_that_the_login_asks_for_is_passed_on(self, azure, connect, asked):
        azure.faults.inject(
            answers(429, {"error": "throttled"}, Retry_After=asked), to="entra", path="token$"
        )
        connection = connect()

        with pytest.raises(SourceUnavailable) as refused:
            get(connection)

        assert refused.value.retry_after == float(asked)
        assert connection.logins == {"limited": 1}

    def test_a_transient_refusal_is_no_denial(self, azure, connect):
        body = {"error": "temporarily_unavailable", "error_description": "AADSTS90033: busy"}
        azure.faults.inject(answers(400, body), to="entra", path="token$")

        with pytest.raises(SourceUnavailable, match="AADSTS90033: busy"):
            get(connect())

    @pytest.mark.parametrize("body", [b"<html>", {"id_token": "0.of-whatever-shape"}])
    def test_an_answer_that_is_no_token_is_told_and_not_shown(self, azure, connect, workload, body):
        azure.faults.inject(answers(200, body), to="entra", path="token$")
        connection = connect(workload)

        with pytest.raises(SourceUnavailable, match=r"microsoftonline\.com answered") as strange:
            get(connection)

        assert "html" not in str(strange.value)
        assert "whatever" not in str(strange.value)
        assert connection.logins == {"unavailable": 1}

    def test_a_vault_of_another_tenant_is_told_as_such(self, azure, connect, config):
        other = azure.tenant()
        there = azure.vault("elsewhere", other)
        connection = connect(msgspec.structs.replace(config, vault_url=there.url))

        with pytest.raises(AccessDenied, match=f"The vault is in tenant {other.id}"):
            get(connection)

    def test_no_azure_cli_is_told_as_such(self, log_in, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))

        with pytest.raises(
            AccessDenied, match="There is no token for the Azure CLI: Azure CLI not"
        ):
            get(log_in(AzureCli()))

    def test_nobody_logged_in_with_it_too(self, azure, tenant, log_in, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", install_az(tmp_path, azure, tenant, None))

        with pytest.raises(AccessDenied, match="az login"):
            get(log_in(AzureCli()))

    def test_a_machine_without_the_identity_is_told_as_such(self, log_in):
        login = ManagedIdentity(client_id="nobody")

        with pytest.raises(AccessDenied, match="Identity not found") as refused:
            get(log_in(login))

        assert "Has the machine" in refused.value.hint

    def test_a_metadata_service_that_cannot_be_reached_is_told_as_such(self, azure, log_in):
        azure.faults.inject(resets, to="imds", times=None)

        with pytest.raises(SourceUnavailable, match=r"169\.254\.169\.254") as refused:
            get(log_in(ManagedIdentity()))

        assert "NO_PROXY" in refused.value.hint

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (None, "cannot be read"),
            (b"", "is empty"),
            (b"a b", "not one line"),
            (b"x" * 70_000, "large"),
        ],
    )
    def test_a_file_that_is_not_usable_yet_is_denied_and_tried_again(
        self, connect, secret_file, content, said
    ):
        if content is None:
            secret_file.unlink()
        else:
            secret_file.write_bytes(content)
        connection = connect()

        with pytest.raises(AccessDenied, match=said):
            get(connection)

        assert connection.logins == {"denied": 1}

    def test_a_certificate_that_cannot_be_used_is_denied_without_its_content(
        self, app, tenant, log_in, tmp_path
    ):
        (tmp_path / "client").write_text("-----BEGIN nonsense")
        login = ClientCertificate(
            tenant_id=tenant.id, client_id=app.client_id, certificate_file=str(tmp_path / "client")
        )

        with pytest.raises(AccessDenied, match="cannot be used") as refused:
            get(log_in(login))

        assert "nonsense" not in str(refused.value)


class TestWordsOfEntraID:
    """AADSTS text is shown, with what to change; no secret is."""

    def refusal(self, connect, config) -> str:
        with pytest.raises(AccessDenied) as refused:
            get(connect(config))
        assert len(str(refused.value).splitlines()) <= 3
        assert SECRET not in str(refused.value)
        assert "Trace ID" not in str(refused.value)
        return str(refused.value)

    def test_a_wrong_tenant(self, connect, config):
        login = msgspec.structs.replace(config.login, tenant_id="00000000-none")

        told = self.refusal(connect, msgspec.structs.replace(config, credential=login))

        assert "tenant" in told.lower()

    def test_a_wrong_client_id(self, connect, config):
        login = msgspec.structs.replace(config.login, client_id="nobody")

        told = self.refusal(connect, msgspec.structs.replace(config, credential=login))

        assert "AADSTS700016: Application with identifier 'nobody' was not found" in told
        assert "Correct azure.credential.clientId (AZURE_CLIENT_ID)" in told

    def test_a_secret_that_has_expired(self, app, connect, config):
        app.expired_secrets.add(SECRET)

        assert "make a new one" in self.refusal(connect, config)

    @pytest.mark.parametrize(
        ("claims", "code"),
        [
            ({"subject": "system:serviceaccount:other:sa"}, "AADSTS700213"),
            ({"audience": "api://other"}, "AADSTS700212"),
        ],
    )
    def test_a_federation_for_somebody_else(self, connect, workload, issuer_token, claims, code):
        issuer_token[1](**claims)

        told = self.refusal(connect, workload)

        assert code in told
        assert "system:serviceaccount:<namespace>:<name>" in told

    def test_an_application_without_federation(self, app, connect, workload):
        app.federated.clear()

        assert "AADSTS70025" in self.refusal(connect, workload)

    def test_a_clock_that_is_off(self, azure, connect, workload):
        azure.clock.offset = 7200

        told = self.refusal(connect, workload)

        assert "AADSTS700024" in told
        assert "The clock of this machine is off, or the token's file is stale" in told

    def test_a_certificate_that_is_not_registered(
        self, app, tenant, config, connect, certificate, tmp_path
    ):
        key = signing_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / "client").write_bytes(key + certificate.public_bytes(Encoding.PEM))
        login = ClientCertificate(
            tenant_id=tenant.id, client_id=app.client_id, certificate_file=str(tmp_path / "client")
        )

        told = self.refusal(connect, msgspec.structs.replace(config, credential=login))

        assert "AADSTS700027" in told
        assert "Register the certificate" in told

    def test_a_code_that_is_not_known_is_to_be_looked_up(self, azure, connect, config):
        body = {"error": "invalid_client", "error_description": "AADSTS999: what?"}
        azure.faults.inject(answers(401, body), to="entra", path="token$")

        assert "sign-in logs" in self.refusal(connect, config)


class TestFailures:
    @pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
    def test_a_vault_that_cannot_answer_is_unavailable(self, azure, connect, status):
        azure.faults.inject(answers(status))
        connection = connect()

        with pytest.raises(SourceUnavailable, match=str(status)):
            get(connection)

        assert connection.requests == {"unavailable": 1}

    @pytest.mark.parametrize(("asked", "told"), [("8", 8.0), ("3600", 3600.0), (None, None)])
    def test_a_limit_passes_on_the_wait_that_is_asked_for_and_does_not_wait(
        self, azure, connect, asked, told
    ):
        headers = {"Retry_After": asked} if asked else {}
        azure.faults.inject(answers(429, {"error": {"code": "Throttled"}}, **headers))
        connection = connect()
        started = time.monotonic()

        with pytest.raises(SourceUnavailable, match="429 Throttled") as refused:
            get(connection)

        assert refused.value.retry_after == told
        assert time.monotonic() - started < 5
        assert connection.requests == {"limited": 1}

    @pytest.mark.parametrize("to", ["vault", "entra"])
    @pytest.mark.parametrize("how", [hangs, drips(0.3)])
    def test_what_hangs_or_drips_ends_with_the_requests_time(self, azure, connect, config, how, to):
        azure.faults.inject(how, to=to)
        connection = connect(msgspec.structs.replace(config, request_timeout="500ms"))

        with pytest.raises(SourceUnavailable, match="had not answered in full after"):
            get(connection)

    @pytest.mark.parametrize("how", [resets, closes, halves])
    def test_a_connection_that_breaks_is_unavailable(self, azure, connect, how):
        azure.faults.inject(how, times=None)

        with pytest.raises(SourceUnavailable, match="https://mesh"):
            get(connect())

    @pytest.mark.parametrize("certificate", ["untrusted", "wrong name", "expired"])
    @pytest.mark.parametrize("host", ["mesh.vault.azure.net", "login.microsoftonline.com"])
    def test_a_wrong_certificate_is_not_trusted(self, azure, connect, certificate, host):
        azure.present(host, certificate)

        with pytest.raises(
            SourceUnavailable, match=f"certificate of https://{host} is not trusted"
        ):
            get(connect())

    def test_a_name_with_a_typo_is_told_behind_a_proxy(self, connect, config):
        connection = connect(
            msgspec.structs.replace(config, vault_url="https://mseh.vault.azure.net")
        )

        with pytest.raises(SourceUnavailable, match="https://mseh") as refused:
            get(connection)

        assert "Is there a vault of that name" in refused.value.hint

    def test_a_name_with_a_typo_is_told_without_one(self, connect, config, monkeypatch):
        connection = connect(
            msgspec.structs.replace(config, vault_url="https://mseh.vault.azure.net")
        )

        with (
            unresolvable(monkeypatch, "mseh.vault.azure.net"),
            pytest.raises(SourceUnavailable, match="cannot be resolved") as refused,
        ):
            get(connection)

        assert "Is there a vault of that name" in refused.value.hint

    @pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"value": 3}'])
    def test_an_answer_of_something_else_is_told_as_such(self, azure, connect, body):
        connection = connect()
        get(connection)
        azure.faults.inject(answers(200, body))

        def read(client):
            return version_of(client.get_secret("ca-key").properties)

        with pytest.raises(SourceUnavailable, match="Key Vault"):
            connection.call(read)

    def test_a_challenge_for_another_domain_gets_no_token(self, azure, connect):
        challenge = 'Bearer authorization="https://login.microsoftonline.com/x", resource="https://example.com"'
        azure.faults.inject(answers(401, WWW_Authenticate=challenge), times=None)

        with pytest.raises((SourceUnavailable, AzureRefused)):
            get(connect())

        assert azure.token_requests == []

    def test_a_redirect_is_not_followed(self, azure, connect):
        azure.faults.inject(answers(302, Location="https://elsewhere.vault.azure.net/x"))

        with pytest.raises(SourceUnavailable, match="redirects: Azure does not"):
            get(connect())

    def test_a_body_without_end_is_cut(self, azure, connect, monkeypatch):
        monkeypatch.setattr("certagent.sources.azure.timed.MAX_BODY_BYTES", 1000)
        azure.faults.inject(answers(200, b"x" * 2000))

        with pytest.raises(SourceUnavailable, match="sent more than 1000 bytes"):
            get(connect())


class TestLogs:
    def test_nothing_of_the_sdk_is_logged_not_even_at_debug(self, azure, connect, app, caplog):
        caplog.set_level(logging.DEBUG)
        connection = connect()
        get(connection)
        app.secrets.clear()
        azure.revoke_tokens()
        with pytest.raises(AccessDenied):
            get(connection)

        names = {record.name.partition(".")[0] for record in caplog.records}
        assert not names & {"azure", "msal"}
        assert "GET https://mesh.vault.azure.net/secrets/ca-key/: 200" in caplog.text
        for secret in (SECRET, "the value", azure.issued.tokens[0].value):
            assert secret not in caplog.text


def test_the_environment_is_not_asked_for_secrets(monkeypatch, connect, app, secret_file):
    monkeypatch.setitem(os.environ, "AZURE_CLIENT_SECRET", SECRET)
    secret_file.unlink()

    with pytest.raises(AccessDenied):
        get(connect())
