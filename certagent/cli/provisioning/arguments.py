"""From the command line of `certagent vault setup` to what it is to make.

Names and paths become parts of policies and of shell commands, so each is held against a pattern.
Every function raises `UsageError`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from certagent.cli.provisioning.keys import public_keys
from certagent.cli.provisioning.steps import Access, IssuerTrust, KeysTrust, ReviewTrust
from certagent.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from certagent.cli.provisioning.steps import Trust

PLACEHOLDER = "{cluster}"
"""Stands for each cluster's name in files and URLs."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
_PATH = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*", re.ASCII)
"""No `*` and no `+`: in a policy these are other people's secrets."""

_ACCOUNT = re.compile(r"([a-z0-9-]{1,63})/([a-z0-9.-]{1,253})", re.ASCII)
_URL = re.compile(r"https://[^\s'\"@?#]+", re.ASCII)
_AUDIENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*", re.ASCII)
_TTL = re.compile(r"[1-9][0-9]{0,5}[smh]", re.ASCII)
_MAX_BYTES = 1 << 20
_EXPECTED = {
    "--role": "Use letters, digits, dots, dashes and underscores, 63 at most.",
    "--path": "A policy is to read one path: no wildcards, and no slash at the ends.",
    "--ttl": "Give a length of time such as 30m or 1h.",
    "--audience": "It is one name, such as vault.",
}


def access(arguments: argparse.Namespace) -> Access:
    """Return who may read what."""
    account = _ACCOUNT.fullmatch(arguments.service_account)
    if not account:
        raise UsageError("--service-account: expected NAMESPACE/NAME, such as istio-system/istiod.")
    for flag, pattern, value in (
        ("--role", _NAME, arguments.role),
        ("--path", _PATH, arguments.path),
        ("--ttl", _TTL, arguments.ttl),
        ("--audience", _AUDIENCE, arguments.audience or "vault"),
    ):
        if not pattern.fullmatch(value):
            raise UsageError(f"{flag}: {value[:60]!r} cannot be one.", hint=_EXPECTED[flag])
    return Access(
        arguments.role,
        account[1],
        account[2],
        arguments.path,
        arguments.kv_version,
        arguments.ttl,
    )


def trusts(arguments: argparse.Namespace) -> dict[str, Trust]:
    """Return how Vault knows each cluster's tokens: each has tokens of its own."""
    names: list[str] = arguments.cluster
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name[:60]!r} cannot be a cluster's name: mounts are named after it.",
                hint=_EXPECTED["--role"],
            )
    if len({name.lower() for name in names}) < len(names):
        raise UsageError(
            "A cluster is named twice: Vault's policies know no capital letters.",
            hint="Name each cluster once.",
        )
    known = {name: _trust(arguments, name) for name in names}
    if len(set(known.values())) < len(known):
        raise UsageError(
            "Two clusters would trust the same tokens, and each could read the other's CA.",
            hint=f"Write {PLACEHOLDER} where the name stands, as in --keys {PLACEHOLDER}.jwks, with"
            " what each cluster says of itself.",
        )
    return known


def _trust(arguments: argparse.Namespace, cluster: str) -> Trust:
    """Return how Vault knows this cluster's tokens."""
    issuer, host = (_url(arguments, flag, cluster) for flag in ("issuer", "kubernetes_host"))
    keys, issuer_ca, kubernetes_ca = arguments.keys, arguments.issuer_ca, arguments.kubernetes_ca
    if host and not (issuer or keys or issuer_ca):
        ca = _file(kubernetes_ca, "--kubernetes-ca", cluster)
        return ReviewTrust(host, arguments.audience or "", ca)
    audience = arguments.audience or "vault"
    if keys and not (host or kubernetes_ca or issuer_ca):
        try:
            return KeysTrust(public_keys(_file(keys, "--keys", cluster)), audience, issuer)
        except ValueError as error:
            raise UsageError(
                f"--keys: {_placed(keys, cluster)}: {error}.",
                hint="Make it with `kubectl get --raw /openid/v1/jwks`.",
            ) from None
    if issuer and not (host or kubernetes_ca or keys):
        return IssuerTrust(issuer, audience, _file(issuer_ca, "--issuer-ca", cluster))
    raise UsageError(
        "Vault knows a cluster's tokens by its issuer, or by asking the cluster: give one.",
        hint="--issuer URL where Vault can reach it, --keys FILE where it cannot, or\n"
        "--kubernetes-host URL with --kubernetes-ca FILE.",
    )


def _url(arguments: argparse.Namespace, name: str, cluster: str) -> str:
    url = _placed(getattr(arguments, name) or "", cluster)
    if url and not _URL.fullmatch(url):
        raise UsageError(f"--{name.replace('_', '-')}: expected https://HOST…, got {url[:80]!r}.")
    return url


def _file(path: str | None, flag: str, cluster: str) -> str:
    if not path:
        return ""
    path = _placed(path, cluster)
    try:
        with Path(path).open("rb") as file:
            return file.read(_MAX_BYTES).decode()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"{flag}: {path} cannot be read: {why}.") from None


def _placed(text: str, cluster: str) -> str:
    return text.replace(PLACEHOLDER, cluster)
