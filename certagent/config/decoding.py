"""From a file, the environment and flags to one `Config`, or to a list of all that is wrong."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from certagent.config.model import (
    BundleConfig,
    CertAuth,
    Config,
    RefreshConfig,
    RotationConfig,
    SignalHook,
    TokenAuth,
    VaultConfig,
    seconds,
)
from certagent.config.settings import BUNDLE, SETTINGS
from certagent.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


_MAX_BYTES = 1 << 20
_LONGEST = 366 * 86400
_MOST_FAULTS = 100
"""Of the structure: each costs a search for the key that was meant, and a line of the log."""

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_BOOLEAN_KEYS = {"plainHttp", "secretIdWrapped"}


def load(path: str | None, environ: Mapping[str, str], *, here: bool = True) -> Config:
    """Return what the operator asked for.

    `path` is the YAML file, if there is one; `environ` the environment with the flags laid over it
    (each flag under the name of its variable). `here`: it is for this machine, so the files that it
    names must be there. Raises `ConfigurationError` with every fault.
    """
    document = _read(path) if path else {}
    return decode(document, environ, where=f"configuration {path}" if path else "", here=here)


def decode(
    document: dict[str, Any],
    environ: Mapping[str, str],
    *,
    where: str = "",
    here: bool = True,
) -> Config:
    """Return what a document and the environment ask for; `where` names it in what is raised.

    The document is completed with what the environment says. Raises as `load` does.
    """
    given = {
        setting: environ[setting.variable] for setting in SETTINGS if environ.get(setting.variable)
    }
    unfit = [setting for setting, value in given.items() if not is_text(value)]
    faults = [f"{setting.variable}: not UTF-8" for setting in unfit]
    given = {setting: value for setting, value in given.items() if setting not in unfit}
    ca = _the_ca(document)
    faults.extend(_apply_bundle(document, given, ca))
    _apply_rest(document, given, environ)
    origins = {
        _dotted(setting.path).replace(BUNDLE, f"bundles[{ca or 0}]"): setting.variable
        for setting in given
    }
    try:
        config = msgspec.convert(document, Config)
    except msgspec.ValidationError:
        from certagent.config.faults import structural_faults  # noqa: PLC0415 - only when needed

        faults.extend(islice(structural_faults(document, Config), _MOST_FAULTS))
        config = _what_can_be_read(document)
    faults.extend(_semantic_faults(config, environ, here=here))
    if not faults:
        return config
    several = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
    several += " or more" if len(faults) >= _MOST_FAULTS else ""
    raise ConfigurationError(
        f"The {where or 'configuration'} is wrong ({several}):",
        tuple(_with_origin(fault, origins) for fault in faults),
        log_format=config.log.format,
    )


def is_text(value: str) -> bool:
    """Return whether it can be encoded: YAML escapes and stray bytes make strings that cannot."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path)


def _with_origin(fault: str, origins: Mapping[str, str]) -> str:
    """Name the variable that set the faulty key, or that could set the missing one."""
    if fault == "bundles: missing":
        return f"{fault}; give --config FILE, or set CERTAGENT_SOURCE and ROOT_CA_DIR"
    key, _, rest = fault.partition(":")
    if key in origins:
        return f"{origins[key]} ({key}):{rest}"
    could = [setting.variable for setting in SETTINGS if _dotted(setting.path) == key]
    return (
        f"{fault}; give it in the file, or set {could[0]}"
        if could and rest == " missing"
        else fault
    )


def _what_can_be_read(document: dict[str, Any]) -> Config:
    """Return the sections that are well formed, so that their faults are told in the same go."""
    sections = {}
    for field in msgspec.structs.fields(Config):
        try:
            sections[field.name] = msgspec.convert(document[field.encode_name], field.type)
        except (KeyError, msgspec.ValidationError):
            continue
    return Config(**{"bundles": (), **sections})


