"""Which bundle a SOURCE on the command line means, and with which login it is opened."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from certagent.config.clouds import vault_name
from certagent.config.decoding import load, parse_source
from certagent.config.model import SourceConfig, TokenAuth
from certagent.config.settings import SETTINGS
from certagent.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from certagent.config.model import AzureConfig, BundleConfig, Config
    from certagent.config.model import VaultKVSource as VaultKVSourceConfig
    from certagent.material.kinds import Kind

_LOGIN = "An operator logs in with VAULT_TOKEN at VAULT_ADDR, or as the configuration says."
_NOWHERE = "/"  # an output that is never opened


def parsed(source: str) -> SourceConfig:
    """Read a SOURCE; raises `UsageError`."""
    try:
        return msgspec.convert(parse_source(source), SourceConfig)
    except ValueError as error:
        raise UsageError(f"SOURCE: {error}.") from None


def configured(path: str | None, source: str | None) -> Config:
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


def require_vault(azure: AzureConfig, source: str) -> None:
    """Refuse a SOURCE in another vault than the configuration logs in to."""
    if f"azure:{vault_name(azure.vault_url)}" != source.partition("/")[0].lower():
        raise UsageError(
            f"SOURCE is {source}, and the configuration's vault is {azure.vault_url}.",
            hint="Leave SOURCE or --config out.",
        )


def bundles_at(config: Config, wanted: SourceConfig) -> list[BundleConfig]:
    """Return the bundles of this source, whose field names may be their own; or a plain one."""
    plain = msgspec.structs.replace(
        config.bundles[0], name="", source=wanted, kind="ca", usage=msgspec.UNSET
    )
    return [each for each in config.bundles if _is_at(each.source, wanted)] or [plain]


def one_of(bundles: list[BundleConfig], name: str | None, kind: Kind | None) -> BundleConfig:
    """Return the bundle that is meant: by its name, or the only one, or the only one of a kind."""
    if name:
        bundles = [each for each in bundles if each.name == name]
        if not bundles:
            raise UsageError(
                f"The configuration has no bundle {name!r} with this SOURCE.",
                hint="--bundle names one of its bundles; leave it out where there is one only.",
            )
    elif kind:
        bundles = [each for each in bundles if each.kind == kind.name] or bundles
    places = {(str(each.source), each.kind, each.usage) for each in bundles}
    if len(places) > 1:
        raise UsageError(
            f"SOURCE holds several bundles: {', '.join(each.name for each in bundles)}.",
            hint="Say which one with --bundle NAME.",
        )
    return bundles[0]


def _is_at(source: SourceConfig, wanted: SourceConfig) -> bool:
    """Tell whether a bundle's source is the one that is written so; a Key Vault holds several."""
    if source.vault_kv and wanted.vault_kv:
        return _where(source.vault_kv) == _where(wanted.vault_kv)
    azure, asked = source.azure_key_vault, wanted.azure_key_vault
    if not (azure and asked):
        return False
    return (azure.certificate or azure.secret or "") == (asked.secret or "")


def _where(kv: VaultKVSourceConfig) -> tuple[str, str]:
    return kv.mount.strip("/"), kv.path.strip("/")
