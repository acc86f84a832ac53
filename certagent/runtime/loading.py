"""What a start need not do with all that it loads: look for garbage in it, compile what none uses.

Each is a tenth of a start, and neither shows in a profile of imports: it is in all of them.
"""

from __future__ import annotations

import gc
import re
import sys
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def uncollected() -> Iterator[None]:
    """Load things without a collection, and take all that there is then out of every later one.

    Each would look at all modules, and find nothing.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def uncompiled(module: str) -> Iterator[None]:
    """Load things, with the regular expressions of one module left until they are used.

    This is for `cryptography.x509.name`: its pattern of RFC 4514's strings has all of Unicode in
    each of its classes, and who reads names from certificates never needs it.
    """
    at_once = re.compile

    def compile_(pattern: Any, flags: int = 0) -> Any:
        asker = sys._getframe(1).f_globals.get("__name__")  # noqa: SLF001 - CPython's, as all here
        return _Uncompiled(pattern, flags) if asker == module else at_once(pattern, flags)

    re.compile = compile_
    try:
        yield
    finally:
        re.compile = at_once


class _Uncompiled:
    """Does what the pattern does, which is compiled then."""

    def __init__(self, pattern: str, flags: int) -> None:
        self._given = (pattern, flags)

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(*self._given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiled, name)
