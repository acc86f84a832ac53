"""A hardened process, looked at from inside it: the test run itself must stay as it is."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

PREPARE = textwrap.dedent(
    """
    import json, logging, os, resource, sys
    from certagent.runtime import hardening

    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    """
)
LOOK = textwrap.dedent(
    """
    import ctypes
    PR_GET_DUMPABLE = 3
    print(json.dumps({
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "dumpable": ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0),
    }))
    """
)


def run(script):
    command = [sys.executable, "-c", PREPARE + script]
    return subprocess.run(command, capture_output=True, check=True, text=True, timeout=30)


def test_an_unhardened_process_can_be_read_by_its_peers():
    assert json.loads(run(LOOK).stdout)["dumpable"] == 1


def test_a_hardened_process_leaves_no_core_and_cannot_be_read_by_its_peers():
    done = run("hardening.harden()" + LOOK)

    assert json.loads(done.stdout) == {"core": [0, 0], "dumpable": 0}
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("obstacle", "told"),
    [
        ("hardening._PR_SET_DUMPABLE = 10**6", "_not_dumpable is not possible here: [Errno 22]"),
        ("sys.modules['ctypes'] = None", "_not_dumpable is not possible here: import of ctypes"),
        ("resource.RLIMIT_CORE = 10**6", "_no_core_dumps is not possible here: invalid resource"),
    ],
)
def test_what_the_platform_does_not_allow_is_told_at_debug_and_left(obstacle, told):
    done = run(f"{obstacle}\nhardening.harden()\nprint('alive')")

    assert done.stdout == "alive\n"
    assert told in done.stderr
    assert done.stderr.startswith("DEBUG:certagent.runtime.hardening:")
