"""Tells hooks of events, beside the loop.

Each hook has a daemon thread of its own, started with its first event: a hook that hangs delays
neither the polls, nor a stop, nor another hook, and its timeout holds also while the loop waits for
a store. To turn hooks in the loop instead would tie their deadlines to those of the stores, and a
name resolution cannot be turned at all.

What a hook has still to be told is one event of a kind, not a queue: newer ones absorb older ones.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from certagent.runtime.hooks import PUBLISHED, UNCONFIRMED, HookStatus
from certagent.runtime.hooks.actions import HookFailed, perform
from certagent.runtime.logs import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from certagent.runtime.hooks import Event, Hook

FIRST_PAUSE = 5.0
"""Seconds between the first failure and the second attempt; each further pause is three times it:
five attempts take three minutes."""

LONGEST_PAUSE = 300.0
"""Seconds that no pause exceeds."""

_TRIPLINGS = 32
"""After so many failures the backoff grows no more: floats are finite."""

log = logging.getLogger("certagent.hooks")


def backoff(failures: int, dice: float) -> float:
    """Return the pause in seconds after so many failures in a row; `dice` is in [0, 1).

    Between half and all of `FIRST_PAUSE` times three to the power of the failures before, or of
    `LONGEST_PAUSE`: replicas that failed together do not try again together.
    """
    longest = min(FIRST_PAUSE * 3.0 ** min(failures - 1, _TRIPLINGS), LONGEST_PAUSE)
    return longest * (1 + dice) / 2


class Outbox:
    """What one hook has still to be told, and when; times are monotonic seconds.

    A new publication absorbs one that waits: who is told of it is told of the changes of both.
    What was unconfirmed before it is nobody's concern any more.
    """

    def __init__(self, delay: float = 0.0) -> None:
        self.waiting: dict[str, Event] = {}
        self.due = math.inf
        self.failures = 0
        self._delay = delay

    def put(self, event: Event, now: float) -> None:
        """Add a new event."""
        earlier = self.waiting.get(event.name)
        if event.name == PUBLISHED:
            # Its attempts are counted from here.
            self.waiting.clear()
            self.failures = 0
        if not self.waiting:
            # One that waits for its delay is not put off again by every further event.
            self.due = min(self.due, now + self._delay)
        self.waiting[event.name] = event.since(earlier) if earlier else event

    def take(self, now: float) -> Event | None:
        """Remove and return the event that is due, a publication first."""
        if now < self.due:
            return None
        self.due = math.inf
        first = PUBLISHED if PUBLISHED in self.waiting else UNCONFIRMED
        return self.waiting.pop(first)

    def done(self, now: float) -> None:
        """Go on with what waits: what was taken was told, or is given up."""
        self.failures = 0
        if self.waiting and self.due == math.inf:
            self.due = now

    def failed(
        self, event: Event, now: float, attempts: int, pause: Callable[[int], float]
    ) -> bool:
        """Keep what was taken for another attempt; return whether it is given up instead.

        Where something newer came meanwhile, that is what will be told.
        """
        newer = self.waiting.get(PUBLISHED) or self.waiting.get(event.name)
        if newer is not None:
            if newer.name == event.name:
                self.waiting[event.name] = newer.since(event)
            return False
        self.failures += 1
        if self.failures >= attempts:
            self.done(now)
            return True
        self.waiting[event.name] = event
        self.due = now + pause(self.failures)
        return False


class HookRunner:
    """All hooks of an agent, each told by a thread of its own.

    `pause(failures)` is the time in seconds before the next attempt. `submit` never blocks and
    never raises; `status` may be read by any thread.
    """

    def __init__(self, hooks: Iterable[Hook], pause: Callable[[int], float]) -> None:
        self._workers = [_Worker(hook, pause) for hook in hooks]

    @property
    def status(self) -> tuple[HookStatus, ...]:
        """How each hook fared."""
        return tuple(worker.status for worker in self._workers)

    def submit(self, event: Event) -> None:
        """Tell the hooks that want the event, soon.

        Call it where the agent's signals are blocked already: a worker inherits the mask.
        """
        for worker in self._workers:
            if worker.hook.wants(event):
                worker.submit(event)

    def close(self, within: float = 3.0) -> None:
        """End what runs, within so many seconds; what was not told is logged and lost.

        A command needs `certagent.runtime.hooks.processes.GRACE` where it does not heed SIGTERM.
        """
        until = time.monotonic() + within
        for worker in self._workers:
            worker.cancel()
        for worker in self._workers:
            worker.end(max(0.0, until - time.monotonic()))


class _Worker:
    """One hook, its outbox and its thread."""

    def __init__(self, hook: Hook, pause: Callable[[int], float]) -> None:
        self.hook = hook
        self.status = HookStatus(hook.bundle, hook.name)
        self._pause = pause
        self._outbox = Outbox(hook.delay)
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"hook {hook.name}", daemon=True)
        self._told = {"bundle": hook.bundle, "hook": hook.name}

    def submit(self, event: Event) -> None:
        with self._changed:
            if self._closing:
                return
            self._outbox.put(event, time.monotonic())
            self.status = replace(self.status, waiting=True)
            self._changed.notify()
            if self._thread.ident is None:
                self._start()

    def _start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:
            # The pod is out of processes; the publication stands, and the next event tries again.
            log.error("a hook cannot be told: %s", error, extra=fields(**self._told))  # noqa: TRY400 - it is no bug

    def cancel(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()

    def end(self, within: float) -> None:
        if self._thread.ident is not None:
            self._thread.join(within)
        if self.status.waiting:
            log.warning(
                "the agent ends before a hook was told",
                extra=fields(**self._told, hint="It is not told again: do by hand what it does."),
            )

    def _run(self) -> None:
        while (event := self._next()) is not None:
            started = time.monotonic()
            try:
                perform(self.hook.action, event, lambda: self._closing)
            except HookFailed as failed:
                self._failed(event, failed)
            except Exception as bug:
                log.exception("a hook met a bug in certagent", extra=fields(**self._told))
                self._failed(event, HookFailed(type(bug).__name__))
            else:
                self._succeeded(event, time.monotonic() - started)

    def _next(self) -> Event | None:
        """Wait for an event that is due; None at the end."""
        with self._changed:
            while not self._closing:
                now = time.monotonic()
                event = self._outbox.take(now)
                if event is not None:
                    return event
                due = self._outbox.due
                self._changed.wait(None if due == math.inf else due - now)
        return None

    def _succeeded(self, event: Event, seconds: float) -> None:
        with self._changed:
            self._outbox.done(time.monotonic())
            self._count("ok", waiting=bool(self._outbox.waiting))
        log.info("hook done", extra=fields(**self._about(event), took=f"{seconds:.1f}s"))

    def _failed(self, event: Event, failed: HookFailed) -> None:
        with self._changed:
            now = time.monotonic()
            given_up = self._outbox.failed(event, now, self.hook.attempts, self._pause)
            retry_in = self._outbox.due - now
            self._count(failed.outcome, waiting=bool(self._outbox.waiting))
            self.status = replace(
                self.status,
                last_failure=datetime.now(UTC),
                given_up=self.status.given_up + given_up,
            )
        for line in failed.output:
            log.warning("hook said: %s", line, extra=fields(**self._told))
        about = self._about(event) | {"outcome": failed.outcome, "hint": failed.hint}
        if given_up:
            log.error("hook given up: %s", failed, extra=fields(**about))
        elif not self._closing:
            retry = f"{max(0.0, retry_in):.1f}s"
            log.warning("hook failed: %s", failed, extra=fields(**about, retry_in=retry))

    def _count(self, outcome: str, *, waiting: bool) -> None:
        runs = {**self.status.runs, outcome: self.status.runs.get(outcome, 0) + 1}
        self.status = replace(self.status, runs=runs, waiting=waiting)

    def _about(self, event: Event) -> dict[str, str]:
        return {**self._told, "event": event.name, "version": event.version}