def _read(path: str) -> dict[str, Any]:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"The configuration file {path} cannot be read: {error.strerror}.",
            hint="Check --config (or CERTAGENT_CONFIG) and the ConfigMap's mount.",
        ) from None
    if len(data) > _MAX_BYTES:
        raise ConfigurationError(
            f"The configuration file {path} is larger than {_MAX_BYTES} bytes."
        )
    from certagent.config.yamltext import parse_all  # noqa: PLC0415 - not for the environment

    documents = parse_all(data, f"The configuration file {path}")
    document = documents[0] if len(documents) == 1 else None
    if not isinstance(document, dict):
        raise ConfigurationError(f"The configuration file {path} is not a YAML mapping.")
    return document


def _the_ca(document: dict[str, Any]) -> int | None:
    """Return the index of the one bundle that is a CA, or None where none or several are."""
    bundles = document.get("bundles")
    listed = bundles if isinstance(bundles, list) else []
    found = [
        index
        for index, one in enumerate(listed)
        if isinstance(one, dict) and one.get("kind", "ca") == "ca"
    ]
    return found[0] if len(found) == 1 else None


def _apply_bundle(
    document: dict[str, Any], given: Mapping[Any, str], ca: int | None
) -> Iterator[str]:
    """Lay CERTAGENT_SOURCE and ROOT_CA_DIR over the one CA of the file, or make it."""
    ours = {setting: value for setting, value in given.items() if setting.path[0] == BUNDLE}
    if not ours:
        return
    if "bundles" not in document:
        document["bundles"], ca = [{"name": "istiod-ca"}], 0
    bundles = document["bundles"]
    if not isinstance(bundles, list) or not all(isinstance(one, dict) for one in bundles):
        return
    if ca is None:
        several = any(one.get("kind", "ca") == "ca" for one in bundles)
        what = f"which of the {len(bundles)} bundles it means is not clear"
        for setting in ours:
            yield (
                f"{setting.variable}: {what if several else 'it means a CA, and no bundle is one'};"
                " unset it, and give source and output.directory in the file"
            )
        return
    bundle = bundles[ca]
    for setting, value in ours.items():
        if setting.path[1] == "source":
            try:
                bundle["source"] = parse_source(value)
            except ValueError as error:
                yield f"{setting.variable}: {error}"
                bundle["source"] = {"files": {"directory": "/"}}  # one fault is told once
        else:
            bundle["output"] = {**(bundle.get("output") or {}), "directory": value}


def parse_source(text: str) -> dict[str, Any]:
    """Read a source as it is written on a command line; raises `ValueError` with what is wrong."""
    store, _, place = text.partition(":")
    if store == "vault":
        mount, _, path = place.strip("/").partition("/")
        if not mount or not path:
            raise ValueError(f"expected vault:<mount>/<path>, got {text!r}")
        return {"vaultKV": {"mount": mount, "path": path}}
    if store == "file":
        if not place:
            raise ValueError(f"expected file:<directory>, got {text!r}")
        return {"files": {"directory": place}}
    if store == "azure":
        from certagent.config.keyvault import parse_vault  # noqa: PLC0415 - only for Azure

        return parse_vault(place)
    if store == "vault-pki":
        raise ValueError(
            f"{text!r} names certificates that Vault issues: none are stored that could be read,"
            " planned or written; configure them as vaultPKI in a file"
        )
    raise ValueError(
        f"expected vault:<mount>/<path>, azure:<vault name> or file:<directory>, got {text!r}"
    )


