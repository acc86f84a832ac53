"""What the pod logs in with: whether it is there, what it says of itself, who renews it."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from certagent.cli.diagnosis.mounts import covering
from certagent.cli.diagnosis.steps import CREDENTIAL
from certagent.config.model import (
    AppRoleAuth,
    AzureCli,
    CertAuth,
    ClientCertificate,
    ClientSecret,
    JwtAuth,
    KubernetesAuth,
    ManagedIdentity,
    WorkloadIdentity,
)
from certagent.errors import AccessDenied
from certagent.layouts import DATA
from certagent.material import pem
from certagent.material.certificates import Certificate, Unparseable
from certagent.runtime.logs import conceal
from certagent.sources.credentials import (
    ATTEMPTED_AGAIN,
    claims_of,
    is_jwt,
    one_line_credential,
    read_credential,
    read_credential_bytes,
)
from certagent.sources.http.failures import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from certagent.cli.diagnosis.mounts import Mount
    from certagent.cli.diagnosis.result import Result
    from certagent.config.model import Auth, AzureCredential
    from certagent.sources.credentials import Claims

_Read = TypeVar("_Read", str, bytes)

_EXCHANGE = "api://AzureADTokenExchange"
_CLUSTERS_OWN = ("https://kubernetes.default.svc", "kubernetes.default.svc")
_RENEWED_AT = 0.9
"""The part of its life after which a token is stale: kubelet renews it at 0.8 of it."""

_SOON = timedelta(days=7)

_PROJECT = "Project a token (serviceAccountToken) and mount its volume as it is, without subPath."


def of_vault(
    auth: Auth, environment_token: str, now: datetime, table: tuple[Mount, ...]
) -> Iterator[Result]:
    """Yield what there is to say of a login method's files."""
    match auth:
        case KubernetesAuth() | JwtAuth():
            yield from _service_account(auth.token_file, now, table)
        case AppRoleAuth():
            _read(auth.role_id_file, "role id")
            _read(auth.secret_id_file, "secret id")
            what = "the wrapped secret id" if auth.secret_id_wrapped else "the secret id"
            yield CREDENTIAL.ok(f"The role id and {what} can be read.")
        case CertAuth():
            _read_bytes(auth.key_file, "private key")
            yield _certificate(auth.cert_file, now)
        case _ if auth.token_file:
            _read(auth.token_file, "Vault token")
            yield CREDENTIAL.ok(f"The Vault token in {auth.token_file} can be read.")
        case _:
            conceal(one_line_credential(environment_token, "VAULT_TOKEN"))
            yield CREDENTIAL.ok("VAULT_TOKEN is set.")


def of_azure(login: AzureCredential, now: datetime, table: tuple[Mount, ...]) -> Iterator[Result]:
    """Yield what there is to say of a credential's files."""
    match login:
        case WorkloadIdentity():
            yield from _service_account(login.token_file, now, table, exchange=True)
        case ClientSecret():
            _read(login.secret_file, "client secret")
            yield CREDENTIAL.ok(f"The client secret in {login.secret_file} can be read.")
        case ClientCertificate():
            yield _certificate(login.certificate_file, now)
        case ManagedIdentity():
            yield CREDENTIAL.ok("The machine's identity needs no file.")
        case AzureCli():
            yield CREDENTIAL.ok("The login of the Azure CLI needs no file of its own.")


def _read(path: str, what: str, fix: str = "") -> str:
    credential = _fixed(read_credential, path, what, fix)
    conceal(credential)
    return credential


def _read_bytes(path: str, what: str) -> bytes:
    return _fixed(read_credential_bytes, path, what)


def _fixed(read: Callable[[str, str], _Read], path: str, what: str, fix: str = "") -> _Read:
    """Read a file; tell a person what to do, where an agent says that it tries again.

    A pipe is not waited for: nobody may ever write to it.
    """
    fix = fix or "Put it there."
    fix += f" The configuration's path has to lead to it, readable for user {os.geteuid()}."
    # pathlib raises where a directory may not be searched; to read it says so too.
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113
        raise AccessDenied(f"The {what} in {path} is no file.", hint=fix)
    try:
        return read(path, what)
    except AccessDenied as error:
        hint = fix if error.hint.endswith(ATTEMPTED_AGAIN) else error.hint
        raise AccessDenied(error.message, hint=hint) from error


