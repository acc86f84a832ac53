"""The configuration of Azure Key Vault: clouds, credentials, the forms of a source."""

from __future__ import annotations

import pytest
import yaml

from certagent.config.clouds import CLOUDS
from certagent.config.decoding import load
from certagent.config.model import (
    AzureCli,
    AzureConfig,
    ClientCertificate,
    ClientSecret,
    ManagedIdentity,
    WorkloadIdentity,
)
from certagent.errors import ConfigurationError

TENANT, CLIENT = "9b1c0b34-tenant", "5d7fb6b0-client"
WEBHOOK = {
    "AZURE_TENANT_ID": TENANT,
    "AZURE_CLIENT_ID": CLIENT,
    "AZURE_FEDERATED_TOKEN_FILE": "/var/run/secrets/azure/tokens/azure-identity-token",
    "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com/",
}
ENVIRONMENT = {"CERTAGENT_SOURCE": "azure:mesh", "ROOT_CA_DIR": "/etc/istio-ca", **WEBHOOK}
URL = "https://mesh.vault.azure.net"


def bundle(source: dict | None = None) -> dict:
    return {
        "name": "istiod-ca",
        "source": {"azureKeyVault": source or {}},
        "output": {"directory": "/etc/istio-ca"},
    }


@pytest.fixture
def read(tmp_path):
    """Load a document, as a file."""

    def read_(azure: dict | None = None, source: dict | None = None, **environ: str):
        path = tmp_path / "certagent.yaml"
        document = {"bundles": [bundle(source)], "azure": azure} if azure else {}
        path.write_text(yaml.safe_dump(document or {"bundles": [bundle(source)]}))
        return load(str(path), environ)

    return read_


@pytest.fixture
def faults(read):
    """Load a document that is wrong, and return its faults."""

    def faults_(*args: object, **environ: str) -> str:
        with pytest.raises(ConfigurationError) as refused:
            read(*args, **environ)
        return "\n".join(refused.value.faults)

    return faults_


class TestTheEnvironment:
    def test_what_aks_injects_and_the_vaults_name_are_enough(self):
        config = load(None, ENVIRONMENT)

        assert config.azure == AzureConfig(
            vault_url=URL,
            credential=WorkloadIdentity(
                tenant_id=TENANT,
                client_id=CLIENT,
                token_file=WEBHOOK["AZURE_FEDERATED_TOKEN_FILE"],
            ),
        )
        assert config.bundles[0].source.azure_key_vault

    def test_what_is_no_cloud_is_the_one_fault(self):
        with pytest.raises(ConfigurationError, match="1 fault") as refused:
            load(None, {**ENVIRONMENT, "CERTAGENT_AZURE_CLOUD": "AzurePublicCloud"})

        assert "CERTAGENT_AZURE_CLOUD" in str(refused.value)

    @pytest.mark.parametrize("cloud", CLOUDS)
    def test_the_cloud_decides_the_vaults_url(self, cloud):
        authority = f"https://{CLOUDS[cloud].authorities[0]}"
        environ = {**ENVIRONMENT, "CERTAGENT_AZURE_CLOUD": cloud, "AZURE_AUTHORITY_HOST": authority}

        assert load(None, environ).azure.vault_url == f"https://mesh.{CLOUDS[cloud].vault_suffix}"

    def test_a_files_own_settings_stand_before_what_the_webhook_sets(self, read):
        azure = {"vaultUrl": URL, "credential": {"method": "workloadIdentity", "clientId": "own"}}

        login = read(azure, **WEBHOOK).azure.login

        assert (login.client_id, login.tenant_id) == ("own", TENANT)

    def test_certagents_own_variables_win_over_the_file(self, read):
        azure = {"vaultUrl": URL, "credential": "managedIdentity"}

        assert read(azure, CERTAGENT_AZURE_CLIENT_ID="mine").azure.login == ManagedIdentity(
            client_id="mine"
        )

    def test_the_webhook_says_nothing_about_other_credentials(self):
        config = load(None, {**ENVIRONMENT, "CERTAGENT_AZURE_CREDENTIAL": "managedIdentity"})

        assert config.azure.login == ManagedIdentity()

    def test_a_url_of_its_own_needs_no_name_in_the_source(self, read):
        config = read(None, CERTAGENT_AZURE_VAULT_URL=URL, **WEBHOOK)

        assert config.azure.vault_url == URL

    def test_two_vaults_are_a_fault(self, faults):
        told = faults({"vaultUrl": URL}, **WEBHOOK, CERTAGENT_SOURCE="azure:other",
                      CERTAGENT_AZURE_VAULT_URL=URL)  # fmt: skip

        assert "CERTAGENT_AZURE_VAULT_URL: CERTAGENT_SOURCE names another vault, 'other'" in told

    def test_no_vault_is_a_fault_that_says_how_to_give_one(self, faults):
        assert faults(**WEBHOOK) == (
            "azure.vaultUrl: missing; give it in the file, or set CERTAGENT_AZURE_VAULT_URL"
        )

    def test_without_the_webhook_each_thing_that_it_sets_is_named(self, faults):
        told = faults({"vaultUrl": URL})

        for variable in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"):
            assert variable in told
        assert "azure.workload.identity/use" in told

    @pytest.mark.parametrize(
        "name", ["", "x", "-mesh", "mesh-", "me--sh", "1mesh", "m" * 25, "a_b"]
    )
    def test_what_can_be_no_vaults_name_is_refused(self, name):
        with pytest.raises(ConfigurationError) as refused:
            load(None, {**ENVIRONMENT, "CERTAGENT_SOURCE": f"azure:{name}"})

        assert any("expected azure:<vault name>" in fault for fault in refused.value.faults)


