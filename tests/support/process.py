"""The agent as a process, as a pod would run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

COMMAND = (sys.executable, "-m", "certagent")
DEADLINE = 60.0
"""Seconds that a condition may take on a machine that does much else; nothing waits for its end."""
CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Finished:
    """How a run ended; `log` holds stderr's JSON lines where it was JSON."""

    code: int
    stdout: str
    stderr: str

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stderr.splitlines()]


def environment(extra: Mapping[str, object]) -> dict[str, str]:
    """The test's own (cleaned) environment, and `extra`; None takes a variable out."""
    merged = {**os.environ, "PYTHONUNBUFFERED": "1", **extra}
    return {name: str(value) for name, value in merged.items() if value is not None}


def certagent(
    *words: object,
    stdin: str = "",
    timeout: float = 60,
    command: Sequence[str] = COMMAND,
    **environ: object,
) -> Finished:
    """Run a verb to its end."""
    done = subprocess.run(
        [*command, *map(str, words)],
        env=environment(environ),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@dataclass
class Running:
    """A `certagent run` that is under way."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def logged(self, message: str, **fields: object) -> list[dict[str, Any]]:
        """The log's records whose message contains the text, and which have these fields."""
        return [
            record
            for record in self.log
            if message in record["message"]
            and all(record.get(name) == value for name, value in fields.items())
        ]

    @property
    def publications(self) -> list[dict[str, Any]]:
        """The log's records of publications."""
        return [record for record in self.log if record["message"] == "published"]

    def until(self, condition: Callable[[], Any], within: float = DEADLINE) -> Any:
        """Wait for a condition while the agent lives; return its value."""
        return until(condition, within, self._explain)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, within: float = 30) -> int:
        """Send SIGTERM and return the exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(within)

    def _explain(self) -> str:
        return f"exit code {self.process.poll()}; log:\n" + "".join(self.lines[-40:])


def until(
    condition: Callable[[], Any],
    within: float = DEADLINE,
    explain: Callable[[], str] = lambda: "",
) -> Any:
    """Wait until a condition holds; return its value."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {explain()}")
        time.sleep(0.01)
    return value


@contextmanager
def running(
    *words: object, verb: str = "run", command: Sequence[str] = COMMAND, **environ: object
) -> Iterator[Running]:
    """Run a verb that stays, with JSON logs, and end it by its process id."""
    environ = {"CERTAGENT_LOG_FORMAT": "json", "CERTAGENT_SERVER_ADDRESS": "127.0.0.1:0", **environ}
    process = subprocess.Popen(
        [*command, verb, *map(str, words)],
        env=environment(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    agent = Running(process)
    reader = Thread(target=lambda: agent.lines.extend(process.stderr or ()), daemon=True)
    reader.start()
    try:
        yield agent
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait(10)
        reader.join(10)
        if process.stderr:
            process.stderr.close()


@contextmanager
def started(module: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a helper of the tests until it says that it has begun; it is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().strip() in ("ready", "reading")
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)
        process.stdout.close()


def published(directory: Path) -> dict[str, bytes]:
    """What a reader finds: the files of the present set, resolved once; or nothing."""
    try:
        data = directory / (directory / "..data").readlink()
        return {path.name: path.read_bytes() for path in data.iterdir() if path.suffix == ".pem"}
    except FileNotFoundError:
        return {}