def _apply_rest(
    document: dict[str, Any], given: Mapping[Any, str], environ: Mapping[str, str]
) -> None:
    bundles = document.get("bundles")
    listed = bundles if isinstance(bundles, list) else []
    sources = [one.get("source") for one in listed if isinstance(one, dict)]
    stores = {key for source in sources if isinstance(source, dict) for key in source}
    uses_vault, uses_azure = bool(stores & {"vaultKV", "vaultPKI"}), "azureKeyVault" in stores
    unused = {"vault": not uses_vault, "azure": not uses_azure}
    if uses_azure:
        from certagent.config.keyvault import spell_out  # noqa: PLC0415 - only for Azure

        spell_out(document)
    for setting, value in given.items():
        if setting.path[0] == BUNDLE or unused.get(setting.path[0]):
            continue
        place = document
        for key in setting.path[:-1]:
            inner = place.get(key)
            place[key] = place = dict(inner) if isinstance(inner, dict) else {}
        key = setting.path[-1]
        place[key] = _BOOLEANS.get(value.lower(), value) if key in _BOOLEAN_KEYS else value
    vault = document.get("vault")
    if uses_vault and (vault is None or isinstance(vault, dict)):
        document["vault"] = vault = dict(vault or {})
        auth = vault.get("auth")
        if auth is None and environ.get("VAULT_TOKEN"):
            vault["auth"] = {"method": "token"}
        elif auth is None or (isinstance(auth, dict) and "method" not in auth):
            vault["auth"] = {"method": "kubernetes", **(auth or {})}
    if uses_azure:
        from certagent.config.keyvault import complete  # noqa: PLC0415 - only for Azure

        complete(document, environ)


def _semantic_faults(config: Config, environ: Mapping[str, str], *, here: bool) -> Iterator[str]:
    """Yield what types cannot say."""
    names = [bundle.name for bundle in config.bundles]
    directories = [os.path.normpath(bundle.output.directory) for bundle in config.bundles]
    for index, bundle in enumerate(config.bundles):
        at = f"bundles[{index}]"
        if bundle.name in names[:index]:
            yield f"{at}.name: {bundle.name!r} is taken by another bundle"
        if directories[index] in directories[:index]:
            yield f"{at}.output.directory: another bundle publishes to {bundle.output.directory}"
        hooks = [hook.name for hook in bundle.hooks]
        yield from (
            f"{at}.hooks: two hooks are named {name!r}"
            for name in set(hooks)
            if hooks.count(name) > 1
        )
        yield from _kind_faults(bundle, at)
        if (
            bundle.kind == "ca"
            and config.rotation.istiod == "restart"
            and not any(
                hook.on != "certificate" and "published" in hook.events for hook in bundle.hooks
            )
        ):
            yield f"{at}.hooks: rotation.istiod: restart needs a hook with `on: roots`"
        yield from (f"{at}.source{fault}" for fault in _source_faults(bundle, config.refresh))
    durations = {
        "refresh.interval": config.refresh.interval,
        "init.deadline": config.init.deadline,
        "rotation.distribute": config.rotation.distribute,
        "rotation.retire": config.rotation.retire,
    }
    for index, bundle in enumerate(config.bundles):
        durations |= _durations_of(bundle, f"bundles[{index}]")
    yield from _rotation_faults(config.rotation)
    if config.vault:
        durations["vault.connectTimeout"] = config.vault.connect_timeout
        durations["vault.requestTimeout"] = config.vault.request_timeout
        yield from _vault_faults(config.vault, environ, here=here)
    if config.azure:
        from certagent.config.keyvault import azure_faults  # noqa: PLC0415 - only for Azure

        durations["azure.connectTimeout"] = config.azure.connect_timeout
        durations["azure.requestTimeout"] = config.azure.request_timeout
        yield from azure_faults(config.azure, environ)
    for name, duration in durations.items():
        if not 0 < seconds(duration) <= _LONGEST:
            yield f"{name}: expected more than nothing and at most a year, got {duration[:40]}"


def _durations_of(bundle: BundleConfig, at: str) -> Iterator[tuple[str, str]]:
    """Yield how long a bundle's hooks and its confirmation may take, each with its key."""
    for index, hook in enumerate(bundle.hooks):
        if not isinstance(hook, SignalHook):
            yield f"{at}.hooks[{index}].timeout", hook.timeout
        if seconds(hook.spread):  # none is the default
            yield f"{at}.hooks[{index}].spread", hook.spread
    if bundle.confirm:
        yield f"{at}.confirm.within", bundle.confirm.within


