"""From a configuration to those who follow publications: hooks and confirmations."""

from __future__ import annotations

import random
import signal
import socket
from typing import TYPE_CHECKING

from certagent.config.model import ExecHook, HookConfig, SignalHook, seconds
from certagent.followers import Confirmations, Hooks
from certagent.runtime.handshake import Reader
from certagent.runtime.hooks import Exec, Hook, Http, Signal, stagger
from certagent.runtime.hooks.runner import HookRunner, backoff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from certagent.agent import Follower
    from certagent.config.model import BundleConfig


def followers(bundles: Sequence[BundleConfig]) -> list[Follower]:
    """Return the followers of these bundles; raises `ConfigurationError` for what cannot be."""
    hostname = socket.gethostname()
    runner = HookRunner(
        [_hook(bundle.name, hook, hostname) for bundle in bundles for hook in bundle.hooks],
        lambda failures: backoff(failures, random.random()),  # noqa: S311 - jitter, no secret
    )
    hooks = Hooks(runner, {bundle.name: bundle.output.directory for bundle in bundles})
    readers = {bundle.name: _reader(bundle) for bundle in bundles if bundle.confirm}
    return [hooks, Confirmations(readers, hooks.unconfirmed)]


def _reader(bundle: BundleConfig) -> Reader:
    confirm = bundle.confirm
    assert confirm  # noqa: S101 - the caller looked
    return Reader.at(confirm.address, confirm.server_name, seconds(confirm.within))


def _hook(bundle: str, config: HookConfig, hostname: str) -> Hook:
    action: Exec | Signal | Http
    if isinstance(config, ExecHook):
        action = Exec(config.command, seconds(config.timeout))
    elif isinstance(config, SignalHook):
        action = Signal(config.process, signal.Signals[config.signal])
    else:
        action = Http(config.url, config.method, seconds(config.timeout), config.ca_file)
    return Hook(
        bundle,
        config.name,
        action,
        on=config.on,
        events=config.events,
        attempts=config.attempts,
        delay=stagger(hostname, seconds(config.spread)),
    )
