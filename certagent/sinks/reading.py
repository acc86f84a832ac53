"""Reading a published directory beside the agent that holds it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from certagent.layouts import present
from certagent.sinks.held import OPEN_DIRECTORY, explained, opened
from certagent.sinks.version import Damaged, load

if TYPE_CHECKING:
    from pathlib import Path

    from certagent.sinks import Snapshot


def read_directory(path: str | Path) -> Snapshot | None:
    """Return what a reader finds in a published directory, or None where no whole set is.

    Takes either layout, and needs no lock: the link is resolved once, and once more only if it was
    swapped meanwhile. Raises `OutputError` where the directory cannot be read.
    """
    with explained(f"Cannot read {path}"):
        try:
            top = os.open(path, OPEN_DIRECTORY)
        except FileNotFoundError:
            return None
        try:
            return _read_present(top)
        finally:
            os.close(top)


def _read_present(top: int) -> Snapshot | None:
    while (found := present(top)) is not None:
        try:
            with opened(found.version, top) as version:
                return load(version)
        except (Damaged, FileNotFoundError):
            # A swap while we read may remove what we read: every further turn needs another one.
            if present(top) == found:
                break
    return None
