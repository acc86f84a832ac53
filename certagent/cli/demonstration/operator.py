"""What an operator does in Vault once per cluster, and how it is undone."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from certagent.config.decoding import load
from certagent.errors import AccessDenied, CertagentError, SourceUnavailable
from certagent.runtime.concealment import conceal
from certagent.sources.vault.client import VaultClient, VaultRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PATH = "istiod-service/certs"
ROLE = "istiod"
AUDIENCE = "vault"
_UPGRADE = 5.0  # seconds
_POLL = 0.02  # seconds
_HANGS = 1.0  # seconds: who cannot answer takes no longer to say so
SUBJECT = "system:serviceaccount:istio-system:istiod"


@dataclass(frozen=True, slots=True)
class Places:
    """What one cluster has in Vault, by name; `prefix` keeps the names apart from others'."""

    cluster: str
    prefix: str = ""

    @property
    def auth(self) -> str:
        """The mount of the login method, which trusts this cluster's tokens alone."""
        return f"{self.prefix}jwt-{self.cluster}"

    @property
    def secrets(self) -> str:
        """The mount of the key-value engine that holds the cluster's CA."""
        return f"{self.prefix}kubernetes-{self.cluster}-secrets"

    @property
    def policy(self) -> str:
        """The policy that reads the cluster's CA."""
        return f"{self.prefix}istiod-{self.cluster}"

    @property
    def rule(self) -> str:
        """The policy's one rule."""
        return f'path "{self.secrets}/data/{PATH}" {{ capabilities = ["read"] }}'