def _service_account(
    path: str, now: datetime, table: tuple[Mount, ...], *, exchange: bool = False
) -> Iterator[Result]:
    """Yield what a service-account token says; its signature is the store's to verify."""
    token = _read(path, "service-account token", _PROJECT)
    if not is_jwt(token):
        raise AccessDenied(f"What is in {path} is no service-account token (JWT).", hint=_PROJECT)
    claims = claims_of(token)
    if claims.expires and claims.expires <= now:
        raise AccessDenied(
            f"The token in {path} expired at {claims.expires:%FT%TZ}.",
            hint="kubelet renews a projected token, but not a copy of one, nor one mounted by"
            f" subPath. {_PROJECT}",
        )
    audiences = one_line(", ".join(claims.audiences))
    ends = f"expires at {claims.expires:%FT%TZ}" if claims.expires else "never expires"
    yield CREDENTIAL.ok(
        f"The token in {path} is {one_line(claims.account)!r}'s, for the audience {audiences!r},"
        f" and {ends}."
    )
    yield from _audience(claims, exchange=exchange)
    yield from _renewal(path, claims, now, table)


def _audience(claims: Claims, *, exchange: bool) -> Iterator[Result]:
    if exchange and not any(each.startswith(_EXCHANGE) for each in claims.audiences):
        yield CREDENTIAL.warning(
            f"Its audience is not {_EXCHANGE}, which Entra ID asks for.",
            f"Set `audience: {_EXCHANGE}` in the projected token, or what the federated"
            " credential names.",
        )
    elif not exchange and any(each.startswith(_CLUSTERS_OWN) for each in claims.audiences):
        yield CREDENTIAL.warning(
            "Its audience is the cluster's own API: who gets it there can act as this pod.",
            "Project a token with an audience of its own (`audience: vault`), and bind the role to"
            " that.",
        )


def _renewal(
    path: str, claims: Claims, now: datetime, table: tuple[Mount, ...]
) -> Iterator[Result]:
    """Yield what keeps a token from being renewed, as far as it can be seen."""
    if claims.expires is None:
        yield CREDENTIAL.warning(
            "A token that never expires can be used by whoever found it.", _PROJECT
        )
        return
    mount = covering(Path(path), table)
    if mount is not None and mount.point == str(Path(path).resolve()):
        yield CREDENTIAL.warning(
            f"{path} is mounted by itself (subPath): kubelet does not renew it there.", _PROJECT
        )
    elif not _is_projected(Path(path)):
        yield CREDENTIAL.warning(
            f"{path} is a plain file, and none that kubelet renews.",
            f"In a pod: {_PROJECT[0].lower()}{_PROJECT[1:]} On a laptop, copy a new one in time.",
        )
    elif claims.issued and now > claims.issued + _RENEWED_AT * (claims.expires - claims.issued):
        yield CREDENTIAL.warning(
            f"It is of {claims.issued:%FT%TZ}, and kubelet should have renewed it.",
            "Look at the node's kubelet, and compare this machine's clock with the cluster's.",
        )


def _is_projected(path: Path) -> bool:
    """Say whether a file is one of kubelet's: a link into `..data`."""
    return path.is_symlink() and DATA in path.readlink().parts


def _certificate(path: str, now: datetime) -> Result:
    """Return what a client certificate says; PKCS #12 is left to the login."""
    blocks, _ = pem.decode(_read_bytes(path, "client certificate"), "certificate")
    der = next((block.der for block in blocks if block.label == "CERTIFICATE"), None)
    if der is None:
        return CREDENTIAL.ok(f"The client certificate in {path} can be read.")
    try:
        certificate = Certificate.load(der)
    except Unparseable as fault:
        raise AccessDenied(
            f"The client certificate in {path} is none.", hint="Put its PEM there."
        ) from fault
    ends = f"{certificate.not_after:%FT%TZ}"
    if certificate.not_after <= now:
        raise AccessDenied(
            f"The client certificate in {path} expired at {ends}.", hint="Put a new one there."
        )
    told = f"The client certificate in {path} is {certificate.subject!r}'s, and expires at {ends}."
    if certificate.not_after - now < _SOON:
        return CREDENTIAL.warning(told, "Renew it in time.")
    return CREDENTIAL.ok(told)
