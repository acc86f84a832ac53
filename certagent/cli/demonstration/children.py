"""Child processes that end with the demo, whatever ends it; and a wait that knows of them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from certagent.errors import CertagentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

_T = TypeVar("_T")

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends the demo: Ctrl-C, a supervisor, a terminal that is closed."""

_PR_SET_PDEATHSIG = 1
"""prctl(2), from linux/prctl.h."""

_OURS = ("CERTAGENT_", "VAULT_", "BAO_", "AZURE_", "ROOT_CA_DIR")
_GRACE = 10.0  # seconds
_POLL = 0.01  # seconds
_TOLD = 3  # lines of a child's log that a message has room for
_LONGEST_COMMAND = 60.0  # seconds


def environment(**extra: str) -> dict[str, str]:
    """Return the environment without what would configure an agent or a client, and `extra`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return kept | extra


@contextmanager
def child(
    command: Sequence[str], environ: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a process group of its own, and end it; it writes to `log`.

    No stop can come between its start and the place where its end is sure, and the kernel ends it
    if we are killed. Raises `OSError` where it cannot be started.
    """
    libc = ctypes.CDLL(None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)

    def settle() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    try:
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own commands
                list(command),
                cwd=log.parent,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=settle,  # noqa: PLW1509 - the demo has no threads
            )
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a child, by its pid: first it is asked to."""
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for(
    what: str,
    condition: Callable[[], _T | None],
    process: subprocess.Popen[bytes],
    log: Path,
    within: float = 20.0,
) -> _T:
    """Return the first result of `condition` that is not None.

    Raises `CertagentError` with the end of the log when the child has ended, or after `within`
    seconds.
    """
    until = time.monotonic() + within
    while (result := condition()) is None:
        if process.poll() is not None:
            raise failed(f"{what}: the process has ended with {process.returncode}.", log)
        if time.monotonic() > until:
            raise failed(f"{what}: not within {within:g} s.", log)
        time.sleep(_POLL)
    return result


def certagent(directory: Path, *words: str) -> str:
    """Run a verb to its end in a directory and return its stdout; raises `CertagentError`."""
    command = [sys.executable, "-m", "certagent", *words]
    done = subprocess.run(  # noqa: S603 - ourselves
        command,
        cwd=directory,
        env=environment(PYTHONUTF8="1", PYTHONIOENCODING="utf-8"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=_LONGEST_COMMAND,
        check=False,
    )
    if done.returncode:
        told = (done.stderr or done.stdout).strip()
        raise CertagentError(
            f"`certagent {' '.join(words)}` failed ({done.returncode}).", hint=told
        )
    return done.stdout


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def failed(message: str, log: Path) -> CertagentError:
    """Return the error of a child, with the last lines that it wrote."""
    lines = log.read_text(errors="replace").splitlines()
    return CertagentError(message, hint="\n".join(lines[-_TOLD:]) or "It wrote nothing.")
