"""The agent, with a clock that a test sets, and with stages at which it waits for the test.

    python -m tests.support.meddled run …     in place of   python -m certagent run …

`TESTS_CLOCK` names a file that holds by how many seconds the clock is wrong: it may change at any
time, and is read at every look at the clock. The monotonic clock is left alone, as setting a
machine's clock leaves it. `TESTS_STAGE` names a stage (`STAGES`), `TESTS_GATE` a file: as the agent
enters the stage for the first time it makes the file, and goes on once the file is gone.
`TESTS_HURRY` is how many seconds giving a token back may take at a stop, for tests that ask whether
it was: on a machine that does much else its usual time may not be enough.
"""

from __future__ import annotations

import datetime as dt
import importlib
import inspect
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = (sys.executable, "-m", "tests.support.meddled")
CLOCK, STAGE, GATE, HURRY = "TESTS_CLOCK", "TESTS_STAGE", "TESTS_GATE", "TESTS_HURRY"

STAGES = {
    "fetch": ("certagent.sources.files", "_read_settled"),
    "verify": ("certagent.chronicle", "judge"),
    "publish": ("certagent.sinks.version", "os.fsync"),
    "swap": ("certagent.sinks.directory", "os.rename"),
}
"""By what each stage begins: a module, and the function in it that is called then."""

_LOADED_LATER = (
    "certagent.cli.run",
    "certagent.cli.init",
    "certagent.cli.process",
    "certagent.cli.wiring",
    "certagent.runtime.hooks.runner",
    "certagent.sources.files",
    "certagent.sources.vault.connection",
    "certagent.sources.vault.kv",
)
_PATIENCE = 60.0
"""Seconds that a stage waits at most, should its test be gone."""


def offset() -> dt.timedelta:
    """Return by how much the clock is wrong now."""
    try:
        return dt.timedelta(seconds=float(Path(os.environ[CLOCK]).read_text() or 0))
    except FileNotFoundError:
        return dt.timedelta()


class ShiftedTime(dt.datetime):
    """The class `datetime`, but for what it takes the present time to be."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
        return dt.datetime.now(tz) + offset()


def shift_the_clock() -> None:
    """Let every module of the agent that asks for the time ask `ShiftedTime`."""
    for name in _LOADED_LATER:
        importlib.import_module(name)
    asking = [
        module
        for name, module in sys.modules.items()
        if name.startswith("certagent.") and "datetime.now(" in inspect.getsource(module)
    ]
    assert {"certagent.agent", "certagent.sinks.directory"} <= {each.__name__ for each in asking}
    for module in asking:
        module.datetime = ShiftedTime  # type: ignore[attr-defined]
    machine = time.time
    time.time = lambda: machine() + offset().total_seconds()


class Gated:
    """A module, but for one function that first waits at the gate."""

    def __init__(self, module: Any, name: str) -> None:
        self._module = module
        setattr(self, name, gated(getattr(module, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def gated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, but its first call waits at the gate."""
    gate, is_first = Path(os.environ[GATE]), [True]

    def wait_and_call(*args: Any, **kwargs: Any) -> Any:
        if is_first:
            is_first.clear()
            gate.touch()
            end = time.monotonic() + _PATIENCE
            while gate.exists() and time.monotonic() < end:
                time.sleep(0.005)
        return function(*args, **kwargs)

    return wait_and_call


def put_up_the_gate(stage: str) -> None:
    """Let the agent wait as it enters a stage."""
    name, function = STAGES[stage]
    module = importlib.import_module(name)
    if function.startswith("os."):
        module.os = Gated(os, function.removeprefix("os."))  # type: ignore[attr-defined]
    else:
        setattr(module, function, gated(getattr(module, function)))


def main() -> None:
    if CLOCK in os.environ:
        shift_the_clock()
    if STAGE in os.environ:
        put_up_the_gate(os.environ[STAGE])
    if HURRY in os.environ:
        connection = importlib.import_module("certagent.sources.vault.connection")
        connection._HURRY = float(os.environ[HURRY])
    from certagent.__main__ import command  # noqa: PLC0415 - after what it is to find

    command()


if __name__ == "__main__":
    main()
