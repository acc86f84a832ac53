"""The tests' own Azure, against the SDK's credentials: whom it believes, and how it refuses."""

from __future__ import annotations

import base64
import re
import time
from datetime import UTC, datetime, timedelta

import jwt
import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    AzureCliCredential,
    CertificateCredential,
    ClientAssertionCredential,
    ClientSecretCredential,
    CredentialUnavailableError,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.azure import FederatedCredential, Issuer, install_az
from tests.support.azure.sdk import SDK
from tests.support.azure.tokens import signing_key
from tests.support.material import cert_pem, make_root, private_key_pem

PUBLIC = "https://vault.azure.net/.default"


@pytest.fixture
def sdk():
    with SDK() as opened:
        yield opened


@pytest.fixture
def tenant(azure):
    return azure.tenant()


@pytest.fixture
def read(sdk, azure, tenant):
    """Read a secret that a principal may read, with a credential."""
    vault = azure.vault("mesh", tenant)
    vault.set("ca-key", "a key")

    def read(principal, credential):
        vault.grant(principal, "get")
        return sdk.client(vault, credential).get_secret("ca-key").value

    return read


def refusal(credential):
    """Ask for a token; return Entra ID's number of why there is none, and what it says."""
    with pytest.raises(ClientAuthenticationError) as refused:
        credential.get_token(PUBLIC)
    number, text = re.search(r"AADSTS(\d+): (.*)", refused.value.message, re.DOTALL).groups()
    return int(number), text


class TestClientSecret:
    @pytest.fixture
    def app(self, tenant):
        return tenant.application(secret="a-client-secret")

    def test_it_logs_in(self, read, sdk, tenant, app):
        assert read(app, sdk.secret(tenant, app)) == "a key"

    def test_an_unknown_application(self, azure, sdk, tenant):
        number, text = refusal(sdk.credential(ClientSecretCredential, tenant.id, "nobody", "x"))

        assert number == 700016
        assert f"'nobody' was not found in the directory '{tenant.id}'" in text
        assert "Trace ID: " in text
        assert [exchange.status for exchange in azure.token_requests] == [400]

    def test_a_wrong_secret(self, azure, sdk, tenant, app):
        credential = sdk.credential(ClientSecretCredential, tenant.id, app.client_id, "another")

        number, text = refusal(credential)

        assert number == 7000215
        assert "client secret value, not the client secret ID" in text
        assert "another" not in text
        assert [exchange.status for exchange in azure.token_requests] == [401]

    def test_an_expired_secret(self, sdk, tenant, app):
        app.expired_secrets |= app.secrets

        assert refusal(sdk.secret(tenant, app))[0] == 7000222

    def test_a_scope_that_is_none(self, sdk, tenant, app):
        with pytest.raises(ClientAuthenticationError, match="AADSTS1002012"):
            sdk.secret(tenant, app).get_token("https://vault.azure.net/read")


