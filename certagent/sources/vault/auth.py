"""The login methods: what the pod has is turned into a Vault token."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from certagent.config.model import AppRoleAuth, CertAuth, JwtAuth, KubernetesAuth, TokenAuth
from certagent.errors import AccessDenied, SourceUnavailable
from certagent.sources.credentials import claims_of, one_line_credential, read_credential
from certagent.sources.http.failures import one_line
from certagent.sources.vault.client import VaultRefused, url_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from certagent.config.model import Auth
    from certagent.sources.vault.client import VaultClient


_LONGEST_LEASE = 1 << 31
"""Seconds, 68 years: Vault's own longest is 32 days unless it is configured."""


class Login(Struct, frozen=True):
    """A Vault token and its lease in seconds; 0 never ends.

    `revocable` tells that it is ours to give back, because it was obtained by a login, and that
    Vault keeps a record of it: it keeps none of a batch token.
    """

    token: str
    lease: float = 0.0
    revocable: bool = False

    def __repr__(self) -> str:
        """Show all but the token."""
        return f"Login(lease={self.lease}, revocable={self.revocable})"


class Authenticator:
    """Logs in by the configured method, with what the files hold at that moment.

    `environment_token` is what `method: token` uses without a file.
    """

    def __init__(self, auth: Auth, environment_token: str = "") -> None:
        self._auth = auth
        self._environment_token = environment_token
        # The wrapping token that was used, and what was in it.
        self._unwrapped: tuple[str, str] = ("", "")

    def login(self, client: VaultClient) -> Login:
        """Return a token; raises `AccessDenied` or `SourceUnavailable`."""
        match self._auth:
            case KubernetesAuth() | JwtAuth() as auth:
                return _service_account(client, auth)
            case AppRoleAuth() as auth:
                return self._approle(client, auth)
            case CertAuth() as auth:
                return _cert(client, auth)
            case auth:
                return self._token(auth)

    def _approle(self, client: VaultClient, auth: AppRoleAuth) -> Login:
        role_id = read_credential(auth.role_id_file, "role id")
        content = read_credential(auth.secret_id_file, "secret id")
        secret_id = self._secret_id(client, auth, content) if auth.secret_id_wrapped else content
        return _logged_in(
            client,
            auth.mount,
            {"role_id": role_id, "secret_id": secret_id},
            f"the AppRole login at {auth.mount!r}",
            "The role id or the secret id is wrong, has expired, or was used up: issue a new one.",
        )

    def _secret_id(self, client: VaultClient, auth: AppRoleAuth, wrapping_token: str) -> str:
        """Unwrap the secret id, once: a wrapping token works a single time."""
        if self._unwrapped[0] != wrapping_token:
            # A wrapping token is what authorises its own unwrapping.
            client.token = wrapping_token
            try:
                answer = client.post(url_of("sys/wrapping/unwrap"))
            except VaultRefused as refused:
                raise AccessDenied(
                    f"Vault refused to unwrap the secret id ({refused.answer}).",
                    hint=f"The wrapping token in {auth.secret_id_file} has expired or was used. "
                    "Unless a former run of this agent did,\nsomeone else may have unwrapped it: "
                    "revoke the secret id, and wrap a new one.",
                ) from refused
            finally:
                client.token = ""
            self._unwrapped = (wrapping_token, _text(answer.get("data"), "secret_id"))
        return self._unwrapped[1]

    def _token(self, auth: TokenAuth) -> Login:
        if auth.token_file:
            return Login(read_credential(auth.token_file, "Vault token"))
        if not self._environment_token.strip():
            raise AccessDenied(
                "There is no Vault token.", hint="Set VAULT_TOKEN, or vault.auth.tokenFile."
            )
        return Login(one_line_credential(self._environment_token, "VAULT_TOKEN"))


def _service_account(client: VaultClient, auth: KubernetesAuth | JwtAuth) -> Login:
    jwt = read_credential(auth.token_file, "service-account token")
    return _logged_in(
        client,
        auth.mount,
        {"role": auth.role, "jwt": jwt},
        f"the login for role {auth.role!r} at {auth.mount!r}",
        _requirement(jwt, auth.token_file),
    )


def _cert(client: VaultClient, auth: CertAuth) -> Login:
    # The connection presents the certificate; a kept connection would present that of its own time.
    client.close()
    return _logged_in(
        client,
        auth.mount,
        {"name": auth.role} if auth.role else {},
        f"the login with the certificate {auth.cert_file} at {auth.mount!r}",
        "A role of that mount must trust its issuer and allow its names; it may have expired.",
    )


def _logged_in(
    client: VaultClient, mount: str, body: Mapping[str, object], what: str, hint: str
) -> Login:
    """Log in at a mount, and take the token out of the answer."""
    try:
        answer = client.post(url_of("auth", mount, "login"), body)
    except VaultRefused as refused:
        raise AccessDenied(f"Vault refused {what} ({refused.answer}).", hint=hint) from refused
    auth = answer.get("auth")
    token = _text(auth, "client_token")
    lease = auth.get("lease_duration") if isinstance(auth, dict) else None
    # So said, neither NaN nor what is no float gets through: both are JSON to Python.
    if not isinstance(lease, int | float) or not 0 <= lease <= _LONGEST_LEASE:
        raise _malformed("lease_duration")
    batch = isinstance(auth, dict) and auth.get("token_type") == "batch"
    return Login(token, float(lease), revocable=not batch)


def _text(answer: object, key: str) -> str:
    """Return a secret text of an answer."""
    value = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value:
        raise _malformed(key)
    return value


def _malformed(key: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"Vault answered a login without a usable {key!r}.",
        hint="Check that vault.auth names the right mount, and that vault.address is Vault's own.",
    )


def _requirement(jwt: str, path: str) -> str:
    """Return what the role must accept, from the token's own claims, which nobody has verified."""
    claims = claims_of(jwt)
    if claims.expires and claims.expires < datetime.now(UTC):
        return (
            f"The token in {path} has expired: kubelet renews a projected token, "
            "but not a copy of one, nor one mounted by subPath."
        )
    return (
        f"The role must bind service account {one_line(claims.account)!r} and audience "
        f"{one_line(', '.join(claims.audiences))!r}; Vault also answers 403 where no login is "
        "mounted, and when its token reviewer is unreachable."
    )
