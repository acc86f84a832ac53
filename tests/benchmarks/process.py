"""A whole process, and what it costs: from its start to its end, or while it stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tests.support.inotify import Inotify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
"""Where the command runs: what is measured is this checkout's certagent, installed or not."""

LAUNCHER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py")))
DEADLINE = 60.0
GRACE = 15.0
"""Seconds that an agent may take to end after SIGTERM."""


@dataclass(frozen=True)
class Job:
    """A command with its whole environment, the volumes it writes to, and what each is to hold.

    `files` are paths in a volume as a reader opens them, through whatever links there are.
    """

    command: tuple[str, ...]
    environ: Mapping[str, str] = field(repr=False)
    volumes: tuple[Path, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Cost:
    """What a run cost: seconds to the last file and to the end, seconds of CPU, bytes at most."""

    published: float
    ended: float
    cpu: float
    peak: float


class Failed(Exception):
    """A contender did not do its work; the text has the end of what it said."""


def publish(job: Job) -> Cost:
    """Run a command that publishes and ends; raises `Failed`."""
    command = (*LAUNCHER, *job.command)
    with _log() as log:
        with _started(command, job, subprocess.PIPE, log) as child:
            published = _published(job, child, log)
            try:
                report = json.loads(child.communicate(timeout=DEADLINE)[0])
            except subprocess.TimeoutExpired:
                raise _failure(job, "did not end", log) from None
        if report["code"] != 0:
            raise _failure(job, f"ended with {report['code']}", log)
    began, ended = report["began"], report["ended"]
    # On a busy machine the news may come later than the end.
    return Cost(min(published, ended) - began, ended - began, report["cpu"], report["peak"])


@dataclass(frozen=True)
class Staying:
    """A process that has published and stays."""

    process: subprocess.Popen[str]

    @property
    def cpu(self) -> float:
        """Seconds of CPU that it has used so far."""
        return cpu(self.process.pid)

    def memory(self, name: str) -> int:
        """Return bytes from a field of `/proc/PID/status`, such as `VmRSS` or `RssAnon`."""
        return self._memory("status", name)

    @property
    def share(self) -> int:
        """Bytes of memory, of what others have mapped too only its share (PSS).

        Of an agent that is not dumpable only root may read it; raises `PermissionError`.
        """
        return self._memory("smaps_rollup", "Pss:")

    def _memory(self, file: str, name: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/{file}").read_text().splitlines()
        (kibibytes,) = (line.split()[1] for line in lines if line.startswith(name))
        return int(kibibytes) * 1024


def cpu(process: int) -> float:
    """Return the seconds of CPU that all threads of a process, also ended ones, have used.

    From the process's own clock, which counts nanoseconds (clock_getcpuclockid(3) computes its
    number like this); /proc counts ticks of 10 ms.
    """
    return time.clock_gettime((~process << 3) | 2)


@contextmanager
def staying(job: Job) -> Iterator[Staying]:
    """Yield a process once it has published, and end it; raises `Failed`."""
    with together([job]) as (agent,):
        yield agent


@contextmanager
def together(
    jobs: Sequence[Job], begin: Callable[[], bool] = lambda: True
) -> Iterator[list[Staying]]:
    """Yield processes that run side by side once all have published, and end them all.

    `begin` is asked again and again, once all have been started, until it says that they have
    begun. Raises `Failed`.
    """
    with ExitStack() as stack:
        started: list[tuple[Job, subprocess.Popen[str], IO[str]]] = []
        for job in jobs:
            log = stack.enter_context(_log())
            started.append((job, stack.enter_context(_started(job.command, job, log, log)), log))
        _begin(started, begin)
        for each in started:
            _published(*each)
        yield [Staying(process) for _, process, _ in started]
        for _, process, _ in started:
            process.terminate()
        for job, process, log in started:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                raise _failure(job, "did not end", log) from None


def _begin(
    started: Sequence[tuple[Job, subprocess.Popen[str], IO[str]]], begin: Callable[[], bool]
) -> None:
    deadline = time.monotonic() + DEADLINE + len(started)
    while not begin():
        for job, process, log in started:
            if process.poll() is not None or time.monotonic() > deadline:
                raise _failure(job, "did not begin with the others", log)
        time.sleep(0.01)


@contextmanager
def _started(
    command: tuple[str, ...], job: Job, stdout: int | IO[str], stderr: IO[str]
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=dict(job.environ),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:  # with what it has started itself
                os.killpg(process.pid, signal.SIGKILL)


def _log() -> IO[str]:
    return tempfile.TemporaryFile("w+")


def _published(job: Job, process: subprocess.Popen[str], log: IO[str]) -> float:
    """Wait until every file is there, and return that moment (monotonic, in seconds)."""
    deadline = time.monotonic() + DEADLINE
    for volume in job.volumes:
        with Inotify(volume) as watch:
            while True:
                has_ended = process.poll() is not None
                if all((volume / name).exists() for name in job.files):
                    break
                if has_ended or time.monotonic() > deadline:
                    raise _failure(job, f"did not publish all of {', '.join(job.files)}", log)
                watch.wait(0.1)
    return time.monotonic()


def _failure(job: Job, what: str, log: IO[str]) -> Failed:
    log.seek(0)
    return Failed(f"{' '.join(job.command)} {what}; it said:\n{log.read()[-4000:]}")
