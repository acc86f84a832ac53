"""Signals as values that the loop takes when it is ready for them.

A handler runs between any two instructions: in the midst of a publication, or while a lock is held
that it needs itself (`threading.Event.set` in a handler can deadlock). So there are no handlers.
The signals are blocked, the kernel keeps them pending, and the loop's only pause takes them with
`sigtimedwait`. A publication is never interrupted, and a stop that came meanwhile waits for its
end. A blocked signal reaches PID 1 too, to which the kernel otherwise delivers none without a
handler.

SIGPIPE is not among them. Python ignores it, and this stays so: a log reader that goes away must
not end an agent that serves a mesh. Who writes to a closed pipe gets `BrokenPipeError`.

A child process inherits the mask: who starts one has to restore it there.
"""

from __future__ import annotations

import signal
import threading
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_LONGEST_WAIT = 1e9
"""Seconds (30 years) that fit in the kernel's time on every platform; an interval may be longer."""


class Interrupted(Exception):
    """A signal ended `init` before every required bundle was published."""


class Wake(IntEnum):
    """Why a wait ended; of several reasons, the greatest."""

    TIMEOUT = 0
    CHANGED = 1
    """A watcher saw a change: SIGUSR1."""
    RELOAD = 2
    """The operator asks for a poll now: SIGHUP."""
    STOP = 3
    """The process is to end: SIGTERM or SIGINT."""


_MEANING: dict[int, Wake] = {
    signal.SIGUSR1: Wake.CHANGED,
    signal.SIGHUP: Wake.RELOAD,
    signal.SIGINT: Wake.STOP,
    signal.SIGTERM: Wake.STOP,
}


class Signals:
    """The process's signals, taken one wait at a time.

    Enter it on the main thread before any other thread starts: a thread inherits the mask of the
    one that starts it, and the kernel gives a signal to any thread that does not block it. On exit
    the mask is as it was. What is pending then is dropped: the process is ending as it is, and the
    default action of a late SIGHUP would turn its exit code 0 into a death by signal.
    """

    def __init__(self) -> None:
        self._inherited: set[int] = set()
        self._waiter: int | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Block the signals, on the thread that will wait for them."""
        self._inherited = set(signal.pthread_sigmask(signal.SIG_BLOCK, _MEANING))
        self._waiter = threading.get_ident()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drop what is pending and give the mask back."""
        with self._lock:
            self._waiter = None
        _take(0)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._inherited)

    def wait(self, seconds: float) -> Wake:
        """Wait for a signal, `seconds` at most, and return the reason to go on.

        Time is monotonic: setting the clock neither ends nor extends a wait. Signals that arrived
        before count, and several become one: a stop hides a reload, a reload hides a change.
        """
        return _take(max(0.0, min(seconds, _LONGEST_WAIT)))

    def stop_pending(self) -> bool:
        """Return whether a stop waits to be taken: a pass over many bundles can end early then."""
        return any(_MEANING.get(number) is Wake.STOP for number in signal.sigpending())

    def wake(self) -> None:
        """End the present wait, or the next one, as `CHANGED`; any thread may call it, at any time.

        The signal goes to the waiting thread, which blocks it, and not to the process: there, a
        library's thread with an open mask would take it, and SIGUSR1 would end us.
        """
        with self._lock:
            if self._waiter is not None:
                signal.pthread_kill(self._waiter, signal.SIGUSR1)


def _take(seconds: float) -> Wake:
    """Take all pending signals, or wait for one; PEP 475 resumes a wait that EINTR cut short.

    Where it is cut short as its time ends, CPython (signal_sigtimedwait_impl, seen in 3.11) returns
    what lay on the stack instead of None: a number that is none of ours is the end of the time.
    """
    reason = Wake.TIMEOUT
    while (info := signal.sigtimedwait(_MEANING, seconds)) is not None:
        reason = max(reason, _MEANING.get(info.si_signo, Wake.TIMEOUT))
        seconds = 0
    return reason
