"""The tests' own Azure, against the SDK as it comes: what it accepts, refuses, and says."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime, timedelta

import pytest
import requests
from azure.core.credentials import AccessToken
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceRequestError,
)
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12
from cryptography.x509 import load_pem_x509_certificates

from tests.support.azure import unresolvable
from tests.support.azure.faults import answers
from tests.support.azure.sdk import SDK
from tests.support.material import NOW, make_root

SECRET = "a-client-secret"


@pytest.fixture
def sdk():
    with SDK() as opened:
        yield opened


@pytest.fixture
def tenant(azure):
    return azure.tenant()


@pytest.fixture
def app(tenant):
    return tenant.application(secret=SECRET)


@pytest.fixture
def vault(azure, tenant, app):
    """A vault that the application may do everything in."""
    vault = azure.vault("mesh", tenant)
    vault.grant(app, "get", "list", "set", "delete")
    vault.set("ca-key", "a key", content_type="text/plain", tags={"revision": "1"})
    return vault


@pytest.fixture
def credential(sdk, tenant, app):
    return sdk.secret(tenant, app)


@pytest.fixture
def client(sdk, vault, credential):
    return sdk.client(vault, credential)


class Bearer:
    """A credential that always has this token."""

    def __init__(self, token):
        self._token = token

    def get_token(self, *_, **__):
        return AccessToken(self._token, int(time.time()) + 3600)


def inner_code(refused):
    """The service's own name of why it refuses."""
    return refused.value.error.innererror["code"]