@dataclass(slots=True)
class Operator:
    """A client with an operator's token, and what it made: `undo` removes it."""

    address: str
    token: str = field(repr=False)
    environ: Mapping[str, str] = field(default_factory=dict)
    _made: list[tuple[str, Callable[[], object]]] = field(default_factory=list, repr=False)
    _client: VaultClient = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Make the client; raises `ConfigurationError` for an address that is none."""
        self._client = _client(self.address, self.environ)
        conceal(self.token)
        self._client.token = self.token

    def version(self) -> str:
        """Return the server's version; raises `AccessDenied` where the token is not taken."""
        with self._doing("look the token up"):
            self._client.api.auth.token.lookup_self()
            health = self._client.api.sys.read_health_status(method="GET")
        return str(health.get("version", "")) or "of an unknown version"

    def has_mount(self, path: str) -> bool:
        """Say whether a secrets engine is mounted there."""
        with self._doing("list the mounts"):
            return f"{path}/" in self._client.api.sys.list_mounted_secrets_engines()["data"]

    def set_up(self, places: Places, public_key: str) -> None:
        """Make a cluster's mounts, policy and role; its tokens are checked with `public_key`."""
        client, sys = self._client.api, self._client.api.sys
        remove = partial(sys.disable_secrets_engine, places.secrets)
        with self._making(f"the mount {places.secrets}", remove):
            sys.enable_secrets_engine("kv", path=places.secrets, options={"version": "2"})
        remove = partial(sys.disable_auth_method, places.auth)
        with self._making(f"the login mount {places.auth}", remove):
            sys.enable_auth_method("jwt", path=places.auth)
        # Vault keeps an identity of who logged in, also when the mount is gone.
        forget = partial(self._forget_visitor, places.auth)
        self._made.append((f"the identity of {SUBJECT} at {places.auth}", forget))
        remove = partial(sys.delete_acl_policy, places.policy)
        with self._making(f"the policy {places.policy}", remove):
            sys.create_or_update_acl_policy(places.policy, places.rule)
        with self._doing(f"write the role {ROLE} of {places.auth}"):
            client.auth.jwt.configure(jwt_validation_pubkeys=[public_key], path=places.auth)
            client.auth.jwt.create_role(
                name=ROLE,
                role_type="jwt",
                user_claim="sub",
                allowed_redirect_uris=[],
                bound_audiences=[AUDIENCE],
                bound_subject=SUBJECT,
                token_policies=[places.policy],
                token_ttl="1h",  # noqa: S106 - a time
                path=places.auth,
            )

    def store(self, places: Places, fields: Mapping[str, str]) -> int:
        """Store a cluster's set and return its version."""
        until = time.monotonic() + _UPGRADE
        with self._doing(f"write {places.secrets}/{PATH}"):
            while True:
                try:
                    answer = self._client.api.secrets.kv.v2.create_or_update_secret(
                        PATH, dict(fields), mount_point=places.secrets
                    )
                except VaultRefused as refused:
                    # A new KV v2 mount upgrades itself first, and answers 400 meanwhile.
                    if refused.status != HTTPStatus.BAD_REQUEST or time.monotonic() > until:
                        raise
                    time.sleep(_POLL)
                else:
                    return int(answer["data"]["version"])

    def undo(self) -> None:
        """Remove what was made, the newest first, all that can be.

        A Vault that hangs is not asked again: each of the rest would wait for as long.
        Raises the first error, with the names of all that could not be removed.
        """
        left: list[tuple[str, CertagentError]] = []
        while self._made:
            what, remove = self._made.pop()
            began = time.monotonic()
            try:
                with self._doing(f"remove {what}"):
                    remove()
            except CertagentError as error:
                left.append((what, error))
                if isinstance(error, SourceUnavailable) and time.monotonic() - began > _HANGS:
                    left += [(rest, error) for rest, _ in reversed(self._made)]
                    self._made.clear()
        if left:
            cause = left[0][1]
            raise type(cause)(
                f"Left in {self.address}: {', '.join(what for what, _ in left)}.",
                hint=f"{cause.message}\nRemove it by hand: `vault secrets disable`,"
                " `vault auth disable`, `vault policy delete`.",
            )

    def _forget_visitor(self, mount: str) -> None:
        identity = self._client.api.secrets.identity
        accessor = self._client.api.sys.list_auth_methods()["data"][f"{mount}/"]["accessor"]
        found = identity.lookup_entity(alias_name=SUBJECT, alias_mount_accessor=accessor)
        if found.get("data"):
            identity.delete_entity(found["data"]["id"])

    @contextmanager
    def _making(self, what: str, remove: Callable[[], object]) -> Iterator[None]:
        """Note how to remove it before it is made: an answer that is lost must not leave it."""
        self._made.append((what, remove))
        try:
            with self._doing(f"make {what}"):
                yield
        except AccessDenied:
            self._made.pop()  # Vault says that it was not made
            raise

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        try:
            yield
        except VaultRefused as refused:
            raise AccessDenied(
                f"Vault at {self.address} refused to {what} ({refused.answer}).",
                hint="The token must be allowed to make mounts, policies and roles.",
            ) from refused


class Visitor:
    """A client that is logged in as a cluster's istiod, and may do what that may."""

    def __init__(self, operator: Operator, places: Places, projected: str) -> None:
        """Log in; raises `VaultRefused`."""
        self._client = _client(operator.address, operator.environ)
        self._client.api.auth.jwt.jwt_login(ROLE, projected, path=places.auth)

    def read(self, places: Places) -> int:
        """Read a cluster's set and return its version; raises `VaultRefused`."""
        answer = self._client.api.secrets.kv.v2.read_secret_version(
            PATH, mount_point=places.secrets, raise_on_deleted_version=False
        )
        return int(answer["data"]["metadata"]["version"])


def _client(address: str, environ: Mapping[str, str]) -> VaultClient:
    """Return the agent's own client, so that an address is judged as the agent judges it."""
    config = load(
        None,
        {
            **environ,
            "VAULT_ADDR": address,
            "CERTAGENT_SOURCE": f"vault:secret/{PATH}",
            "ROOT_CA_DIR": "/",
            "CERTAGENT_VAULT_ROLE": ROLE,
        },
    )
    assert config.vault  # noqa: S101 - a source in Vault without Vault does not decode
    return VaultClient(config.vault, Counter())
