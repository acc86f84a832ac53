"""Volumes that a test mounts, and what may befall them: where this process may mount."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODES_HOLD = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")
"""What to start a process with, for the modes of files to hold root back as they do everybody."""


@contextmanager
def mounted(path: Path, *options: str) -> Iterator[None]:
    """Mount something over `path`; skip where this process may not."""
    done = subprocess.run(["mount", *options, str(path)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting needs privileges: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def held_back() -> tuple[str, ...]:
    """Return what lets the modes of files hold for a process that is started with it."""
    if os.geteuid() != 0:
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is missing, without which no mode holds root back")
    return MODES_HOLD
