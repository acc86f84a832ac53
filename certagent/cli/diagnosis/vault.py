"""Vault: the login, and what its policies let the login see."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from certagent.cli.diagnosis import credential, material, server
from certagent.cli.diagnosis.result import About, attempt
from certagent.cli.diagnosis.steps import LOGIN, READ, Steps, in_turn
from certagent.cli.rules import kind
from certagent.config.model import AppRoleAuth, TokenAuth, seconds
from certagent.runtime.logs import conceal
from certagent.sources.credentials import read_credential
from certagent.sources.http.failures import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from certagent.cli.diagnosis.mounts import Mount
    from certagent.cli.diagnosis.result import Result
    from certagent.config.model import BundleConfig, Config, VaultConfig
    from certagent.sources.vault.client import VaultClient, VaultRefused
    from certagent.sources.vault.connection import VaultConnection
    from certagent.sources.vault.writing import VaultKVStore

_FEW_VERSIONS = 10
_ANYTHING = ("root", "sudo")


def results(
    config: Config,
    now: datetime,
    table: tuple[Mount, ...],
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Result]:
    """Yield what there is to say of Vault, if the configuration has bundles from there.

    `stopping` tells that nothing more is to be asked; raises `Stopping` then.
    """
    bundles = [each for each in config.bundles if each.source.vault_kv or each.source.vault_pki]
    if not bundles or not config.vault:
        return
    from certagent.sources.vault.connection import VaultConnection  # noqa: PLC0415 - only for Vault

    token = os.environ.get("VAULT_TOKEN", "")
    connection = VaultConnection(
        config.vault, environment_token=token, conceal=conceal, stopping=stopping
    )
    with closing(connection):
        yield from in_turn(
            Steps(
                credential.of_vault(config.vault.auth, token, now, table),
                server.vault(config.vault, server.limit(config)),
                _login(connection, config.vault, seconds(config.refresh.interval)),
                {each.name: _bundle(each, connection, config, now) for each in bundles},
            )
        )


def _login(connection: VaultConnection, config: VaultConfig, interval: float) -> Iterator[Result]:
    """Log in as the agent does, and tell what Vault says of the token (auth/token/lookup-self)."""
    auth = config.auth
    if isinstance(auth, AppRoleAuth) and auth.secret_id_wrapped:
        yield from _wrapped(config, auth)
        return
    given = isinstance(auth, TokenAuth)
    whom = "with the token that was given" if isinstance(auth, TokenAuth) else f"at {auth.mount!r}"
    role = getattr(auth, "role", "")
    whom += f" as role {role!r}" if role else ""
    answer = _asked(connection, lambda client: client.api.auth.token.lookup_self())
    if not isinstance(answer, dict):
        if given:
            yield LOGIN.warning(
                f"Vault tells nothing of the token ({answer.answer}).",
                "If it is not valid any more, nothing can be read with it; else its policies lack"
                " `default`.",
            )
        else:
            yield LOGIN.ok(f"Vault takes the login {whom}.")
        return
    token = _told(answer)
    lease, policies = token.get("creation_ttl"), token.get("policies")
    lease = lease if isinstance(lease, int) else 0
    policies = policies if isinstance(policies, list) else []
    told = f"{timedelta(seconds=lease)} long" if lease else "without an end"
    shown = one_line(", ".join(map(str, policies)))
    yield LOGIN.ok(f"Vault takes the login {whom}, {told}, with the policies {shown}.")
    yield from _suspicious(token, policies, lease, interval, given=given)


def _suspicious(
    token: dict[str, Any], policies: Sequence[object], lease: int, interval: float, *, given: bool
) -> Iterator[Result]:
    """Yield what a token should not be."""
    if "root" in policies:
        yield LOGIN.warning(
            "It is a root token: it may do anything.",
            "Give the agent a login of its own, with a policy that reads its paths.",
        )
    if token.get("num_uses"):
        yield LOGIN.warning(
            f"It may be used {token['num_uses']} times more, and then no more.",
            "Set token_num_uses=0 on the role: each poll is a use.",
        )
    if lease and not given and lease * 2 / 3 < interval:
        yield LOGIN.warning(
            f"It ends so soon that every poll ({interval:g} s) needs a login.",
            "Set a longer token_ttl on the role, such as 1h.",
        )
    if lease and given:
        yield LOGIN.warning(
            f"It ends at {one_line(str(token.get('expire_time')))}, and certagent does not renew a"
            " token that it was given.",
            "Let something else renew it or the file, or configure a login.",
        )


def _wrapped(config: VaultConfig, auth: AppRoleAuth) -> Iterator[Result]:
    """Ask whether a wrapping token is still good (sys/wrapping/lookup): it unwraps only once."""
    from certagent.sources.vault.client import (  # noqa: PLC0415 - only for Vault
        VaultClient,
        VaultRefused,
        url_of,
    )

    wrapping_token = read_credential(auth.secret_id_file, "secret id")
    client = VaultClient(config, Counter(), conceal)
    try:
        with closing(client):
            client.post(url_of("sys/wrapping/lookup"), {"token": wrapping_token})
    except VaultRefused as refused:
        yield LOGIN.warning(
            f"The wrapping token in {auth.secret_id_file} is used up or has ended"
            f" ({refused.answer}).",
            "An agent that unwrapped it goes on with what was in it; another start needs a new one:"
            " wrap a secret id, and put its token there.",
        )
    yield LOGIN.skipped(
        "The secret id is wrapped, and to unwrap it, which works a single time, is the agent's:"
        " nothing that needs a login is looked at."
    )


def _bundle(
    bundle: BundleConfig, connection: VaultConnection, config: Config, now: datetime
) -> Iterator[Result]:
    if bundle.source.vault_pki:
        from certagent.cli.diagnosis import pki  # noqa: PLC0415 - only where certificates are issued

        yield from attempt(About("issuer", bundle.name), pki.results(bundle, connection, now))
    elif bundle.source.vault_kv:
        from certagent.sources.vault.writing import VaultKVStore  # noqa: PLC0415 - only for Vault

        of = kind(bundle.kind, bundle.usage)
        store = VaultKVStore(connection, bundle.source.vault_kv, of)
        read, engine = About(READ, bundle.name), About("engine", bundle.name)
        if (yield from attempt(read, material.stored(bundle, store, config, now))):
            yield from attempt(engine, _engine(engine, store, connection, bundle))
        elif bundle.source.vault_kv.path.strip("/").startswith("data/"):
            yield read.warning(
                f"The path {bundle.source.vault_kv.path!r} begins with data/, as KV v2's API and"
                " its policies have it.",
                "Leave data/ out of the path: certagent adds it where the mount is one of KV v2.",
            )


def _engine(
    about: About, store: VaultKVStore, connection: VaultConnection, bundle: BundleConfig
) -> Iterator[Result]:
    """Yield the version of the key-value engine, and how many versions of the secret it keeps."""
    if not store.keeps_history:
        yield about.ok("The mount is a key-value engine of version 1.")
        return
    kv = bundle.source.vault_kv
    assert kv  # noqa: S101 - the caller looked
    mount = kv.mount.strip("/")
    paths = (f"{mount}/config", f"{mount}/metadata/{kv.path.strip('/')}")
    told = "The mount is a key-value engine of version 2"
    # Without the permission it would be asked again with another login.
    may_look = all(may(connection, path, "read") for path in paths)
    retention = store.retention() if may_look else None
    if retention is None:
        yield about.ok(f"{told}; how many versions it keeps, the login may not look, nor need it.")
        return
    yield about.ok(f"{told}, which keeps {retention.max_versions} versions of the secret.")
    few = retention.max_versions is not None and retention.max_versions < _FEW_VERSIONS
    if few and kind(bundle.kind, bundle.usage).is_ca:
        yield about.warning(
            f"It keeps {retention.max_versions} versions only: pushes in a row cut the history.",
            "`vault kv metadata put -max-versions=20 …`.",
        )
    if retention.delete_after:
        yield about.warning(
            f"It deletes versions {retention.delete_after} after they were stored, and then nothing"
            " can be published.",
            "Set delete-version-after to 0s.",
        )


def may(connection: VaultConnection, path: str, capability: str) -> bool | None:
    """Return whether the login may do something (sys/capabilities-self); None: unknown."""
    answer = _asked(connection, lambda client: client.api.sys.get_capabilities([path]))
    if not isinstance(answer, dict):
        return None
    found = _told(answer).get(path)
    return isinstance(found, list) and any(each in found for each in (*_ANYTHING, capability))


def _told(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what an answer is about; nothing, where something else than Vault made it up."""
    data = answer.get("data", {})
    return data if isinstance(data, dict) else {}


def _asked(
    connection: VaultConnection, operation: Callable[[VaultClient], dict[str, Any]]
) -> dict[str, Any] | VaultRefused:
    """Return an answer, or the refusal: here it is an answer too, and no reason to log in anew."""
    from certagent.sources.vault.client import VaultRefused  # noqa: PLC0415 - only for Vault

    def patiently(client: VaultClient) -> dict[str, Any] | VaultRefused:
        try:
            return operation(client)
        except VaultRefused as refused:
            return refused

    return connection.call(patiently)
