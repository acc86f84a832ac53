"""How much a test tries: little in each run of the suite, much with `pytest --long`."""

from __future__ import annotations

import os
from typing import TypeVar

VARIABLE = "TESTS_LONG"
"""Set by `--long` before any test is imported, also in the processes that run them side by side."""

Amount = TypeVar("Amount")


def effort(usual: Amount, long: Amount) -> Amount:
    """Return the amount (rounds, examples, seconds) for this run."""
    return long if is_long() else usual


def is_long() -> bool:
    """Whether this run was asked to take its time."""
    return os.environ.get(VARIABLE) == "1"