class TestClientCertificate:
    @pytest.fixture
    def certificate(self):
        """A certificate with a key as the SDK wants one: RSA."""
        return make_root(key=signing_key())

    @pytest.fixture
    def app(self, tenant, certificate):
        return tenant.application(certificate=certificate.certificate)

    @pytest.fixture
    def credential(self, sdk, tenant, app):
        """Make the credential of a certificate, the application's or another."""

        def credential(certificate):
            pem = private_key_pem(certificate.key) + cert_pem(certificate.certificate)
            kind = CertificateCredential
            return sdk.credential(kind, tenant.id, app.client_id, certificate_data=pem)

        return credential

    def test_it_logs_in(self, read, app, certificate, credential):
        assert read(app, credential(certificate)) == "a key"

    def test_a_certificate_that_is_not_registered(self, credential):
        number, text = refusal(credential(make_root(key=signing_key())))

        assert number == 700027
        assert "The key was not found" in text

    def test_a_certificate_that_has_expired(self, app, credential):
        old = make_root(key=signing_key(), not_after=datetime.now(UTC) - timedelta(days=1))
        app.certificates.append(old.certificate)

        number, text = refusal(credential(old))

        assert number == 700027
        assert "The key used is expired" in text

    def test_a_key_that_is_not_the_certificates(self, sdk, tenant, app, certificate):
        other = rsa.generate_private_key(65537, 2048)
        pem = private_key_pem(other) + cert_pem(certificate.certificate)

        number, text = refusal(
            sdk.credential(CertificateCredential, tenant.id, app.client_id, certificate_data=pem)
        )

        assert number == 700027
        assert "signature value did not match" in text

    @pytest.fixture
    def asserting(self, sdk, tenant, app, certificate):
        """Make the credential of an assertion for an audience, in the older form (RS256, x5t)."""

        def asserting(audience):
            now = int(time.time())
            claims = {"iss": app.client_id, "sub": app.client_id, "iat": now, "exp": now + 600}
            digest = certificate.certificate.fingerprint(hashes.SHA1())
            header = {"x5t": base64.urlsafe_b64encode(digest).decode().rstrip("=")}
            text = jwt.encode({**claims, "aud": audience}, certificate.key, "RS256", header)
            kind = ClientAssertionCredential
            return sdk.credential(kind, tenant.id, app.client_id, lambda: text)

        return asserting

    def test_the_older_form_of_assertion_logs_in(self, read, tenant, app, asserting):
        assert read(app, asserting(f"{tenant.authority}/oauth2/v2.0/token")) == "a key"

    def test_an_assertion_for_another_endpoint(self, asserting):
        assert refusal(asserting("https://sts.windows.net/"))[0] == 700023

    def test_a_clock_that_is_off(self, azure, certificate, credential):
        azure.clock.offset = 7200

        assert refusal(credential(certificate))[0] == 700024


class TestWorkloadIdentity:
    @pytest.fixture
    def app(self, tenant):
        return tenant.application(federated=[FederatedCredential()])

    @pytest.fixture
    def token(self, tmp_path):
        """The file that a service-account token is projected into."""
        path = tmp_path / "token"
        path.write_text(Issuer().mint())
        return path

    @pytest.fixture
    def credential(self, sdk, tenant, app, token):
        """Make the credential, with the application's ids unless told."""

        def credential(**given):
            ids = {"tenant_id": tenant.id, "client_id": app.client_id, **given}
            return sdk.credential(WorkloadIdentityCredential, token_file_path=str(token), **ids)

        return credential

    def test_a_projected_token_is_exchanged(self, azure, read, app, credential):
        assert read(app, credential()) == "a key"
        assert [exchange.status for exchange in azure.token_requests] == [200]

    def test_the_webhooks_variables_suffice(self, read, sdk, tenant, app, token, monkeypatch):
        monkeypatch.setenv("AZURE_TENANT_ID", tenant.id)
        monkeypatch.setenv("AZURE_CLIENT_ID", app.client_id)
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(token))
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/")

        assert read(app, sdk.credential(WorkloadIdentityCredential)) == "a key"

    @pytest.mark.parametrize(
        ("claims", "number", "named"),
        [
            ({"subject": "system:serviceaccount:a:b"}, 700213, "system:serviceaccount:a:b"),
            ({"audience": "vault"}, 700212, "audience 'vault'"),
            ({"expires_in": -60}, 700024, "not within its valid time range"),
        ],
    )
    def test_what_the_token_claims_must_match(self, credential, token, claims, number, named):
        token.write_text(Issuer().mint(**claims))

        found, text = refusal(credential())

        assert found == number
        assert named in text

    def test_another_issuer(self, credential, token):
        token.write_text(Issuer("https://elsewhere/").mint())

        number, text = refusal(credential())

        assert number == 700211
        assert "issuer 'https://elsewhere/'" in text

    def test_a_forged_token(self, credential, token):
        token.write_text(Issuer(key=rsa.generate_private_key(65537, 2048)).mint())

        assert refusal(credential())[0] == 50013

    def test_something_that_is_no_token(self, credential, token):
        token.write_text("garbage")

        assert refusal(credential())[0] == 50027

    def test_an_application_that_trusts_nobody(self, tenant, credential):
        app = tenant.application(secret="a-client-secret")

        assert refusal(credential(client_id=app.client_id))[0] == 70025

    def test_a_tenant_that_is_not_there(self, azure, credential):
        number, text = refusal(credential(tenant_id="nowhere"))

        assert number == 90002
        assert "Tenant 'nowhere' not found" in text
        assert [exchange.status for exchange in azure.token_requests] == [400]

    def test_a_tenant_of_another_cloud(self, credential):
        number, text = refusal(credential(authority="login.microsoftonline.us"))

        assert number == 90002
        assert "signing into the correct cloud" in text

    def test_a_clock_that_is_off(self, azure, credential):
        azure.clock.offset = -7200

        number, text = refusal(credential())

        assert number == 700024
        assert re.search(r"Current time: \d{4}-\d\d-\d\dT[\d:.]+Z, assertion valid from", text)


