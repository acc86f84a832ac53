"""From a configuration's bundles to an agent: the one place that knows every adapter.

Adapters are imported here, and only those that the configuration names: each costs start-up time
and memory in every pod of a mesh.
"""

from __future__ import annotations

import logging
import os
import random
from datetime import timedelta
from typing import TYPE_CHECKING

from certagent.agent import GRACE, Agent, Follower, Tempo
from certagent.assignment import Assignment, Reader
from certagent.cli.rules import kind, pins, policy, takes_roots
from certagent.config.model import permissions, seconds
from certagent.errors import ConfigurationError
from certagent.runtime import logs
from certagent.runtime.schedule import Schedule
from certagent.sinks.directory import AtomicDirectory
from certagent.sinks.layouts import GATEWAY, ISTIOD, KUBELET

if TYPE_CHECKING:
    from certagent.cli.process import Stores
    from certagent.config.model import BundleConfig, Config, FilesSource
    from certagent.config.model import VaultPKISource as VaultPKIConfig
    from certagent.material.bundle import KeyCertBundle
    from certagent.material.history import Policy
    from certagent.material.kinds import Kind
    from certagent.runtime.signals import Signals
    from certagent.sinks import Sink
    from certagent.sources import Source
    from certagent.sources.vault.connection import VaultConnection


log = logging.getLogger("certagent")

_CROSSED = {
    "ca": "istiod does not look into `current`, and watches ROOT_CA_DIR itself, never a link in it:"
    " it would take neither this set nor a change of it.",
    "tls": "Of gateways, pilot-agent 1.29.0 to 1.29.2 and 1.30.0 to 1.30.2 see the first rotation"
    " alone, and 1.28 each only once the version before is removed: use the layout gateway there.",
}
"""What a layout means to the readers of the other kind (measured with their own code)."""

_REQUESTS = 15
"""Requests that a pass may make: a login, a look at the mount, and a history of ten versions."""

_AZURE_REQUESTS = 50
"""The same with Key Vault: a login, two lists of four secrets, and ten sets of four parts."""


def assembled(config: Config, stores: Stores, signals: Signals, *, stays: bool) -> Agent:
    """Return an agent with all that its bundles need; `stays` as `cli.process.agent` tells."""
    return Agent(
        [_assignment(bundle, config, stores, stays=stays) for bundle in config.bundles],
        stores.connections,
        _tempo(config),
        signals,
        _followers(config) if stays else (),
    )


def _tempo(config: Config) -> Tempo:
    requests = _REQUESTS * seconds(config.vault.request_timeout) if config.vault else 0.0
    if config.azure:
        requests = max(requests, _AZURE_REQUESTS * seconds(config.azure.request_timeout))
    return Tempo(
        Schedule(seconds(config.refresh.interval), random.random),
        patience=seconds(config.init.deadline) / 2,
        grace=max(GRACE, requests),
    )


def _assignment(bundle: BundleConfig, config: Config, stores: Stores, *, stays: bool) -> Assignment:
    of = kind(bundle.kind, bundle.usage)
    if told := crossed(bundle):
        log.warning("%s", told[0], extra=logs.fields(bundle=bundle.name, hint=told[1]))
    output, rules = sink(bundle), policy(config, of)
    fallback = bundle.fallback and _directory_source(bundle.fallback.files, of)
    return Assignment(
        bundle.name,
        _source(bundle, stores, of, output, rules),
        output,
        bundle.required,
        policy=rules,
        pins=pins(config),
        # Whom `init` publishes for has not started yet.
        reader=_reader(config) if stays and of.is_ca else Reader(),
        fallback=fallback or None,
        watched=stays and bool(bundle.source.files),
        kind=of,
        store=_store(bundle),
    )


def _store(bundle: BundleConfig) -> str:
    """Return which of `Stores.connections` a bundle shares with others, if any."""
    if bundle.source.vault_kv or bundle.source.vault_pki:
        return "vault"
    return "azure" if bundle.source.azure_key_vault else ""


def crossed(bundle: BundleConfig) -> tuple[str, str] | None:
    """Return what who asked for the other kind's layout is to be told, and what that means."""
    if (bundle.kind == "ca") != (bundle.layout == "gateway"):
        return None
    told = f"the layout {bundle.layout} is not made for kind {bundle.kind}"
    return told, _CROSSED[bundle.kind]


def sink(bundle: BundleConfig) -> AtomicDirectory:
    """Return the output; it opens and locks nothing before its first use."""
    output = bundle.output
    kubelet = ISTIOD if bundle.kind == "ca" else KUBELET
    layout = GATEWAY if bundle.layout == "gateway" else kubelet
    return AtomicDirectory(
        output.directory,
        permissions(output.key_mode),
        permissions(output.mode),
        layout=layout,
    )


def _reader(config: Config) -> Reader:
    mode = takes_roots(config, os.environ)
    return Reader(may_run=True, takes_roots=mode != "hold", pace=seconds(config.refresh.interval))


def _source(bundle: BundleConfig, stores: Stores, of: Kind, sink: Sink, rules: Policy) -> Source:
    if bundle.source.vault_kv and stores.vault:
        from certagent.sources.vault.kv import VaultKVSource  # noqa: PLC0415 - only for Vault

        return VaultKVSource(stores.vault, bundle.source.vault_kv, of)
    if bundle.source.vault_pki and stores.vault:
        return _issuing(bundle.source.vault_pki, stores.vault, of, sink, rules)
    if bundle.source.azure_key_vault and stores.azure:
        from certagent.sources.azure import KeyVaultSource  # noqa: PLC0415 - only for Azure

        return KeyVaultSource(stores.azure, bundle.source.azure_key_vault, of)
    if bundle.source.files:
        return _directory_source(bundle.source.files, of)
    raise ConfigurationError(f"The bundle {bundle.name} has no source.")


def _issuing(
    config: VaultPKIConfig, vault: VaultConnection, of: Kind, sink: Sink, rules: Policy
) -> Source:
    """Return a source that goes on with what is published, and stages a change of its issuer."""
    from certagent.sources.vault.pki import Destination, VaultPKISource  # noqa: PLC0415 - likewise

    def held() -> KeyCertBundle | None:
        published = sink.read()
        return of.bundle_of(published.files) if published else None

    distribute = timedelta() if rules.immediate else rules.distribute
    return VaultPKISource(vault, config, Destination(of, held, distribute))


def _directory_source(config: FilesSource, of: Kind) -> Source:
    from certagent.sources.files import DirectorySource  # noqa: PLC0415 - only for directories

    return DirectorySource(config.directory, of)


def _followers(config: Config) -> list[Follower]:
    """Return who follows the publications; nothing of it is imported where nobody is asked for."""
    asked = [bundle for bundle in config.bundles if bundle.hooks or bundle.confirm]
    if not asked:
        return []
    from certagent.cli.following import followers  # noqa: PLC0415 - ssl, and threads

    return followers(asked)