class TestTheVault:
    def test_the_first_request_is_challenged_and_repeated_with_a_token(self, azure, client, vault):
        assert client.get_secret("ca-key").value == "a key"

        asked = ("GET", "/secrets/ca-key")
        assert azure.requests(vault) == [(*asked, 401), (*asked, 200)]
        assert [exchange.host for exchange in azure.token_requests] == ["login.microsoftonline.com"]

    def test_a_token_is_used_again(self, azure, client):
        client.get_secret("ca-key")
        client.get_secret("ca-key")

        assert len(azure.token_requests) == 1

    def test_a_secret_tells_its_attributes_in_whole_seconds(self, client, vault):
        times = {"not_before": NOW, "expires": NOW + timedelta(days=1)}
        vault.set("root-cert", "roots", created_on=NOW, **times)

        properties = client.get_secret("root-cert").properties

        assert (properties.created_on, properties.updated_on) == (NOW, NOW)
        assert (properties.not_before, properties.expires_on) == tuple(times.values())
        assert (properties.enabled, properties.recovery_level) == (True, "Recoverable+Purgeable")

    def test_content_type_and_tags_come_along(self, client):
        properties = client.get_secret("ca-key").properties

        assert (properties.content_type, properties.tags) == ("text/plain", {"revision": "1"})

    def test_the_newest_version_is_read_unless_another_is_asked_for(self, client, vault):
        first = vault.version("ca-key").id
        second = vault.set("ca-key", "another key")

        assert client.get_secret("ca-key").properties.version == second
        assert client.get_secret("ca-key", first).value == "a key"

    def test_an_expired_or_a_future_version_is_given_out(self, client, vault):
        vault.set("ca-key", "old", expires=NOW - timedelta(days=9999))
        assert client.get_secret("ca-key").value == "old"

        vault.set("ca-key", "new", not_before=NOW + timedelta(days=9999))
        assert client.get_secret("ca-key").value == "new"

    def test_versions_come_in_pages_that_are_not_ordered_by_date(
        self, sdk, azure, tenant, app, credential
    ):
        vault = azure.vault("pages", tenant, page_size=5)
        vault.grant(app, "list")
        made = [vault.set("ca-key", "", created_on=NOW + timedelta(hours=n)) for n in range(12)]

        versions = list(sdk.client(vault, credential).list_properties_of_secret_versions("ca-key"))

        assert {version.version for version in versions} == set(made)
        dates = [version.created_on for version in versions]
        assert dates != sorted(dates)
        assert dates != sorted(dates, reverse=True)
        asked = ("GET", "/secrets/ca-key/versions")
        assert azure.requests(vault) == [(*asked, 401), *[(*asked, 200)] * 3]

    def test_a_client_may_ask_for_smaller_pages(self, client, vault):
        for _ in range(3):
            vault.set("ca-key", "")

        pages = client.list_properties_of_secret_versions("ca-key", max_page_size=2).by_page()

        assert [len(list(page)) for page in pages] == [2, 2]

    def test_a_secret_that_is_not_there_has_no_versions(self, client):
        assert list(client.list_properties_of_secret_versions("nothing")) == []

    def test_the_secrets_are_listed_without_versions(self, client, vault):
        vault.set("root-cert", "roots")

        listed = client.list_properties_of_secrets()

        assert {(one.name, one.version) for one in listed} == {
            ("ca-key", None),
            ("root-cert", None),
        }

    def test_a_secret_is_written_with_its_attributes(self, client, vault):
        given = {"content_type": "text/plain", "tags": {"revision": "2"}, "enabled": True}
        written = client.set_secret("ca-cert", "a cert", not_before=NOW, expires_on=NOW, **given)

        version = vault.version("ca-cert")
        assert (version.id, version.value) == (written.properties.version, "a cert")
        assert (version.content_type, version.tags) == ("text/plain", {"revision": "2"})
        assert (version.not_before, version.expires) == (NOW.timestamp(), NOW.timestamp())

    def test_a_version_is_changed_where_the_change_says_so(self, client, vault):
        version = vault.version("ca-key").id
        client.update_secret_properties("ca-key", version, tags={"revision": "3"})
        assert vault.version("ca-key").tags == {"revision": "3"}

        client.update_secret_properties("ca-key", version, enabled=False)
        assert not vault.version("ca-key").enabled
        assert vault.version("ca-key").tags == {"revision": "3"}

    def test_a_deleted_secret_is_gone_until_it_is_recovered(self, client, vault):
        client.begin_delete_secret("ca-key").wait()
        with pytest.raises(ResourceNotFoundError):
            client.get_secret("ca-key")

        vault.recover("ca-key")

        assert client.get_secret("ca-key").value == "a key"

    def test_the_clock_ages_versions_that_are_written_later(self, azure, client):
        azure.clock.offset = -86400

        written = client.set_secret("ca-cert", "a cert").properties.created_on

        assert timedelta(hours=23) < datetime.now(UTC) - written < timedelta(hours=25)

    @pytest.mark.parametrize("form", ["pkcs12", "pem"])
    def test_a_certificate_is_read_as_its_secret(self, client, vault, form):
        ca = make_root().intermediate("cluster1")
        vault.certificate("ingress", ca.key, [ca.certificate, ca.parent.certificate], form=form)

        secret = client.get_secret("ingress")

        assert secret.properties.key_id == f"{vault.url}/keys/ingress/{secret.properties.version}"
        assert secret.properties.expires_on == ca.certificate.not_valid_after_utc
        if form == "pkcs12":
            assert secret.properties.content_type == "application/x-pkcs12"
            found = pkcs12.load_pkcs12(base64.b64decode(secret.value), None)
            chain = [found.cert.certificate, *(one.certificate for one in found.additional_certs)]
            key = found.key
        else:
            assert secret.properties.content_type == "application/x-pem-file"
            chain = load_pem_x509_certificates(secret.value.encode())
            key = load_pem_private_key(secret.value.encode(), None)
        assert key.private_numbers() == ca.key.private_numbers()
        assert chain == [ca.certificate, ca.parent.certificate]

    def test_a_key_that_is_not_exportable_stays_behind(self, client, vault):
        ca = make_root().intermediate("cluster1")
        how = {"exportable": False}
        vault.certificate("pem", ca.key, [ca.certificate], form="pem", **how)
        vault.certificate("pfx", ca.key, [ca.certificate], form="pkcs12", **how)

        assert "PRIVATE KEY" not in client.get_secret("pem").value
        found = pkcs12.load_pkcs12(base64.b64decode(client.get_secret("pfx").value), None)
        assert (found.key, found.cert) == (None, None)
        assert [one.certificate for one in found.additional_certs] == [ca.certificate]