class TestManagedIdentity:
    def test_imds_gives_out_the_systems_token(self, azure, read, sdk, tenant):
        identity = azure.managed_identity(tenant)

        assert read(identity, sdk.credential(ManagedIdentityCredential)) == "a key"
        assert [exchange.to for exchange in azure.token_requests] == ["imds"]

    def test_imds_gives_out_the_token_of_the_one_that_is_named(self, azure, read, sdk, tenant):
        azure.managed_identity(tenant, "one")
        other = azure.managed_identity(tenant, "other")

        assert read(other, sdk.credential(ManagedIdentityCredential, client_id="other")) == "a key"
        assert azure.issued.tokens[-1].principal is other

    def test_app_service_gives_out_tokens(self, azure, read, sdk, tenant, monkeypatch):
        identity = azure.managed_identity(tenant, "one")
        for name, value in azure.app_service.items():
            monkeypatch.setenv(name, value)

        credential = sdk.credential(ManagedIdentityCredential, client_id="one")

        assert read(identity, credential) == "a key"
        assert [exchange.to for exchange in azure.token_requests] == ["appService"]

    @pytest.mark.parametrize(
        ("assigned", "asked", "said"),
        [
            ((), None, "Identity not found"),
            (("one",), "other", "Identity not found"),
            (("one", "other"), None, "Multiple user assigned identities exist"),
        ],
    )
    def test_imds_says_what_it_cannot_give(self, azure, sdk, tenant, assigned, asked, said):
        for client_id in assigned:
            azure.managed_identity(tenant, client_id)

        credential = sdk.credential(ManagedIdentityCredential, client_id=asked)

        with pytest.raises(CredentialUnavailableError, match=said):
            credential.get_token(PUBLIC)

    @pytest.mark.parametrize(
        ("path", "headers", "status", "said"),
        [
            ("oauth2/token?api-version=2018-02-01", {}, 400, "Required metadata header"),
            ("oauth2/token", {"Metadata": "true"}, 400, "Bad request"),
            ("oauth2/info?api-version=2018-02-01", {"Metadata": "true"}, 404, "Bad request"),
        ],
    )
    @pytest.mark.usefixtures("azure")
    def test_imds_is_asked_in_its_own_way(self, path, headers, status, said):
        url = f"http://169.254.169.254/metadata/identity/{path}"

        answer = requests.get(url, headers=headers, timeout=5)

        assert answer.status_code == status
        assert said in answer.json()["error_description"]

    def test_imds_knows_the_vaults_of_its_own_cloud(self, azure, sdk, tenant):
        azure.managed_identity(tenant)

        with pytest.raises(CredentialUnavailableError, match="AADSTS500011"):
            sdk.credential(ManagedIdentityCredential).get_token("https://vault.azure.cn/.default")

    @pytest.mark.parametrize(
        ("header", "said"), [({}, "400, No User Assigned"), ({"IDENTITY_HEADER": "x"}, "403, Forb")]
    )
    def test_app_service_says_what_it_cannot_give(self, azure, sdk, monkeypatch, header, said):
        for name, value in {**azure.app_service, **header}.items():
            monkeypatch.setenv(name, value)

        with pytest.raises(CredentialUnavailableError, match=said):
            sdk.credential(ManagedIdentityCredential, client_id="x").get_token(PUBLIC)


class TestAzureCli:
    def test_who_is_logged_in_gets_tokens(self, azure, read, tenant, tmp_path, monkeypatch):
        person = tenant.application()
        monkeypatch.setenv("PATH", install_az(tmp_path, azure, tenant, person))

        assert read(person, AzureCliCredential()) == "a key"

    def test_nobody_is_asked_to_log_in(self, azure, tenant, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", install_az(tmp_path, azure, tenant, None))

        with pytest.raises(CredentialUnavailableError, match="az login"):
            AzureCliCredential().get_token(PUBLIC)
