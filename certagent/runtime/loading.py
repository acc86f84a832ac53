"""What a start need not do with all that it loads: look for garbage in it, compile what none uses.

Together they are a fifth of a start, and neither shows in a profile of imports: it is in all of
them.
"""

from __future__ import annotations

import gc
import re
import sys
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_SELDOM_USED = frozenset(
    {
        # Its pattern of RFC 4514's strings has all of Unicode in each of its classes, and who reads
        # names from certificates never needs it. The others cost less, and are many.
        "cryptography.x509.name",
        "certagent.material.names",
        "cryptography.hazmat.primitives.serialization.ssh",
        "email.header",
        "encodings.idna",
        "locale",
        "logging",
        "platform",
        "string",
        "textwrap",
        "tokenize",
    }
)
"""Modules that compile patterns when they are loaded, and use them where an agent never comes.

They may only call a pattern's methods: `re.sub(pattern, ...)` would not take what stands for one.
"""


@contextmanager
def sparingly() -> Iterator[None]:
    """Load things without a collection, and with seldom used patterns left until they are used.

    A collection would look at all modules, and find nothing; later ones leave out all there is now.
    """
    at_once = re.compile

    def compile_(pattern: Any, flags: int = 0) -> Any:
        asker = sys._getframe(1).f_globals.get("__name__")  # noqa: SLF001 - CPython's, as all here
        return _Uncompiled(pattern, flags) if asker in _SELDOM_USED else at_once(pattern, flags)

    gc.disable()
    re.compile = compile_
    try:
        yield
    finally:
        re.compile = at_once
        gc.freeze()
        gc.enable()


def lean_msgspec() -> None:
    """Load msgspec without typing_extensions, unless that or msgspec is there already.

    msgspec does without where it is not installed, for `typing` has what it looks for; its classes
    and what they build upon are one part in sixty of a start. An agent of Azure's SDK loads it.
    """
    if {"msgspec", "typing_extensions"} & sys.modules.keys():
        return
    sys.modules["typing_extensions"] = None  # type: ignore[assignment] # as if not installed
    try:
        with suppress(ImportError):  # a msgspec that cannot do without is loaded as it is
            import msgspec  # noqa: F401, PLC0415 - here is where it is loaded first
    finally:
        del sys.modules["typing_extensions"]


class _Uncompiled:
    """Does what the pattern does, which is compiled then."""

    def __init__(self, pattern: str, flags: int) -> None:
        self._given = (pattern, flags)

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(*self._given)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what copy and pickle ask for, also before it is there
            raise AttributeError(name)
        return getattr(self._compiled, name)
