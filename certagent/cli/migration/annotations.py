"""The annotations of vault-agent's injector, and what becomes of each: the documentation.

The 74 names are those of vault-k8s 1.7.6 (agent-inject/agent/annotations.go, agent.go). As there,
`-NAME` stands for the secret's name, and `[-NAME]` where one value may serve all secrets.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from certagent.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PREFIX = "vault.hashicorp.com/"


class Fate(Enum):
    """What becomes of an annotation."""

    MAPPED = "mapped"
    UNNECESSARY = "not needed"
    REFUSED = "refused"


MAPPED: Mapping[str, str] = {
    "agent-inject": "the overlay sets it to false: the webhook leaves the pod alone",
    "agent-inject-secret-NAME": "the source's mount and path",
    "agent-inject-template-NAME": "the field that holds the part",
    "agent-template-left-delim-NAME": "the template is read with it",
    "agent-template-right-delim-NAME": "the template is read with it",
    "agent-inject-file-NAME": "the part that the file is",
    "secret-volume-path[-NAME]": "output.directory (ROOT_CA_DIR)",
    "preserve-secret-case[-NAME]": "the file's name is read with it",
    "agent-init-first": "the place in initContainers",
    "agent-pre-populate": "certagent always publishes before the reader starts",
    "agent-pre-populate-only": "true: `certagent init`; else `certagent run`, a native sidecar",
    "agent-extra-secret": "mounted at /vault/custom, where a file of it is read",
    "agent-limits-cpu": "resources.limits.cpu",
    "agent-limits-mem": "resources.limits.memory, where certagent can live with it",
    "agent-limits-ephemeral": "resources.limits.ephemeral-storage",
    "agent-requests-cpu": "resources.requests.cpu",
    "agent-requests-mem": "resources.requests.memory",
    "agent-requests-ephemeral": "resources.requests.ephemeral-storage",
    "agent-service-account-token-volume-name": "a token of its own for certagent: --audience",
    "template-static-secret-render-interval": "refresh.interval (CERTAGENT_INTERVAL)",
    "service": "vault.address (VAULT_ADDR)",
    "namespace": "vault.namespace (VAULT_NAMESPACE)",
    "proxy-address": "HTTPS_PROXY for certagent",
    "role": "vault.auth.role (CERTAGENT_VAULT_ROLE)",
    "auth-type": "vault.auth.method (CERTAGENT_VAULT_AUTH_METHOD)",
    "auth-path": "vault.auth.mount (CERTAGENT_VAULT_AUTH_MOUNT)",
    "auth-config-KEY": "the login's files and role",
    "tls-secret": "mounted at /vault/tls, where a file of it is read",
    "ca-cert": "vault.caFile (VAULT_CACERT)",
    "client-cert": "vault.auth.certFile, with auth-type cert",
    "client-key": "vault.auth.keyFile, with auth-type cert",
    "client-timeout": "vault.requestTimeout",
    "log-level": "log.level (CERTAGENT_LOG_LEVEL)",
    "log-format": "log.format (CERTAGENT_LOG_FORMAT)",
}

UNNECESSARY: Mapping[str, str] = {
    "agent-inject-status": "the webhook's own mark",
    "agent-inject-perms-NAME": "the key has 0600, for its reader's user alone, the rest 0644",
    "agent-inject-default-template": "each file's own template says what is in it",
    "agent-inject-containers": "one container mounts the volume, read-only: the reader",
    "agent-image": "certagent has an image of its own: --image",
    "agent-request-namespace": "the token says which namespace the pod is in",
    "agent-revoke-on-shutdown": "certagent always gives its login back at the end",
    "agent-revoke-grace": "certagent gives its login back when its work is done",
    "agent-run-as-user": "certagent runs as its reader's user, 1337",
    "agent-run-as-group": "certagent runs as its reader's group, 1337",
    "agent-run-as-same-user": "certagent always runs as its reader's user",
    "agent-set-security-context": "certagent's is stricter; on OpenShift leave out its user",
    "agent-share-process-namespace": "istiod and gateways watch their files; nobody is signalled",
    "agent-enable-quit": "an init container ends by itself, a native sidecar with its pod",
    "agent-cache-enable": "one login serves all, and nothing is cached",
    "agent-cache-use-auto-auth-token": "istiod and gateways ask Vault nothing",
    "agent-cache-listener-port": "istiod and gateways ask Vault nothing",
    "agent-cache-exit-on-err": "nothing is cached",
    "agent-auto-auth-exit-on-err": "init fails at its deadline, run keeps what was good",
    "agent-disable-idle-connections": "one connection, while there is something to ask",
    "agent-disable-keep-alives": "one connection, while there is something to ask",
    "agent-telemetry-KEY": "/metrics, for Prometheus, on port 9089",
    "auth-min-backoff": "1 s, doubled up to the poll interval, with jitter; Retry-After",
    "auth-max-backoff": "1 s, doubled up to the poll interval, with jitter; Retry-After",
    "client-max-retries": "1 s, doubled up to the poll interval, with jitter; Retry-After",
    "error-on-missing-key-NAME": "a field that is missing always refuses the set",
    "template-config-exit-on-retry-failure": "init fails at its deadline, run keeps what was good",
    "template-max-connections-per-host": "one connection is all there is",
    "template-lease-renewal-threshold": "a secret is polled, also in KV v1: no lease is waited for",
    "go-max-procs": "no Go runtime",
}

REFUSED: Mapping[str, str] = {
    "agent-inject-template-file-NAME": "the template is in a container: give its text"
    " in agent-inject-template-NAME",
    "agent-inject-command-NAME": "istiod and gateways watch their files; for anything else write"
    " a hook (exec, signal, http)",
    "agent-inject-token": "certagent never hands out its Vault token",
    "agent-configmap": "the agent's own configuration is not in the annotations",
    "agent-copy-volume-mounts": "the overlay does not know the other container's mounts: mount in"
    " certagent what it needs",
    "agent-json-patch": "a patch of vault-agent's container fits no other: edit the overlay",
    "agent-init-json-patch": "a patch of vault-agent's container fits no other: edit the overlay",
    "tls-skip-verify": "certagent always verifies: give Vault's CA in ca-cert",
    "tls-server-name": "Vault's certificate must name the host of its address",
    "ca-key": "it names a directory of CAs (vault-k8s writes it to ca_path): give one file"
    " in ca-cert",
}

TABLE: Mapping[str, tuple[Fate, str]] = {
    notation: (fate, reason)
    for fate, rows in zip(Fate, (MAPPED, UNNECESSARY, REFUSED), strict=True)
    for notation, reason in rows.items()
}

TRUTHS = frozenset(
    {
        "agent-inject",
        "agent-inject-token",
        "agent-init-first",
        "agent-pre-populate",
        "agent-pre-populate-only",
        "agent-revoke-on-shutdown",
        "agent-run-as-same-user",
        "agent-set-security-context",
        "agent-share-process-namespace",
        "agent-enable-quit",
        "agent-cache-enable",
        "agent-cache-exit-on-err",
        "agent-auto-auth-exit-on-err",
        "error-on-missing-key",
        "preserve-secret-case",
        "template-config-exit-on-retry-failure",
        "tls-skip-verify",
    }
)
_TRUE = {"true", "t", "1"}
_FALSE = {"false", "f", "0"}


@dataclass(frozen=True, slots=True)
class Annotation:
    """One that was given: its row of the table, the name after it (or ""), and its value."""

    notation: str
    suffix: str
    value: str

    @property
    def base(self) -> str:
        """Its name without a suffix."""
        return _base(self.notation)

    @property
    def name(self) -> str:
        """Its name as it was given, without the prefix."""
        return f"{self.base}-{self.suffix}" if self.suffix else self.base

    @property
    def fate(self) -> Fate:
        """What becomes of it; one that asks for nothing is never refused."""
        fate, _ = TABLE[self.notation]
        asks = self.value not in {"", *(_FALSE if self.base in TRUTHS else ())}
        return Fate.UNNECESSARY if fate is Fate.REFUSED and not asks else fate

    @property
    def reason(self) -> str:
        """What it is mapped to, or why it is not needed, or refused."""
        return TABLE[self.notation][1]


class Annotations:
    """All that were given at one place, each known and of the right shape.

    Raises `ConfigurationError` with every one that is not, or that is refused.
    """

    def __init__(self, given: Mapping[str, object]) -> None:
        faults: list[str] = []
        known: list[Annotation] = []
        for key, value in given.items():
            if not key.startswith(PREFIX) or value is None:
                continue  # with null, Helm takes a value out
            try:
                known.append(_annotation(key.removeprefix(PREFIX), value))
            except ValueError as error:
                faults.append(str(error))
        self.all = tuple(known)
        faults += [f"{each.name}: {each.reason}" for each in known if each.fate is Fate.REFUSED]
        if faults:
            raise not_convertible(faults)
        self._values = {each.name: each.value for each in known}
        self._suffixed: dict[str, dict[str, str]] = {}
        for each in known:
            if each.value:
                self._suffixed.setdefault(each.base, {})[each.suffix] = each.value

    def __getitem__(self, name: str) -> str:
        """Return a value; one that was not given is empty, as it is for the injector."""
        return self._values.get(name, "")

    def is_true(self, name: str, *, default: bool = False) -> bool:
        """Return a truth, or what the injector takes where none is given."""
        return truth(self[name]) if self[name] else default

    def of(self, base: str) -> Mapping[str, str]:
        """Return the values of a name with suffixes, by suffix; the one for all is at ""."""
        return self._suffixed.get(base, {})


def truth(value: str) -> bool:
    """Return what a truth says, as Go reads it."""
    return value.lower() in _TRUE


def not_convertible(faults: Sequence[str]) -> ConfigurationError:
    """Return the error that lists all reasons why annotations cannot be migrated."""
    return ConfigurationError(
        f"The annotations cannot be migrated as they are ({len(faults)}"
        f" fault{'s' if len(faults) > 1 else ''}):",
        tuple(faults),
        hint="Change these, or take out what the mesh can do without, and run it again.",
    )


def _annotation(name: str, value: object) -> Annotation:
    """Return an annotation's row; raises `ValueError` with what is wrong."""
    notation, suffix = look_up(name)
    # Kubernetes takes text alone; Helm's chart quotes what values leave bare.
    if isinstance(value, bool | int):
        value = str(value).lower()
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text, got {type(value).__name__}")  # noqa: TRY004 - caught as one
    base = _base(notation)
    if base in TRUTHS and value.lower() not in _TRUE | _FALSE | {""}:
        raise ValueError(f"{name}: expected true or false, got {value[:40]!r}")
    return Annotation(notation, suffix, value)


def look_up(name: str) -> tuple[str, str]:
    """Return the table's row of an annotation, and its suffix; the longest name counts.

    Raises `ValueError` where the injector knows none of this name.
    """
    for notation in TABLE:
        if name == notation.replace("[-NAME]", ""):
            return notation, ""
    suffixed = [each for each in TABLE if each != _base(each)]
    for notation in sorted(suffixed, key=len, reverse=True):
        before, _, suffix = name.partition(f"{_base(notation)}-")
        if not before and suffix:
            return notation, suffix
    near = difflib.get_close_matches(name, TABLE, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"{name[:80]}: vault-agent's injector knows no such annotation{meant}")


def _base(notation: str) -> str:
    for tail in ("[-NAME]", "-NAME", "-KEY"):
        notation = notation.removesuffix(tail)
    return notation
