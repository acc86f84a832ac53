"""A SOURCE on the command line: opened with the operator's login, and the policy it is planned by.

An operator needs no output directory; what else an agent's configuration says holds for him too.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from certagent.cli.choosing import bundles_at, configured, one_of, parsed, require_vault
from certagent.cli.options import asked_kind
from certagent.cli.rules import kind as kind_of
from certagent.cli.rules import pins, policy
from certagent.errors import ConfigurationError, UsageError
from certagent.material.kinds import CA
from certagent.runtime.logs import conceal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from certagent.config.model import BundleConfig, Config
    from certagent.material.history import Policy
    from certagent.material.kinds import Kind
    from certagent.sources import Source
    from certagent.sources.azure import AzureConnection
    from certagent.sources.vault.connection import VaultConnection
    from certagent.sources.vault.writing import VaultKVStore
    from certagent.sources.writing import Store


@dataclass(frozen=True, slots=True)
class Place:
    """A source, its bundle's name and kind, and how a change of its roots is staged.

    `pins` are the SHA-256 (hex) of the roots that may be trusted; none means any.
    """

    name: str
    source: Source
    policy: Policy
    pins: frozenset[str]
    kind: Kind = CA


@dataclass(frozen=True, slots=True)
class WritablePlace(Place):
    """A place whose source can be written to."""

    source: Store


@dataclass(frozen=True, slots=True)
class DestructiblePlace(Place):
    """A place whose source can destroy versions for ever."""

    source: VaultKVStore


def add_source(parser: argparse.ArgumentParser, stores: str) -> None:
    """Add SOURCE to a verb that writes to these stores, and which of its bundles is meant."""
    parser.add_argument("source", metavar="SOURCE", help=f"{stores}, as in CERTAGENT_SOURCE")
    parser.add_argument(
        "--bundle",
        metavar="NAME",
        help="which bundle of the configuration, where SOURCE holds several",
    )


@contextmanager
def writable(arguments: argparse.Namespace) -> Iterator[WritablePlace]:
    """Open SOURCE for writing, and give the login back at the end.

    Its kind is that of the configuration's bundle, unless the flags of a verb ask for another.
    Raises `UsageError` for a SOURCE that cannot be written to, and `ConfigurationError`.
    """
    config, bundle, kind = _wanted(arguments)
    store: Store
    if bundle.source.vault_kv:
        with _connected(config) as vault:
            from certagent.sources.vault.writing import VaultKVStore  # noqa: PLC0415 - not for plan

            store = VaultKVStore(vault, bundle.source.vault_kv, kind)
            yield WritablePlace(bundle.name, store, policy(config, kind), pins(config), kind)
        return
    assert bundle.source.azure_key_vault  # noqa: S101 - `_wanted` refuses a directory
    with _connected_to_azure(config) as azure:
        from certagent.sources.azure.writing import KeyVaultStore  # noqa: PLC0415 - only for Azure

        store = KeyVaultStore(azure, bundle.source.azure_key_vault, kind)
        yield WritablePlace(bundle.name, store, policy(config, kind), pins(config), kind)


@contextmanager
def destructible(arguments: argparse.Namespace) -> Iterator[DestructiblePlace]:
    """Open SOURCE to destroy versions; raises as `writable` does, and for a Key Vault."""
    if parsed(arguments.source).azure_key_vault:
        raise UsageError(
            f"{arguments.source} is a Key Vault, which cannot destroy one version of a secret.",
            hint="A version can be disabled (az keyvault secret set-attributes --enabled false)"
            " once `certagent plan` shows\nthat no phase is open: while a change of roots counts on"
            " it, this ends the trust in all that it signed.",
        )
    config, bundle, kind = _wanted(arguments)
    assert bundle.source.vault_kv  # noqa: S101 - `_wanted` refuses a directory
    with _connected(config) as vault:
        from certagent.sources.vault.writing import VaultKVStore  # noqa: PLC0415 - not for plan

        store = VaultKVStore(vault, bundle.source.vault_kv, kind)
        yield DestructiblePlace(bundle.name, store, policy(config, kind), pins(config), kind)


def _wanted(arguments: argparse.Namespace) -> tuple[Config, BundleConfig, Kind]:
    """Return what is to be written to, and as what kind."""
    wanted = parsed(arguments.source)
    if wanted.files:
        raise UsageError(
            f"{arguments.source} is a directory: there is no store to write to.",
            hint="Give vault:<mount>/<path> or azure:<vault name>. To publish into a directory, use"
            " `certagent init`.",
        )
    asked = asked_kind(arguments) if "kind" in arguments else None
    config = configured(arguments.config, arguments.source)
    if wanted.azure_key_vault and config.azure:
        require_vault(config.azure, arguments.source)
    bundle = one_of(bundles_at(config, wanted), arguments.bundle, asked)
    azure = bundle.source.azure_key_vault
    if azure and azure.certificate:
        raise UsageError(
            f"{arguments.source} is a certificate object, which is not written as a secret.",
            hint="Key Vault issues it, or takes it with `az keyvault certificate import`; its roots"
            " are a secret of\ntheir own.",
        )
    return config, bundle, asked or kind_of(bundle.kind, bundle.usage)


@contextmanager
def readable(arguments: argparse.Namespace) -> Iterator[list[Place]]:
    """Open SOURCE, or without one every source of the configuration."""
    wanted = parsed(arguments.source) if arguments.source else None
    config = configured(arguments.config, arguments.source)
    if wanted and wanted.azure_key_vault and config.azure:
        require_vault(config.azure, arguments.source)
    bundles = bundles_at(config, wanted) if wanted else list(config.bundles)
    if issued := [bundle.name for bundle in bundles if bundle.source.vault_pki]:
        raise UsageError(
            f"{', '.join(issued)}: Vault issues a certificate to each pod, and stores no history.",
            hint="To look would mean to have one signed. `certagent status` shows what is"
            " published,\nand `vault list <mount>/issuers` what comes; a SOURCE is planned alone.",
        )
    with ExitStack() as stack:
        vault = azure = None
        if any(bundle.source.vault_kv for bundle in bundles):
            vault = stack.enter_context(_connected(config))
        if any(bundle.source.azure_key_vault for bundle in bundles):
            azure = stack.enter_context(_connected_to_azure(config))
        yield [_place(bundle, config, vault, azure) for bundle in bundles]


@contextmanager
def _connected(config: Config) -> Iterator[VaultConnection]:
    from certagent.sources.vault.connection import VaultConnection  # noqa: PLC0415 - not for directories

    if not config.vault:
        raise ConfigurationError(
            "The configuration names no Vault.",
            hint="Give vault.address in the file; or leave --config out, and set VAULT_ADDR.",
        )
    connection = VaultConnection(
        config.vault, environment_token=os.environ.get("VAULT_TOKEN", ""), conceal=conceal
    )
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _connected_to_azure(config: Config) -> Iterator[AzureConnection]:
    from certagent.sources.azure import AzureConnection  # noqa: PLC0415 - only for Azure

    if not config.azure:
        raise ConfigurationError(
            "The configuration names no Key Vault.",
            hint="Give azure.vaultUrl in the file; or leave --config out.",
        )
    connection = AzureConnection(config.azure, conceal=conceal)
    try:
        yield connection
    finally:
        connection.close()


def _place(
    bundle: BundleConfig,
    config: Config,
    vault: VaultConnection | None,
    azure: AzureConnection | None,
) -> Place:
    source: Source
    kind = kind_of(bundle.kind, bundle.usage)
    if bundle.source.vault_kv and vault:
        from certagent.sources.vault.kv import VaultKVSource  # noqa: PLC0415 - not for directories

        source = VaultKVSource(vault, bundle.source.vault_kv, kind)
    elif bundle.source.azure_key_vault and azure:
        from certagent.sources.azure import KeyVaultSource  # noqa: PLC0415 - only for Azure

        source = KeyVaultSource(azure, bundle.source.azure_key_vault, kind)
    else:
        from certagent.sources.files import DirectorySource  # noqa: PLC0415 - not for Vault

        assert bundle.source.files  # noqa: S101 - the decoder takes exactly one of the three
        source = DirectorySource(bundle.source.files.directory, kind)
    return Place(bundle.name, source, policy(config, kind), pins(config), kind)
