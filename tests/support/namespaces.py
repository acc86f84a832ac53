"""Processes that are the first of a PID namespace, as an agent is in its container."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

AS_PID_1 = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def pid_1() -> tuple[str, ...]:
    """Return what to start a process with for it to be PID 1; skip where that is not permitted."""
    if not shutil.which(AS_PID_1[0]):
        pytest.skip("unshare is missing")
    done = subprocess.run([*AS_PID_1, "true"], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"making a PID namespace is not permitted here: {done.stderr.strip()}")
    return AS_PID_1


def first_inside(outside: int) -> int:
    """Return the number, as we see it, of the process that `unshare` (`outside`) started."""
    return int(Path(f"/proc/{outside}/task/{outside}/children").read_text("ascii"))
