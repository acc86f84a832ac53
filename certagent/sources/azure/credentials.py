"""The SDK's credentials, made of what the files hold at that moment."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from azure.identity import (
    AzureCliCredential,
    CertificateCredential,
    ClientAssertionCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
)

from certagent.config.clouds import CLOUDS
from certagent.config.model import (
    AzureCli,
    ClientCertificate,
    ClientSecret,
    ManagedIdentity,
    WorkloadIdentity,
    seconds,
)
from certagent.errors import AccessDenied
from certagent.sources.credentials import read_credential, read_credential_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from azure.core.credentials import SupportsTokenInfo
    from azure.core.pipeline.transport import RequestsTransport

    from certagent.config.model import AzureConfig


def new_credential(
    config: AzureConfig, transport: RequestsTransport, conceal: Callable[[str], None]
) -> SupportsTokenInfo:
    """Return the SDK's credential for one login; raises `AccessDenied` where a file is not usable.

    It is made anew for each login, because what the SDK keeps would outlive its truth: a
    service-account token for ten minutes, a client secret for ever, a refusal of Entra ID's for a
    minute (MSAL's throttling). `conceal` is told every secret before it is used.
    """
    # No retries: those of the agent's own loop know a cap, and a stop.
    options: dict[str, Any] = {"transport": transport, "retry_total": 0}
    of_entra = options | {"authority": CLOUDS[config.cloud].authorities[0]}
    match config.login:
        case WorkloadIdentity() as login:
            return ClientAssertionCredential(
                login.tenant_id,
                login.client_id,
                partial(_read, login.token_file, "service-account token", conceal),
                **of_entra,
            )
        case ManagedIdentity() as login:
            # Without this it would log in as workload identity where AKS's webhook has been.
            return ManagedIdentityCredential(
                client_id=login.client_id or None,
                _exclude_workload_identity_credential=True,
                **options,
            )
        case ClientSecret() as login:
            secret = _read(login.secret_file, "client secret", conceal)
            return ClientSecretCredential(login.tenant_id, login.client_id, secret, **of_entra)
        case ClientCertificate() as login:
            return _of_certificate(login, of_entra, conceal)
        case AzureCli() as login:
            return AzureCliCredential(
                tenant_id=login.tenant_id, process_timeout=int(seconds(config.request_timeout)) or 1
            )


def describe(config: AzureConfig) -> str:
    """Return whom the login is for, as messages say it."""
    match config.login:
        case WorkloadIdentity() | ClientSecret() | ClientCertificate() as login:
            return f"application {login.client_id!r} in tenant {login.tenant_id!r}"
        case ManagedIdentity(client_id=client_id):
            return f"managed identity {client_id!r}" if client_id else "the managed identity"
        case AzureCli():
            return "the Azure CLI"


def _of_certificate(
    login: ClientCertificate, options: dict[str, Any], conceal: Callable[[str], None]
) -> CertificateCredential:
    data = read_credential_bytes(login.certificate_file, "client certificate")
    password = None
    if login.password_file:
        password = _read(login.password_file, "certificate's password", conceal)
    try:
        return CertificateCredential(
            login.tenant_id,
            login.client_id,
            certificate_data=data,
            password=password,
            **options,
        )
    except (ValueError, TypeError) as error:
        # Without the parser's words: no one can promise that they never quote the key.
        raise AccessDenied(
            f"The client certificate in {login.certificate_file} cannot be used.",
            hint="It must be one file with an RSA key and its certificate, PEM or PKCS #12;"
            " an encrypted one needs azure.credential.passwordFile.",
        ) from error


def _read(path: str, what: str, conceal: Callable[[str], None]) -> str:
    credential = read_credential(path, what)
    conceal(credential)
    return credential
