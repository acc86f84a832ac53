"""The line above the tables: on what, and of what, they were taken."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from certagent import __version__


def description(openbao: str) -> str:
    """Return one line; `openbao` is the server's and the peer's version."""
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cores} {'core' if cores == 1 else 'cores'} of {_model()}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, certagent {__version__}, OpenBao {openbao}"
    )


def _model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()  # ARM's cpuinfo has no names