class TestWhatTheVaultRefuses:
    def test_a_secret_that_is_not_there(self, client):
        with pytest.raises(
            ResourceNotFoundError, match="was not found in this key vault"
        ) as absent:
            client.get_secret("ca-kye")

        assert absent.value.error.code == "SecretNotFound"

    def test_a_version_that_is_not_there(self, client):
        with pytest.raises(ResourceNotFoundError, match="ca-key/0123"):
            client.get_secret("ca-key", "0123")

    def test_a_disabled_version(self, client, vault):
        vault.disable("ca-key")
        with pytest.raises(HttpResponseError, match="disabled secret") as refused:
            client.get_secret("ca-key")

        assert refused.value.status_code == 403
        assert inner_code(refused) == "SecretDisabled"

        vault.enable("ca-key")
        assert client.get_secret("ca-key").value == "a key"

    def test_writing_what_lies_in_the_bin(self, client, vault):
        vault.delete("ca-key")
        with pytest.raises(ResourceExistsError) as refused:
            client.set_secret("ca-key", "a key")

        assert inner_code(refused) == "ObjectIsDeletedButRecoverable"
        with pytest.raises(ResourceNotFoundError):
            client.get_deleted_secret("root-cert")

        vault.purge("ca-key")
        assert client.set_secret("ca-key", "new").value == "new"

    @pytest.mark.parametrize(
        ("permission", "use"),
        [
            ("get", lambda client: client.get_secret("ca-key")),
            ("list", lambda client: list(client.list_properties_of_secret_versions("ca-key"))),
            ("set", lambda client: client.set_secret("ca-key", "new")),
            ("delete", lambda client: client.begin_delete_secret("ca-key")),
        ],
    )
    def test_whoever_lacks_the_permission(self, client, vault, app, permission, use):
        vault.revoke(app, permission)

        with pytest.raises(HttpResponseError, match=app.client_id) as refused:
            use(client)

        assert refused.value.status_code == 403
        assert inner_code(refused) == "ForbiddenByRbac"

    def test_whoever_has_no_access_policy(self, client, vault, app):
        vault.authorization = "policies"
        vault.revoke(app, "get")

        with pytest.raises(HttpResponseError, match="does not have secrets get") as refused:
            client.get_secret("ca-key")

        assert inner_code(refused) == "AccessDenied"

    def test_an_address_that_its_firewall_does_not_know(self, client, vault):
        vault.firewalled = True

        with pytest.raises(HttpResponseError, match="Client address is not authorized") as refused:
            client.get_secret("ca-key")

        assert inner_code(refused) == "ForbiddenByFirewall"

    @pytest.mark.parametrize(
        ("name", "value", "tags"),
        [
            ("ca_key", "a key", {}),
            ("ca-key", "k" * 25601, {}),
            ("ca-key", "a key", {str(number): "" for number in range(16)}),
            ("ca-key", "a key", {"revision": "1" * 257}),
        ],
    )
    def test_names_values_and_tags_beyond_its_limits(self, client, name, value, tags):
        with pytest.raises(HttpResponseError) as refused:
            client.set_secret(name, value, tags=tags)

        assert (refused.value.status_code, refused.value.error.code) == (400, "BadParameter")

    def test_an_api_version_that_the_cloud_does_not_have_yet(
        self, sdk, azure, tenant, app, credential
    ):
        vault = azure.vault("old", tenant, api_versions=("7.3", "7.4"))
        vault.grant(app, "get")
        vault.set("ca-key", "a key")

        with pytest.raises(HttpResponseError, match="is not recognized") as refused:
            sdk.client(vault, credential).get_secret("ca-key")

        assert refused.value.status_code == 400
        client = sdk.client(vault, credential, api_version="7.4")
        assert client.get_secret("ca-key").value == "a key"

    def test_a_request_without_an_api_version(self, azure, app, vault):
        token = azure.issued.issue(app, vault.tenant.cloud.resource)
        bearer = {"Authorization": f"Bearer {token.value}"}

        answer = requests.get(f"{vault.url}/secrets/ca-key", headers=bearer, timeout=5)

        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == "api-version must be specified"

    def test_a_token_of_another_tenant(self, sdk, azure, vault):
        other = azure.tenant()
        stranger = azure.issued.issue(other.application(), vault.tenant.cloud.resource)

        with pytest.raises(ClientAuthenticationError, match="AKV10032: Invalid issuer"):
            sdk.client(vault, Bearer(stranger.value)).get_secret("ca-key")

    def test_a_token_for_something_else(self, sdk, azure, app, vault):
        token = azure.issued.issue(app, "https://management.azure.com")

        with pytest.raises(ClientAuthenticationError, match="AKV10022: Invalid audience"):
            sdk.client(vault, Bearer(token.value)).get_secret("ca-key")

    def test_an_application_of_another_tenant_does_not_get_as_far(self, sdk, azure, vault):
        other = azure.tenant()
        credential = sdk.secret(other, other.application(secret=SECRET))

        with pytest.raises(ClientAuthenticationError, match="additionally_allowed_tenants"):
            sdk.client(vault, credential).get_secret("ca-key")

    def test_a_token_that_has_expired_or_was_revoked(self, azure, client):
        client.get_secret("ca-key")
        azure.clock.offset = 7200
        # The credential still takes its token to be good, and offers it again.
        with pytest.raises(ClientAuthenticationError) as refused:
            client.get_secret("ca-key")
        assert refused.value.status_code == 401

        azure.clock.offset = 0
        assert client.get_secret("ca-key").value == "a key"

        azure.revoke_tokens()
        with pytest.raises(ClientAuthenticationError):
            client.get_secret("ca-key")