def _source_faults(bundle: BundleConfig, refresh: RefreshConfig) -> Iterator[str]:
    source = bundle.source
    chosen = (source.vault_kv, source.vault_pki, source.azure_key_vault, source.files)
    if sum(map(bool, chosen)) != 1:
        yield ": expected exactly one of vaultKV, vaultPKI, azureKeyVault, files"
    if source.vault_pki:
        from certagent.config.pki import pki_faults  # noqa: PLC0415 - only for Vault PKI

        yield from (
            f".vaultPKI{fault}" for fault in pki_faults(source.vault_pki, bundle.kind, refresh)
        )
    if source.azure_key_vault:
        from certagent.config.keyvault import source_faults  # noqa: PLC0415 - only for Azure

        for fault in source_faults(source.azure_key_vault, bundle):
            yield f".azureKeyVault{fault}"


def _kind_faults(bundle: BundleConfig, at: str) -> Iterator[str]:
    """Yield what does not go with the kind of a bundle."""
    if bundle.kind == "ca" and bundle.usage:
        yield f"{at}.usage: only a bundle of kind tls has one"
    if bundle.kind == "tls" and bundle.source.vault_kv and bundle.source.vault_kv.fields.crls:
        yield f"{at}.source.vaultKV.fields.crls: a bundle of kind tls has no revocation lists"
    if bundle.usage == "client" and bundle.confirm:
        yield f"{at}.confirm: nobody serves a client's certificate, so nobody can be asked"


def _rotation_faults(rotation: RotationConfig) -> Iterator[str]:
    slack = seconds(rotation.slack)
    ttl = seconds(rotation.workload_ttl) if rotation.workload_ttl else 0.0
    for name, window in (("distribute", rotation.distribute), ("retire", rotation.retire)):
        if seconds(window) < slack:
            yield f"rotation.{name}: {window} is shorter than the slack, {rotation.slack}"
        elif seconds(window) < ttl + slack:
            yield (
                f"rotation.{name}: {window} is shorter than workloadTTL and slack together"
                f" ({rotation.workload_ttl} + {rotation.slack}): workloads would refuse each other"
            )


def _vault_faults(vault: VaultConfig, environ: Mapping[str, str], *, here: bool) -> Iterator[str]:
    yield from _address_faults(vault)
    files = {"vault.caFile": vault.ca_file}
    if isinstance(vault.auth, CertAuth):
        files["vault.auth.certFile"] = vault.auth.cert_file
        files["vault.auth.keyFile"] = vault.auth.key_file
    for name, file in files.items():
        if here and file and not os.path.isfile(file):  # noqa: PTH113 - Path raises for a name too long
            yield f"{name}: there is no file {file}"
    if isinstance(vault.auth, TokenAuth) and not (
        vault.auth.token_file or environ.get("VAULT_TOKEN")
    ):
        yield "vault.auth: method token needs tokenFile, or VAULT_TOKEN in the environment"


def _address_faults(vault: VaultConfig) -> Iterator[str]:
    from urllib.parse import urlsplit  # noqa: PLC0415 - only where a URL is configured

    from certagent.config.loopback import is_loopback  # noqa: PLC0415 - likewise

    try:
        url = urlsplit(vault.address)
        host, _ = url.hostname, url.port
    except ValueError:
        url, host = urlsplit(""), None
    if url.scheme not in {"http", "https"} or not host:
        # What cannot be taken apart may still have a password before its last `@`.
        parts = vault.address.split("://", 1)
        shown = "://".join(part.rpartition("@")[2] for part in parts)
        yield f"vault.address: expected https://HOST[:PORT], got {shown[:100]!r}"
    elif url.username or url.password or url.query or url.fragment:
        yield "vault.address: expected https://HOST[:PORT] without user, query or fragment"
    elif url.scheme == "http" and not vault.plain_http and not is_loopback(host):
        yield (
            f"vault.address: http://{host} would send tokens and keys in the clear; use https://,"
            " or set vault.plainHttp (CERTAGENT_VAULT_PLAIN_HTTP) to true if you mean it"
        )
