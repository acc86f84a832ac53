"""From a configuration to an agent: the one place that knows every adapter.

Adapters are imported here, and only those that the configuration names: each costs start-up time
and memory in every pod of a mesh.
"""

from __future__ import annotations

import os
import random
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from certagent.agent import Agent
from certagent.config.model import permissions, seconds
from certagent.errors import ConfigurationError
from certagent.keeper import Assignment
from certagent.runtime import logs
from certagent.runtime.hardening import harden
from certagent.runtime.schedule import Schedule
from certagent.runtime.signals import Signals
from certagent.sinks.directory import AtomicDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from certagent.config.model import BundleConfig, Config
    from certagent.sources import Source
    from certagent.sources.vault import VaultConnection


@contextmanager
def agent(config: Config, *, watching: bool) -> Iterator[Agent]:
    """Yield an agent that is ready to run, and close it; signals are taken meanwhile.

    `watching`: directories that are sources are watched, and wake the agent when they change.
    """
    logs.configure(config.log.format, config.log.level)
    harden()
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        vault = _vault(config)
        worker = Agent(
            [_assignment(bundle, vault) for bundle in config.bundles],
            {"vault": vault} if vault else {},
            Schedule(seconds(config.refresh.interval), random.random),
            signals.wait,
            signals.stop_pending,
        )
        stack.callback(worker.close)
        if watching:
            for directory in _watched(config):
                from certagent.sources.watching import watch  # noqa: PLC0415 - only for directories

                stack.callback(watch(directory, signals.wake))
        yield worker


def _vault(config: Config) -> VaultConnection | None:
    if not any(bundle.source.vault_kv for bundle in config.bundles) or not config.vault:
        return None
    from certagent.sources.vault import VaultConnection  # noqa: PLC0415 - only for Vault

    return VaultConnection(
        config.vault,
        environment_token=os.environ.get("VAULT_TOKEN", ""),
        conceal=logs.conceal,
    )


def _assignment(bundle: BundleConfig, vault: VaultConnection | None) -> Assignment:
    output = bundle.output
    sink = AtomicDirectory(
        output.directory, key_mode=permissions(output.key_mode), mode=permissions(output.mode)
    )
    return Assignment(bundle.name, _source(bundle, vault), sink, bundle.required)


def _source(bundle: BundleConfig, vault: VaultConnection | None) -> Source:
    if bundle.source.vault_kv and vault:
        from certagent.sources.vault import VaultKVSource  # noqa: PLC0415 - only for Vault

        return VaultKVSource(vault, bundle.source.vault_kv)
    if bundle.source.files:
        from certagent.sources.files import DirectorySource  # noqa: PLC0415 - only for directories

        return DirectorySource(bundle.source.files.directory)
    raise ConfigurationError(f"The bundle {bundle.name} has no source.")


def _watched(config: Config) -> list[str]:
    return [bundle.source.files.directory for bundle in config.bundles if bundle.source.files]
