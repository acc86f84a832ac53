"""Other processes: a child that is bounded in time and in what it says, and signals by name.

Import this module where a hook needs it.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

OUTPUT_BYTES = 1 << 16
"""Bytes of a child's output that are kept: the last ones. The rest is read and thrown away."""

GRACE = 2.0
"""Seconds that a child has between SIGTERM and SIGKILL."""

_LOOK = 0.05  # seconds between two looks whether a silent child has ended
_BREATH = 0.001  # seconds between two full reads: who floods the pipe must not take our processor
_LAST_READS = 2  # of a pipe's capacity each, once nobody can write any more

_UNCATCHABLE = {signal.SIGKILL, signal.SIGSTOP}
_DEFAULT = tuple(signal.valid_signals() - set(range(signal.SIGRTMIN, signal.NSIG)) - _UNCATCHABLE)
"""What a command gets the default action of: Python ignores two of these, `nohup` another."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: `code` as `subprocess` has it, negative for the signal that killed it.

    `in_time` is false when it was ended by us. `output` is the end of its stdout and stderr.
    """

    code: int
    in_time: bool
    output: bytes = field(repr=False)


def run(
    argv: Sequence[str],
    environment: Mapping[str, str],
    stdin: bytes,
    timeout: float,
    cancelled: Callable[[], bool] = lambda: False,
) -> Ended:
    """Run a command to its end, for `timeout` seconds at most, or until `cancelled`.

    It leads a process group. At the timeout the group gets SIGTERM, and after `GRACE` SIGKILL; what
    is left of the group when the command ends is killed too. `stdin` is what a pipe can hold: 4 KiB
    always, 64 KiB as a rule. Raises `OSError` or `ValueError` where it cannot be started. Any
    thread may call this, and several at a time.
    """
    child = _Child(argv, environment, stdin)
    try:
        in_time = child.ends_within(timeout, cancelled)
        if not in_time:
            child.kill(signal.SIGTERM)
            child.ends_within(GRACE, lambda: False)
    finally:
        code = child.finish()
    return Ended(code, in_time, child.output)


class _Child:
    """A child process, started by posix_spawn(3).

    Not by `subprocess`: the agent blocks the signals that it waits for, a child inherits the mask,
    and a command that blocks SIGTERM can only be killed. `subprocess` can restore a mask by a
    `preexec_fn` alone, which runs Python between fork and exec and can deadlock in a process with
    threads; to open the mask here around the fork would let a SIGTERM of that moment end the agent.
    posix_spawn sets the mask in the child alone, and the memory, which holds keys, is not copied.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], stdin: bytes) -> None:
        self.output = b""
        self._reader, writer = os.pipe()
        try:
            self._pid = _spawn(argv, environment, stdin, writer)
        except BaseException:
            os.close(self._reader)
            raise
        finally:
            os.close(writer)
        os.set_blocking(self._reader, False)
        self._readable = select.poll()
        self._readable.register(self._reader, select.POLLIN)

    def ends_within(self, seconds: float, cancelled: Callable[[], bool]) -> bool:
        """Read what it says until it has ended, and return true; or false when the time is over."""
        until = time.monotonic() + seconds
        while not self._has_ended():
            left = until - time.monotonic()
            if left <= 0 or cancelled():
                return False
            if self._readable.poll(min(left, _LOOK) * 1000):
                time.sleep(_BREATH if self._read() else _LOOK)
        return True

    def kill(self, number: int) -> None:
        """Send a signal to the group: before it is reaped, when its number is still its own."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    def finish(self) -> int:
        """Kill and reap what is left, take the last output, and return the exit code.

        As PID 1 of a container the agent inherits the orphans of the group, and reaps them too.
        """
        self.kill(signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-self._pid, 0)
        for _ in range(_LAST_READS):
            self._read()
        os.close(self._reader)
        return os.waitstatus_to_exitcode(status)

    def _has_ended(self) -> bool:
        # WNOWAIT leaves it a zombie, so that its number cannot pass to somebody else's group.
        ended = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return ended is not None

    def _read(self) -> bool:
        """Read what there is; return false once everybody has closed the pipe."""
        with suppress(BlockingIOError):
            read = os.read(self._reader, OUTPUT_BYTES)
            self.output = (self.output + read)[-OUTPUT_BYTES:]
            return bool(read)
        return True


def _spawn(argv: Sequence[str], environment: Mapping[str, str], stdin: bytes, output: int) -> int:
    """Start a command, found in our own PATH."""
    event = _filled_pipe(stdin)
    try:
        return os.posix_spawnp(
            argv[0],
            list(argv),
            dict(environment),
            # All other descriptors are closed on exec (PEP 446).
            file_actions=[
                (os.POSIX_SPAWN_DUP2, event, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ],
            setpgroup=0,
            setsigmask=(),
            setsigdef=_DEFAULT,
        )
    finally:
        os.close(event)


def _filled_pipe(data: bytes) -> int:
    """Return the end to read from of a pipe that holds all of `data`, and that nobody writes to.

    Written before there is a reader, it cannot block, whether the command reads it or not.
    """
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        written = os.write(writer, data)
    finally:
        os.close(writer)
    if written < len(data):
        os.close(reader)
        raise OSError(errno.E2BIG, "its event is larger than a pipe")
    return reader


def signal_by_name(name: str, number: int) -> int:
    """Send a signal to every process of that name but ourselves; return how many there were.

    The name is the kernel's (/proc/PID/comm, cut at 15 characters) or that of the file in argv[0].
    Raises `ProcessLookupError` where there is none, `PermissionError` where one may not be
    signalled: after all the others got theirs.
    """
    reached, refused = 0, None
    for pid in _named(name):
        try:
            os.kill(pid, number)
            reached += 1
        except ProcessLookupError:
            continue
        except PermissionError as error:
            refused = error
    if refused is not None:
        raise refused
    if not reached:
        raise ProcessLookupError(f"no process is called {name!r}")
    return reached


def _named(name: str) -> Iterator[int]:
    wanted = os.fsencode(name)
    for entry in os.listdir("/proc"):  # noqa: PTH208 - thousands of names need no objects
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            command = Path("/proc", entry, "cmdline").read_bytes()
            comm = Path("/proc", entry, "comm").read_bytes().rstrip(b"\n")
        except OSError:
            continue  # it has ended, or is hidden from us
        # Zombies and kernel threads have no command line: a signal to them changes nothing.
        if command and wanted in (comm, command.partition(b"\0")[0].rpartition(b"/")[2]):
            yield int(entry)
