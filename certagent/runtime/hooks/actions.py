"""What a hook does, once; whether it is done again is not decided here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from certagent.runtime.concealment import concealed
from certagent.runtime.hooks import Exec, Http, Signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from certagent.runtime.hooks import Event

_TOLD_LINES = 5  # of the output of a command that failed
_TOLD_CHARACTERS = 400  # of each of them
_PASSED_ON = ("PATH", "HOME", "LANG")
_SUCCESS = range(200, 300)


class HookFailed(Exception):
    """A hook did not do its work; `outcome` and `output` (lines) are for counters and the log."""

    def __init__(
        self, reason: str, *, hint: str = "", outcome: str = "failed", output: tuple[str, ...] = ()
    ) -> None:
        super().__init__(reason)
        self.hint = hint
        self.outcome = outcome
        self.output = output


def perform(action: Exec | Signal | Http, event: Event, cancelled: Callable[[], bool]) -> None:
    """Tell an event once; raises `HookFailed`."""
    match action:
        case Exec():
            _execute(action, event, cancelled)
        case Signal():
            _signal(action)
        case Http():
            _send(action, event)


def _execute(action: Exec, event: Event, cancelled: Callable[[], bool]) -> None:
    from certagent.runtime.hooks import processes  # noqa: PLC0415 - only for those who have such a hook

    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    command = action.argv[0]
    try:
        ended = processes.run(
            action.argv, passed_on | event.variables(), event.body(), action.timeout, cancelled
        )
    except (OSError, ValueError) as error:
        raise HookFailed(
            f"{command} cannot be started: {getattr(error, 'strerror', None) or error}",
            hint="The command must be in the agent's own image, and executable.",
        ) from error
    if ended.in_time and ended.code == 0:
        return
    if ended.in_time:
        reason, outcome = f"{command} ended with {ended.code}", "failed"
    elif cancelled():
        reason, outcome = f"{command} was ended with the agent", "cancelled"
    else:
        reason, outcome = f"{command} was killed after {action.timeout:g} s", "timeout"
    raise HookFailed(reason, outcome=outcome, output=last_lines(ended.output))


def _signal(action: Signal) -> None:
    from certagent.runtime.hooks import processes  # noqa: PLC0415 - as in `_execute`

    what = f"{action.number.name} to {action.process!r}"
    try:
        processes.signal_by_name(action.process, action.number)
    except ProcessLookupError as error:
        raise HookFailed(
            f"{what}: no such process",
            hint="Set shareProcessNamespace: true in the pod, and see whether its name is right.",
        ) from error
    except OSError as error:
        raise HookFailed(
            f"{what}: {error.strerror}",
            hint="The agent must run under the same user as the process, or have CAP_KILL.",
        ) from error


def _send(action: Http, event: Event) -> None:
    from certagent.runtime.hooks import webhook  # noqa: PLC0415 - as in `_execute`

    to = webhook.endpoint(action.url)
    where = f"{action.method} {'https' if to.tls else 'http'}://{to.authority}"
    try:
        status = webhook.send(to, action.method, event.body(), action.timeout, action.ca_file)
    except TimeoutError as error:
        raise HookFailed(
            f"{where}: no answer in {action.timeout:g} s", outcome="timeout"
        ) from error
    except OSError as error:
        raise HookFailed(f"{where}: {error.strerror or error}") from error
    if status not in _SUCCESS:
        raise HookFailed(f"{where} answered {status}", hint="Only 2xx counts as done.")


def last_lines(output: bytes) -> tuple[str, ...]:
    """Return the last lines of a command's output as a log may show them.

    Secrets are concealed while the text is still whole: a private key has many lines. The end of
    one whose beginning was cut off goes with all that is before it.
    """
    text = concealed(output.decode("utf-8", "backslashreplace"))
    _, _, shown = text.rpartition("PRIVATE KEY-----")
    lines = [line.strip()[-_TOLD_CHARACTERS:] for line in shown.splitlines() if line.strip()]
    return tuple(lines[-_TOLD_LINES:])
