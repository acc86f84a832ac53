"""What makes the process's memory, which holds CA keys, harder to get at."""

from __future__ import annotations

import logging
import os
import resource

_PR_SET_DUMPABLE = 4
"""prctl(2), from linux/prctl.h."""

_log = logging.getLogger(__name__)


def harden() -> None:
    """Leave no core dumps, and close the process's memory to its peers.

    istiod runs under the same user and may share the agent's process namespace: a process that is
    not dumpable is beyond its ptrace(2) and beyond /proc/<pid>/mem. What the platform does not
    allow is logged at debug and left: a pod must not fail for it. `exec` undoes the second of them.
    """
    for measure in (_no_core_dumps, _not_dumpable):
        try:
            measure()
        except (OSError, ValueError, ImportError, AttributeError) as error:
            _log.debug("hardening: %s is not possible here: %s", measure.__name__, error)


def _no_core_dumps() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _not_dumpable() -> None:
    # Nothing in the standard library calls prctl(2), and no file in /proc sets this.
    import ctypes  # noqa: PLC0415 - only for those who harden; a libc without it is no reason to fail

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
