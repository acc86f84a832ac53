"""Vault's PKI: who signs there and how long, and whether it may be asked to; nothing is signed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from certagent.cli.diagnosis.result import About, attempt
from certagent.cli.diagnosis.vault import may
from certagent.cli.show import days_left
from certagent.errors import AccessDenied, SecretNotFound
from certagent.sources.vault.client import VaultRefused, url_of
from certagent.sources.vault.pki.engine import Engine
from certagent.sources.vault.pki.issuers import DEFAULT, Issuers
from certagent.sources.vault.pki.signing import Signing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from certagent.cli.diagnosis.result import Result
    from certagent.config.model import BundleConfig
    from certagent.sources.vault.connection import VaultConnection
    from certagent.sources.vault.pki.issuers import Mount

_NOT_FOUND = 404


def results(bundle: BundleConfig, connection: VaultConnection, now: datetime) -> Iterator[Result]:
    """Yield what there is to say of a mount; raises what `Source.revisions` raises."""
    config = bundle.source.vault_pki
    assert config  # noqa: S101 - the caller looked
    issuer, sign = About("issuer", bundle.name), About("sign", bundle.name)
    engine = Engine(connection, config.mount, f"vault-pki:{config.mount}")
    mount = Issuers(engine, config.issuer or DEFAULT).read(now)
    left = days_left(mount.current.not_after, now)
    yield issuer.ok(
        f"{mount.current.shown} signs in {engine.mount!r}, {left}; the roots of its issuers, which"
        f" are published: {len(mount.roots)}."
    )
    signing = Signing(engine, config, lambda: 0.0)
    if error := signing.expires_sooner(mount.current, now):
        yield issuer.failure(error)
    path = signing.path(mount.current, current=True)
    yield from attempt(sign, _permission(sign, connection, engine, path))
    if config.role:
        role = About("role", bundle.name)
        yield from attempt(role, _role(role, connection, engine, config.role))
    elif not config.issuer:
        yield from _changing(sign, connection, engine, mount, signing)


def _permission(
    about: About, connection: VaultConnection, engine: Engine, path: str
) -> Iterator[Result]:
    """Yield that the login may have something signed; raises `AccessDenied`."""
    where = f"{engine.mount}/{path}"
    allowed = may(connection, where, "update")
    if allowed is None:
        yield about.skipped(f"Vault does not tell whether the login may sign at {where}.")
    elif allowed:
        yield about.ok(f"The login may sign at {where}; nothing was signed.")
    else:
        raise AccessDenied(
            f"The login may not sign at {where}.",
            hint=f'A policy of the login must allow "update" on "{where}".',
        )


def _changing(
    about: About, connection: VaultConnection, engine: Engine, mount: Mount, signing: Signing
) -> Iterator[Result]:
    """Yield a warning where the login may not ask an issuer by its id.

    While a new default's root is distributed, the one before goes on to sign.
    """
    for issuer in mount.issuers:
        where = f"{engine.mount}/{signing.path(issuer, current=False)}"
        if may(connection, where, "update") is False:
            yield about.warning(
                f"The login may not sign at {where}, as is needed while that issuer is replaced.",
                f'Allow "update" on "{engine.mount}/issuer/+/sign-intermediate".',
            )
            return


def _role(about: About, connection: VaultConnection, engine: Engine, role: str) -> Iterator[Result]:
    """Yield whether a role exists, where the login may look; an agent need not be allowed to."""
    path = f"{engine.mount}/roles/{role}"
    if not may(connection, path, "read"):
        yield about.skipped(f"The login may not look at the role {role!r}: it need not.")
        return
    try:
        connection.call(lambda client: client.get(url_of(path)))
    except VaultRefused as refused:
        if refused.status != _NOT_FOUND:
            raise AccessDenied(f"Vault refused to read {path} ({refused.answer}).") from refused
        raise SecretNotFound(
            f"There is no role {role!r} in the mount {engine.mount!r}.",
            hint=f"Correct the source's role, or create it: `vault write {path} …`.",
        ) from refused
    yield about.ok(f"The role {role!r} exists.")
