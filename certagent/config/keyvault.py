"""What the environment adds to the configuration of Azure Key Vault, and what types cannot say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from certagent.config.clouds import (
    CLOUDS,
    authority_fault,
    is_vault_name,
    vault_name,
    vault_url_fault,
)
from certagent.config.model import WorkloadIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from certagent.config.model import AzureConfig, AzureKeyVaultSource, BundleConfig

WEBHOOK = {
    "tenantId": "AZURE_TENANT_ID",
    "clientId": "AZURE_CLIENT_ID",
    "tokenFile": "AZURE_FEDERATED_TOKEN_FILE",
}
"""What AKS's workload-identity webhook puts into a pod, and the settings that it stands for."""

_AUTHORITY = "AZURE_AUTHORITY_HOST"


def parse_vault(place: str) -> dict[str, Any]:
    """Read the place of `azure:<vault name>[/<secret>]`; raises `ValueError` with what is wrong.

    A secret that is named holds all parts as JSON; without one each part has a secret of its own.
    """
    name, _, secret = place.partition("/")
    if not is_vault_name(name):
        raise ValueError(
            f"expected azure:<vault name>, of 3 to 24 letters, digits and single dashes, got"
            f" 'azure:{place[:40]}'"
        )
    return {"azureKeyVault": {"secret": secret} if secret else {}}


def spell_out(document: dict[str, Any]) -> None:
    """Make a mapping of a credential that is given by its name, so that it can be added to."""
    azure = document.get("azure")
    if isinstance(azure, dict) and isinstance(azure.get("credential"), str):
        document["azure"] = {**azure, "credential": {"method": azure["credential"]}}


def complete(document: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Fill in the section `azure`: the vault that CERTAGENT_SOURCE names, and what AKS injects.

    The webhook's variables are in every pod of its service account, so they only complete what
    `workloadIdentity` leaves open, and a file's own settings stand.
    """
    azure = document.get("azure")
    if azure is not None and not isinstance(azure, dict):
        return
    document["azure"] = azure = dict(azure or {})
    store, name = _named(environ)
    # What is no cloud is told as such, and not as a missing URL.
    cloud = CLOUDS.get(str(azure.get("cloud")), CLOUDS["public"])
    if store == "azure" and not environ.get("CERTAGENT_AZURE_VAULT_URL"):
        azure["vaultUrl"] = cloud.vault_url(name)
    credential = azure.get("credential") or {}
    if not isinstance(credential, dict):
        return
    azure["credential"] = credential = {"method": "workloadIdentity", **credential}
    if credential["method"] == "workloadIdentity":
        found = {key: environ.get(variable) for key, variable in WEBHOOK.items()}
        azure["credential"] = {key: text for key, text in found.items() if text} | credential


def azure_faults(azure: AzureConfig, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with the section `azure`."""
    fault = vault_url_fault(azure.vault_url, azure.cloud)
    if fault:
        yield f"azure.vaultUrl: {fault}"
    store, name = _named(environ)
    if store == "azure" and not fault and vault_name(azure.vault_url) != name.lower():
        yield f"CERTAGENT_AZURE_VAULT_URL: CERTAGENT_SOURCE names another vault, {name[:40]!r}"
    fault = authority_fault(environ[_AUTHORITY], azure.cloud) if environ.get(_AUTHORITY) else ""
    if fault:
        yield f"{_AUTHORITY}: {fault}"
    login = azure.login
    if isinstance(login, WorkloadIdentity):
        given = {
            "tenantId": login.tenant_id,
            "clientId": login.client_id,
            "tokenFile": login.token_file,
        }
        for key, variable in WEBHOOK.items():
            if not given[key]:
                yield (
                    f"azure.credential.{key}: missing; AKS's webhook sets {variable} in pods with"
                    ' the label azure.workload.identity/use: "true"'
                )


def _named(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the store that CERTAGENT_SOURCE names, and of a Key Vault its name."""
    store, _, place = environ.get("CERTAGENT_SOURCE", "").partition(":")
    return store, place.partition("/")[0]


def source_faults(source: AzureKeyVaultSource, bundle: BundleConfig) -> Iterator[str]:
    """Yield what is wrong with a bundle's `azureKeyVault`, each with its key."""
    forms = {"secrets": source.secrets, "certificate": source.certificate, "secret": source.secret}
    given = [name for name, form in forms.items() if form is not UNSET]
    if len(given) > 1:
        yield f": expected one of {', '.join(forms)}, got {' and '.join(given)}"
    if source.roots is not UNSET and source.certificate is UNSET:
        yield ".roots: goes with `certificate` only"
    if bundle.kind == "tls" and source.secrets and source.secrets.crls:
        yield ".secrets.crls: a bundle of kind tls has no revocation lists"
    if source.certificate is not UNSET and source.roots is UNSET and bundle.kind == "ca":
        yield (
            ".roots: missing; a certificate object has no roots of its own: name the secret that"
            " holds them"
        )
