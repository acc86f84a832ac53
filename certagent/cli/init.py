"""`certagent init`: publish every bundle once, or fail the pod.

An istiod that finds no set in its ROOT_CA_DIR makes a root of its own and never looks again
(pilot/pkg/bootstrap/istio_ca.go), so this verb fails rather than let istiod start without one.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from certagent.cli.options import add_configuration, configuration
from certagent.cli.process import agent
from certagent.config.model import seconds
from certagent.runtime.signals import Interrupted

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the configuration's flags."""
    add_configuration(
        parser, "--source", "--directory", "--deadline", "--log-format", "--log-level"
    )


def run(arguments: argparse.Namespace) -> int:
    """Publish, and exit 0; otherwise with the code of the first required bundle's last error."""
    config = configuration(arguments)
    try:
        with agent(config, stays=False) as worker:
            worker.init(seconds(config.init.deadline))
    except Interrupted:
        return 128 + signal.SIGTERM
    return 0