class TestCredentials:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("managedIdentity", ManagedIdentity()),
            ("azureCli", AzureCli()),
            ({"method": "managedIdentity", "clientId": CLIENT}, ManagedIdentity(client_id=CLIENT)),
            ({"method": "azureCli", "tenantId": TENANT}, AzureCli(tenant_id=TENANT)),
            (
                {
                    "method": "clientSecret",
                    "tenantId": TENANT,
                    "clientId": CLIENT,
                    "secretFile": "/s",
                },
                ClientSecret(tenant_id=TENANT, client_id=CLIENT, secret_file="/s"),
            ),
            (
                {
                    "method": "clientCertificate",
                    "tenantId": TENANT,
                    "clientId": CLIENT,
                    "certificateFile": "/c",
                    "passwordFile": "/p",
                },
                ClientCertificate(
                    tenant_id=TENANT, client_id=CLIENT, certificate_file="/c", password_file="/p"
                ),
            ),
        ],
    )
    def test_one_is_a_name_or_an_object(self, read, given, expected):
        assert read({"vaultUrl": URL, "credential": given}).azure.login == expected

    def test_a_name_stands_for_its_method_also_in_a_config_that_is_made_by_hand(self):
        assert AzureConfig(vault_url=URL, credential="azureCli").login == AzureCli()

    def test_an_unknown_name_is_refused_with_those_that_there_are(self, faults):
        told = faults({"vaultUrl": URL, "credential": "password"})

        assert told.startswith("azure.credential.method: expected one of workloadIdentity, managed")

    @pytest.mark.parametrize(("azure", "path"), [(3, "azure:"), ({"credential": 3}, "credential:")])
    def test_what_is_no_mapping_is_refused(self, faults, azure, path):
        assert f"{path} expected a mapping" in faults(azure)

    def test_an_id_that_is_none_is_refused(self, faults):
        credential = {"method": "managedIdentity", "clientId": "a/b"}

        assert "azure.credential.clientId: expected the id that Entra ID shows" in faults(
            {"vaultUrl": URL, "credential": credential}
        )


