"""The process around an agent: hardened, with its signals, its logs and its stores' connections.

What a login needs is loaded first and the login is sent; all that judges and publishes material is
loaded while the answers to it, and to the first reads, are on their way.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from certagent.runtime import logs
from certagent.runtime.hardening import harden
from certagent.runtime.loading import sparingly
from certagent.runtime.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from certagent.agent import Agent
    from certagent.config.model import Config
    from certagent.sources import Connection
    from certagent.sources.azure import AzureConnection
    from certagent.sources.vault.connection import VaultConnection
    from certagent.sources.vault.secret import Secret


class Stores(Struct, frozen=True):
    """The connections that the bundles of a configuration need."""

    vault: VaultConnection | None
    azure: AzureConnection | None

    @property
    def connections(self) -> dict[str, Connection]:
        """Those that there are, by name."""
        both: dict[str, Connection | None] = {"vault": self.vault, "azure": self.azure}
        return {name: each for name, each in both.items() if each is not None}


@contextmanager
def agent(config: Config, *, stays: bool) -> Iterator[Agent]:
    """Yield an agent that is ready to run, and close it; signals are taken meanwhile.

    `stays`: it is to run beside its reader, and directories that are sources wake it.
    """
    logs.configure(config.log.format, config.log.level)
    harden()
    with ExitStack() as stack:
        with sparingly():
            signals = stack.enter_context(Signals())
            stores = Stores(_vault(config, signals), _azure(config, signals))
            for connection in stores.connections.values():
                stack.callback(connection.close)
            if stores.vault and not any(_holds_something(path) for path in _outputs(config)):
                # Somebody waits. A restart that finds a set does not ask at once: Schedule.first.
                stores.vault.begin(_only_secret(config))
            from certagent.cli.wiring import assembled  # noqa: PLC0415 - while a login is under way

            worker = assembled(config, stores, signals, stays=stays)
            stack.callback(worker.close)
            if stays:
                for directory in _watched(config):
                    from certagent.sources.watching import watch  # noqa: PLC0415 - only for directories

                    stack.callback(watch(directory, signals.wake))
        yield worker


def _vault(config: Config, signals: Signals) -> VaultConnection | None:
    sources = [bundle.source for bundle in config.bundles]
    if not any(source.vault_kv or source.vault_pki for source in sources) or not config.vault:
        return None
    from certagent.sources.vault.connection import VaultConnection  # noqa: PLC0415 - only for Vault

    return VaultConnection(
        config.vault,
        environment_token=os.environ.get("VAULT_TOKEN", ""),
        conceal=logs.conceal,
        stopping=signals.stop_pending,
    )


def _azure(config: Config, signals: Signals) -> AzureConnection | None:
    if not any(bundle.source.azure_key_vault for bundle in config.bundles) or not config.azure:
        return None
    from certagent.sources.azure import AzureConnection  # noqa: PLC0415 - only for Azure

    return AzureConnection(config.azure, conceal=logs.conceal, stopping=signals.stop_pending)


def _only_secret(config: Config) -> Secret | None:
    """Return what all of Vault's bundles are: it is read beside the start, and delays no other."""
    from certagent.sources.vault.secret import Secret  # noqa: PLC0415 - only for Vault

    sources = [bundle.source for bundle in config.bundles]
    asked = [source for source in sources if source.vault_kv or source.vault_pki]
    return Secret.of(asked[0].vault_kv) if len(asked) == 1 and asked[0].vault_kv else None


def _outputs(config: Config) -> list[str]:
    return [bundle.output.directory for bundle in config.bundles]


def _holds_something(path: str) -> bool:
    try:
        return bool(os.listdir(path))  # noqa: PTH208 - pathlib is loaded later
    except OSError:
        return False


def _watched(config: Config) -> list[str]:
    return [bundle.source.files.directory for bundle in config.bundles if bundle.source.files]
