"""Azure Key Vault: the token, and whether secrets may be read and their versions listed."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from certagent.cli.diagnosis import credential, material, server
from certagent.cli.diagnosis.result import About, attempt
from certagent.cli.diagnosis.steps import LOGIN, READ, Steps, in_turn
from certagent.cli.rules import kind
from certagent.errors import AccessDenied
from certagent.runtime.logs import conceal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from azure.keyvault.secrets import SecretClient

    from certagent.cli.diagnosis.mounts import Mount
    from certagent.cli.diagnosis.result import Result
    from certagent.config.model import AzureConfig, BundleConfig, Config
    from certagent.sources.azure import AzureConnection

_UNAUTHORIZED, _NOT_FOUND = 401, 404


def results(
    config: Config,
    now: datetime,
    table: tuple[Mount, ...],
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Result]:
    """Yield what there is to say of Key Vault, if the configuration has bundles from there.

    `stopping` tells that nothing more is to be asked; raises `Stopping` then.
    """
    bundles = [each for each in config.bundles if each.source.azure_key_vault]
    if not bundles or not config.azure:
        return
    from certagent.sources.azure import AzureConnection  # noqa: PLC0415 - only for Azure

    connection = AzureConnection(config.azure, conceal=conceal, stopping=stopping)
    with closing(connection):
        yield from in_turn(
            Steps(
                credential.of_azure(config.azure.login, now, table),
                server.azure(config.azure, server.limit(config)),
                _login(connection, config.azure, _secrets(bundles[0])[0]),
                {each.name: _bundle(each, connection, config, now) for each in bundles},
            )
        )


def _secrets(bundle: BundleConfig) -> tuple[str, ...]:
    """Return the names of the secrets that a bundle is read from."""
    from certagent.sources.azure.contents import form_of  # noqa: PLC0415 - only for Azure

    source = bundle.source.azure_key_vault
    assert source  # noqa: S101 - the caller looked
    return form_of(source, kind(bundle.kind, bundle.usage)).secrets


def _first_version(secret: str) -> Callable[[SecretClient], object]:
    """Return the operation that lists versions, and takes no more than a page of them."""
    return lambda client: next(iter(client.list_properties_of_secret_versions(secret)), None)


def _login(connection: AzureConnection, config: AzureConfig, secret: str) -> Iterator[Result]:
    """Have a token issued, as the first request to the vault does, whatever it is answered."""
    from certagent.sources.azure.credentials import describe  # noqa: PLC0415 - only for Azure
    from certagent.sources.azure.failures import AzureRefused  # noqa: PLC0415 - likewise

    try:
        connection.call(_first_version(secret))
    except AzureRefused as refused:
        if refused.status == _UNAUTHORIZED:
            raise AccessDenied(
                f"Key Vault does not take the token for {describe(config)} ({refused.answer}).",
                hint="Is the vault in the tenant of azure.credential, and in azure.cloud?",
            ) from refused
        # The token was taken; what it permits, each bundle's check says.
    yield LOGIN.ok(f"There is a token for {describe(config)}, and the vault takes it.")


def _bundle(
    bundle: BundleConfig, connection: AzureConnection, config: Config, now: datetime
) -> Iterator[Result]:
    from certagent.sources.azure import KeyVaultSource  # noqa: PLC0415 - only for Azure

    source = bundle.source.azure_key_vault
    assert source  # noqa: S101 - the caller looked
    of = kind(bundle.kind, bundle.usage)
    lists = About("list", bundle.name)
    yield from attempt(lists, _listing(lists, bundle, connection))
    stored = material.stored(bundle, KeyVaultSource(connection, source, of), config, now)
    yield from attempt(About(READ, bundle.name), stored)


def _listing(about: About, bundle: BundleConfig, connection: AzureConnection) -> Iterator[Result]:
    """Yield whether the versions of all secrets may be listed; a role may be for some of them."""
    from certagent.sources.azure.failures import AzureRefused  # noqa: PLC0415 - only for Azure

    for secret in _secrets(bundle):
        try:
            connection.call(_first_version(secret))
        except AzureRefused as refused:
            if refused.status == _NOT_FOUND:
                continue  # to read it says so too
            yield about.warning(
                f"The login may not list the versions of {secret!r} ({refused.answer}): there is no"
                " history to stage a new root by, or to go back to.",
                "Give the identity the role Key Vault Secrets User on the vault or, with access"
                " policies, the secret permission List.",
            )
            return
    yield about.ok("The login may list the versions of every secret.")
