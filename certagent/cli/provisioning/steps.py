"""What one cluster needs in Vault: mounts, a policy and a role, as data.

No long-lived token of a reviewer is among it. Vault knows the cluster's service accounts by their
issuer's keys (`jwt`), or asks the cluster with the very token that wants to log in (`kubernetes`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read what: a service account, and a path in its cluster's key-value engine."""

    role: str = "istiod"
    namespace: str = "istio-system"
    service_account: str = "istiod"
    path: str = "istiod-service/certs"
    kv_version: int = 2
    ttl: str = "1h"


@dataclass(frozen=True, slots=True)
class IssuerTrust:
    """Vault fetches the keys of the cluster's token issuer, by OIDC discovery."""

    issuer: str
    audience: str
    ca_pem: str = ""


@dataclass(frozen=True, slots=True)
class KeysTrust:
    """Vault is given the issuer's public keys (PEM); it need not reach the cluster."""

    keys: tuple[str, ...]
    audience: str
    issuer: str = ""


@dataclass(frozen=True, slots=True)
class ReviewTrust:
    """Vault asks the cluster's TokenReview API, with the token that logs in.

    Its service account must be allowed to (`system:auth-delegator`), and the API server must take
    the token: an `audience` is one of its own, or none.
    """

    host: str
    audience: str = ""
    ca_pem: str = ""


Trust = IssuerTrust | KeysTrust | ReviewTrust


@dataclass(frozen=True, slots=True)
class Mount:
    """A secrets engine (`sys/mounts`) or a login method (`sys/auth`) at a path of its own."""

    what: str
    registry: str
    name: str
    kind: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> dict[str, Any]:
        """What is sent to make it."""
        options = {"options": dict(self.options)} if self.options else {}
        return {"type": self.kind, **options}


@dataclass(frozen=True, slots=True)
class Setting:
    """What is written to a path. `expected` is what reading it must show besides.

    `shared` tells who else may depend on what is there, if anybody.
    """

    what: str
    path: str
    data: Mapping[str, Any]
    expected: Mapping[str, Any] = field(default_factory=dict)
    shared: str = ""


Step = Mount | Setting


@dataclass(frozen=True, slots=True)
class Places:
    """The names in Vault that belong to one cluster."""

    cluster: str

    @property
    def auth(self) -> str:
        """The mount of the login method."""
        return f"kubernetes-{self.cluster}"

    @property
    def secrets(self) -> str:
        """The mount of the key-value engine."""
        return f"kubernetes-{self.cluster}-secrets"

    def policy(self, access: Access) -> str:
        """Return the name of the policy, in lower case as Vault keeps it."""
        return f"{access.role}-{self.cluster}".lower()


def method(trust: Trust) -> str:
    """Return the login method, as Vault and the agent's configuration name it."""
    return "kubernetes" if isinstance(trust, ReviewTrust) else "jwt"


def steps(cluster: str, trust: Trust, access: Access) -> tuple[Step, ...]:
    """Return what a cluster needs, in the order in which it is made."""
    places = Places(cluster)
    version = {"version": str(access.kv_version)}
    return (
        Mount("secrets engine", "sys/mounts", places.secrets, "kv", version),
        Setting(
            "policy",
            f"sys/policies/acl/{places.policy(access)}",
            {"policy": rule(places, access)},
            shared="It may be another cluster's or role's: names can read the same when joined.",
        ),
        Mount("login method", "sys/auth", places.auth, method(trust)),
        _configuration(f"auth/{places.auth}/config", trust),
        Setting(
            "role",
            f"auth/{places.auth}/role/{access.role}",
            {
                **_binding(trust, access),
                "token_policies": [places.policy(access)],
                "token_ttl": access.ttl,
            },
        ),
    )


def rule(places: Places, access: Access) -> str:
    """Return the policy: to read one path. Logins may give their token back by `default`."""
    data = "data/" if access.kv_version == 2 else ""  # noqa: PLR2004 - KV's own numbers
    return f'path "{places.secrets}/{data}{access.path}" {{ capabilities = ["read"] }}'


def _configuration(path: str, trust: Trust) -> Setting:
    what = "login configuration"
    shared = "Every role of the mount depends on it."
    if isinstance(trust, ReviewTrust):
        data = {
            "kubernetes_host": trust.host,
            "kubernetes_ca_cert": trust.ca_pem,
            # Or a Vault that runs in a cluster would review with its own token, in its own cluster.
            "disable_local_ca_jwt": True,
        }
        return Setting(what, path, data, {"token_reviewer_jwt_set": False}, shared=shared)
    if isinstance(trust, IssuerTrust):
        data = {
            "oidc_discovery_url": trust.issuer,
            "oidc_discovery_ca_pem": trust.ca_pem,
            "bound_issuer": trust.issuer,
        }
    else:
        data = {"jwt_validation_pubkeys": list(trust.keys), "bound_issuer": trust.issuer}
    return Setting(what, path, {key: value for key, value in data.items() if value}, shared=shared)


def _binding(trust: Trust, access: Access) -> dict[str, Any]:
    """Return which tokens the role takes."""
    if isinstance(trust, ReviewTrust):
        audience = {"audience": trust.audience} if trust.audience else {}
        return {
            "bound_service_account_names": [access.service_account],
            "bound_service_account_namespaces": [access.namespace],
            **audience,
        }
    return {
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_subject": f"system:serviceaccount:{access.namespace}:{access.service_account}",
        "bound_audiences": [trust.audience],
    }
