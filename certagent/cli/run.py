"""`certagent run`: publish every bundle, then stay, poll and swap."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

from msgspec import UNSET

from certagent import __version__
from certagent.cli.options import add_configuration, configuration
from certagent.cli.process import agent
from certagent.errors import ConfigurationError
from certagent.runtime.logs import fields

if TYPE_CHECKING:
    import argparse

    from certagent.agent import Agent
    from certagent.config.model import Config

DEFAULT_ADDRESS = ":9089"

log = logging.getLogger("certagent")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the configuration's flags."""
    add_configuration(
        parser, "--source", "--directory", "--interval", "--server", "--log-format", "--log-level"
    )


def run(arguments: argparse.Namespace) -> int:
    """Stay until SIGTERM or SIGINT; exit 0."""
    config = configuration(arguments)
    with ExitStack() as stack:
        worker = stack.enter_context(agent(config, stays=True))
        _serve(config, worker, stack)
        log.info("running", extra=fields(version=__version__, interval=config.refresh.interval))
        worker.run()
        log.info("stopping")
    return 0


def _serve(config: Config, worker: Agent, stack: ExitStack) -> None:
    """Answer probes and scrapes, if an address is set.

    Nobody asked for the default address, so that it is taken is no reason not to serve a mesh: a
    second agent on a laptop runs without probes. An address that was asked for must be had.
    """
    asked = config.server.address
    address = DEFAULT_ADDRESS if asked is UNSET else asked
    if not address:
        return
    from certagent.runtime.health import HealthServer  # noqa: PLC0415 - http.server costs 10 ms

    def metrics() -> bytes:
        # prometheus_client costs as much again, and 2 MiB: whom nobody scrapes does without.
        from certagent.runtime.metrics import exposition  # noqa: PLC0415 - likewise

        return exposition(worker.current())

    try:
        server = HealthServer(address, status=worker.current, metrics=metrics)
    except ConfigurationError as error:
        if asked is not UNSET:
            raise
        log.warning("no probes and no metrics: %s", error.message, extra=fields(hint=error.hint))
        return
    stack.callback(server.close)
