"""A SOURCE on the command line: opened with the operator's login, and the policy it is planned by.

An operator needs no output directory; what else an agent's configuration says holds for him too.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from certagent.cli.options import asked_kind
from certagent.cli.rules import kind as kind_of
from certagent.cli.rules import pins, policy
from certagent.config.clouds import vault_name
from certagent.config.decoding import load, parse_source
from certagent.config.model import BundleConfig, SourceConfig, TokenAuth
from certagent.config.settings import SETTINGS
from certagent.errors import ConfigurationError, UsageError
from certagent.material.kinds import CA
from certagent.runtime.logs import conceal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from certagent.config.model import AzureConfig, Config
    from certagent.config.model import VaultKVSource as VaultKVSourceConfig
    from certagent.material.history import Policy
    from certagent.material.kinds import Kind
    from certagent.sources import Source
    from certagent.sources.azure import AzureConnection
    from certagent.sources.vault.connection import VaultConnection
    from certagent.sources.vault.writing import VaultKVStore

_LOGIN = "An operator logs in with VAULT_TOKEN at VAULT_ADDR, or as the configuration says."
_NOWHERE = "/"  # an output that is never opened


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

    source: VaultKVStore


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add SOURCE to a verb that writes."""
    parser.add_argument(
        "source", metavar="SOURCE", help="vault:<mount>/<path>, as in CERTAGENT_SOURCE"
    )


@contextmanager
def writable(arguments: argparse.Namespace) -> Iterator[WritablePlace]:
    """Open SOURCE for writing, and give the login back at the end.

    Its kind is that of the configuration's bundle, unless the flags of a verb ask for another.
    Raises `UsageError` for a SOURCE that cannot be written to, and `ConfigurationError`.
    """
    wanted = _parsed(arguments.source)
    if wanted.azure_key_vault:
        raise UsageError(
            f"{arguments.source} cannot be written to by certagent.",
            hint="Store the parts with `az keyvault secret set`.",
        )
    if not wanted.vault_kv:
        raise UsageError(
            f"{arguments.source} is a directory: there is no store to write to.",
            hint="Give vault:<mount>/<path>. To publish into a directory, use `certagent init`.",
        )
    config = _config(arguments.config, arguments.source)
    bundle = _bundle(config, wanted)
    with _connected(config) as connection:
        from certagent.sources.vault.writing import VaultKVStore  # noqa: PLC0415 - not for plan

        assert bundle.source.vault_kv  # noqa: S101 - as `wanted` has
        asked = asked_kind(arguments) if "kind" in arguments else None
        kind = asked or kind_of(bundle.kind, bundle.usage)
        store = VaultKVStore(connection, bundle.source.vault_kv, kind)
        yield WritablePlace(bundle.name, store, policy(config, kind), pins(config), kind)


@contextmanager
def readable(arguments: argparse.Namespace) -> Iterator[list[Place]]:
    """Open SOURCE, or without one every source of the configuration."""
    wanted = _parsed(arguments.source) if arguments.source else None
    config = _config(arguments.config, arguments.source)
    if wanted and wanted.azure_key_vault and config.azure:
        _require_vault(config.azure, arguments.source)
    bundles = [_bundle(config, wanted)] if wanted else list(config.bundles)
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


def _require_vault(azure: AzureConfig, source: str) -> None:
    """Refuse a SOURCE in another vault than the configuration logs in to."""
    if f"azure:{vault_name(azure.vault_url)}" != source.lower():
        raise UsageError(
            f"SOURCE is {source}, and the configuration's vault is {azure.vault_url}.",
            hint="Leave SOURCE or --config out.",
        )


def _parsed(source: str) -> SourceConfig:
    try:
        return msgspec.convert(parse_source(source), SourceConfig)
    except ValueError as error:
        raise UsageError(f"SOURCE: {error}.") from None


def _config(path: str | None, source: str | None) -> Config:
    """Decode the configuration as an agent would; without a file, SOURCE is its one bundle.

    VAULT_TOKEN is the operator's own, so it wins over the login that the agent is configured for.
    """
    environ = dict(os.environ)
    if environ.get("VAULT_TOKEN"):
        for setting in SETTINGS:
            if setting.path[:2] == ("vault", "auth"):
                environ.pop(setting.variable, None)
    if source and not path:
        environ["CERTAGENT_SOURCE"] = source
    if not path:
        environ.setdefault("ROOT_CA_DIR", _NOWHERE)
    try:
        config = load(path, environ)
    except ConfigurationError as error:
        error.hint = error.hint or _LOGIN
        raise
    if config.vault and environ.get("VAULT_TOKEN"):
        vault = msgspec.structs.replace(config.vault, auth=TokenAuth())
        config = msgspec.structs.replace(config, vault=vault)
    return config


def _bundle(config: Config, wanted: SourceConfig) -> BundleConfig:
    """Return the bundle of this source, whose field names may be its own; or a plain one."""
    for bundle in config.bundles:
        ours, theirs = wanted.vault_kv, bundle.source.vault_kv
        if ours and theirs and _where(ours) == _where(theirs):
            return bundle
        azure = bundle.source.azure_key_vault
        if wanted.azure_key_vault and azure and not (azure.certificate or azure.secret):
            return bundle
    return msgspec.structs.replace(
        config.bundles[0], name="", source=wanted, kind="ca", usage=msgspec.UNSET
    )


def _where(kv: VaultKVSourceConfig) -> tuple[str, str]:
    return kv.mount.strip("/"), kv.path.strip("/")


@contextmanager
def _connected(config: Config) -> Iterator[VaultConnection]:
    from certagent.sources.vault import VaultConnection  # noqa: PLC0415 - not for directories

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
        from certagent.sources.vault import VaultKVSource  # noqa: PLC0415 - not for directories

        source = VaultKVSource(vault, bundle.source.vault_kv, kind)
    elif bundle.source.azure_key_vault and azure:
        from certagent.sources.azure import KeyVaultSource  # noqa: PLC0415 - only for Azure

        source = KeyVaultSource(azure, bundle.source.azure_key_vault, kind)
    else:
        from certagent.sources.files import DirectorySource  # noqa: PLC0415 - not for Vault

        assert bundle.source.files  # noqa: S101 - the decoder takes exactly one of the three
        source = DirectorySource(bundle.source.files.directory, kind)
    return Place(bundle.name, source, policy(config, kind), pins(config), kind)