class TestURLs:
    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("http://mesh.vault.azure.net", "https only"),
            ("mesh.vault.azure.net", "https only"),
            ("https://user:pw@mesh.vault.azure.net", "without user and port"),
            ("https://mesh.vault.azure.net:8443", "without user and port"),
            ("https://mesh.vault.azure.net:x", "no URL"),
            ("https://mesh.vault.azure.net/secrets", "without path and query"),
            ("https://mesh.vault.azure.net?x=1", "without path and query"),
            ("https://mesh.example.com", "expected https://<vault name>.vault.azure.net, got"),
            ("https://vault.azure.net", "expected https://<vault name>.vault.azure.net, got"),
            ("https://me_sh.vault.azure.net", "is no vault's name"),
            ("https://mesh.vault.azure.cn", "that is china"),
            ("https://mesh.vault.usgovcloudapi.net", "that is usGovernment"),
        ],
    )
    def test_what_is_no_vaults_url_in_this_cloud_is_a_fault(self, faults, url, said):
        told = faults({"vaultUrl": url, "credential": "azureCli"})

        assert told.startswith("azure.vaultUrl: ")
        assert said in told
        assert "pw" not in told

    @pytest.mark.parametrize("url", [URL, f"{URL}/", "https://Mesh.Vault.Azure.NET"])
    def test_a_good_one_is_taken(self, read, url):
        assert read({"vaultUrl": url, "credential": "azureCli"}).azure.vault_url == url

    @pytest.mark.parametrize(
        ("authority", "said"),
        [
            ("https://login.microsoftonline.us", "that is usGovernment: set azure.cloud to it"),
            ("login.chinacloudapi.cn", "that is china"),
            ("https://login.example.com", "no cloud has it: unset it"),
            ("https://[", "no cloud has it"),
        ],
    )
    def test_an_authority_of_another_cloud_is_a_fault(self, faults, authority, said):
        azure = {"vaultUrl": URL, "credential": "azureCli"}

        told = faults(azure, AZURE_AUTHORITY_HOST=authority)

        assert told.startswith("AZURE_AUTHORITY_HOST: ")
        assert said in told

    @pytest.mark.parametrize(
        "authority", ["https://login.microsoftonline.com/", "login.microsoftonline.com"]
    )
    def test_the_clouds_own_is_none(self, read, authority):
        read({"vaultUrl": URL, "credential": "azureCli"}, AZURE_AUTHORITY_HOST=authority)

    def test_timeouts_are_durations_of_some_length(self, faults):
        azure = {"vaultUrl": URL, "credential": "azureCli", "requestTimeout": "0s"}

        assert "azure.requestTimeout: expected more than nothing" in faults(azure)


AZURE = {"vaultUrl": URL, "credential": "azureCli"}


class TestSources:
    @pytest.mark.parametrize(
        "source",
        [
            {},
            {"secrets": {"privateKey": "istio-key"}},
            {"certificate": "ca", "roots": "roots"},
            {"secret": "all"},
        ],
    )
    def test_each_form_is_taken(self, read, source):
        assert read(AZURE, source).bundles[0].source.azure_key_vault is not None

    @pytest.mark.parametrize(
        ("source", "told"),
        [
            (
                {"certificate": "ca", "roots": "r", "secret": "all"},
                ": expected one of secrets, certificate, secret, got certificate and secret",
            ),
            ({"secret": "all", "roots": "r"}, ".roots: goes with `certificate` only"),
            ({"certificate": "ca"}, ".roots: missing; a certificate object has no roots"),
            ({"secret": "a_b"}, ".secret: expected a name of letters, digits and dashes"),
            ({"secrets": {"privateKey": "k" * 128}}, ".secrets.privateKey: expected a name"),
            ({"secrets": {"key": "x"}}, ".secrets.key: unknown key"),
        ],
    )
    def test_what_is_wrong_with_one_is_told_with_its_path(self, faults, source, told):
        assert f"bundles[0].source.azureKeyVault{told}" in faults(AZURE, source)

    def test_a_gateway_has_no_revocation_lists(self, tmp_path):
        gateway = {**bundle({"secrets": {"crls": "ca-crl"}}), "kind": "tls"}
        path = tmp_path / "certagent.yaml"
        path.write_text(yaml.safe_dump({"bundles": [gateway], "azure": AZURE}))

        with pytest.raises(ConfigurationError, match=r"secrets\.crls: a bundle of kind tls has no"):
            load(str(path), {})

    def test_a_bundle_has_one_source(self, tmp_path):
        both = bundle()
        both["source"]["files"] = {"directory": "/x"}
        path = tmp_path / "certagent.yaml"
        path.write_text(yaml.safe_dump({"bundles": [both], "azure": AZURE}))

        with pytest.raises(ConfigurationError) as refused:
            load(str(path), {})

        assert "exactly one of vaultKV, vaultPKI, azureKeyVault, files" in str(refused.value)

    def test_a_vault_only_configuration_is_not_looked_at_for_azure(self):
        environ = {
            "CERTAGENT_SOURCE": "vault:secret/ca",
            "VAULT_ADDR": "https://vault:8200",
            "CERTAGENT_VAULT_ROLE": "istiod",
            "ROOT_CA_DIR": "/etc/istio-ca",
            "AZURE_AUTHORITY_HOST": "https://login.example.com",
            "CERTAGENT_AZURE_CLOUD": "mars",
        }

        assert not load(None, environ).azure