class TestClouds:
    @pytest.mark.parametrize(
        ("cloud", "authority", "suffix"),
        [
            ("public", "login.microsoftonline.com", "vault.azure.net"),
            ("china", "login.chinacloudapi.cn", "vault.azure.cn"),
            ("china", "login.partner.microsoftonline.cn", "vault.azure.cn"),
            ("usGovernment", "login.microsoftonline.us", "vault.usgovcloudapi.net"),
        ],
    )
    def test_each_has_hosts_of_its_own(self, sdk, azure, cloud, authority, suffix):
        tenant = azure.tenant(cloud)
        app = tenant.application(secret=SECRET)
        vault = azure.vault("mesh", tenant)
        vault.grant(app, "get")
        vault.set("ca-key", "a key")
        credential = sdk.secret(tenant, app, authority=authority)

        assert vault.url == f"https://mesh.{suffix}"
        assert sdk.client(vault, credential).get_secret("ca-key").value == "a key"
        assert authority in {exchange.host for exchange in azure.token_requests}

    def test_a_tenant_of_another_cloud_is_not_found(self, sdk, azure):
        tenant = azure.tenant("china")
        credential = sdk.secret(tenant, tenant.application(secret=SECRET))
        vault = azure.vault("mesh", tenant)

        with pytest.raises(
            ClientAuthenticationError, match=f"authority configuration.*{tenant.id}"
        ):
            sdk.client(vault, credential).get_secret("ca-key")

    def test_a_scope_of_another_cloud_is_not_known(self, credential):
        with pytest.raises(ClientAuthenticationError, match="AADSTS500011"):
            credential.get_token("https://vault.azure.cn/.default")

    def test_the_sdk_believes_no_challenge_of_another_resource(self, azure, client, vault):
        challenge = f'Bearer authorization="{vault.tenant.authority}", resource="https://vault.cn"'
        azure.faults.inject(answers(401, WWW_Authenticate=challenge))

        with pytest.raises(ValueError, match=r"vault\.cn.* does not match"):
            client.get_secret("ca-key")

    def test_a_vault_that_does_not_exist_is_one_that_the_proxy_does_not_find(self, sdk, credential):
        with pytest.raises(ServiceRequestError, match="Tunnel connection failed: 503"):
            sdk.client("https://mehs.vault.azure.net", credential).get_secret("ca-key")

    def test_without_a_proxy_it_is_a_name_that_nobody_knows(self, sdk, credential, monkeypatch):
        client = sdk.client("https://mehs.vault.azure.net", credential)

        with (
            unresolvable(monkeypatch, "mehs.vault.azure.net"),
            pytest.raises(ServiceRequestError, match="Name or service not known"),
        ):
            client.get_secret("ca-key")
