"""The loop around the passes: every bundle by its own schedule and with its own failures.

A failure never ends the loop. A store that lets a bundle wait delays the others by that one pass:
its other bundles have to wait for the next turn, and whatever works comes first.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from certagent.assignment import Listener
from certagent.errors import AccessDenied, CertagentError, OutputError, SourceUnavailable, Stopping
from certagent.keeper import Keeper
from certagent.runtime.clocks import Instant
from certagent.runtime.logs import fields
from certagent.runtime.signals import Interrupted, Wake
from certagent.runtime.status import AgentStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from certagent.assignment import Assignment, Change
    from certagent.runtime.schedule import Schedule
    from certagent.runtime.signals import Signals
    from certagent.sources import Connection

log = logging.getLogger("certagent.agent")

GRACE = 120.0
"""Seconds that one bundle's pass may take before `/livez` calls the loop stuck, by default."""

_REMINDER = 300.0
"""Seconds after which an unchanged fault is logged again: a line a poll would bury all others."""


_SHORTEST_CHANGE = 1.0
"""Seconds between two passes at least that changes of a watched directory ask for."""

_LONGEST_WAIT = 1.0
"""Seconds that a pass may take before it fails, for its store to be asked again in the same turn: a
hundred bundles of a store that does not answer would wait for it a hundred times."""

_SHORTEST_PAUSE = 0.01
"""Seconds between two passes at least, when a boundary of a rotation is at hand."""


class Follower(Listener, Protocol):
    """Who does something after a publication: hooks, or a look at whether the reader took it."""

    def turn(self, now: float) -> float:
        """Do what is due at `now` (monotonic), and return when the next turn is due."""
        ...

    def told(self) -> Sequence[str]:
        """Return the bundles of whose last change everybody has been told since it was asked."""
        ...

    def report(self, status: AgentStatus) -> AgentStatus:
        """Return the status with what there is to say; any thread may ask."""
        ...

    def close(self) -> None:
        """End what is under way."""
        ...


class Tempo(Struct, frozen=True):
    """How the loop keeps time, in seconds.

    `patience`: how long a start tries its store before it takes to a fallback. `grace`: how long
    one bundle's pass may take before `/livez` calls the loop stuck, more than the deadlines of its
    requests together.
    """

    schedule: Schedule
    patience: float = math.inf
    grace: float = GRACE


class _Task(Struct):
    """A bundle in the loop: when it is due (monotonic seconds), and how it fared."""

    keeper: Keeper
    due: float = 0.0
    turned: Instant | None = None
    failures: int = 0
    succeeded: bool = False
    error: CertagentError | None = None
    reported: str = ""
    reported_at: float = 0.0

    @property
    def turned_at(self) -> float:
        """When its last pass began (monotonic seconds)."""
        return self.turned.monotonic if self.turned else -math.inf

    @property
    def works(self) -> bool:
        """Whether its last pass was a success."""
        return self.succeeded and not self.failures


class Agent:
    """Keeps every bundle published.

    `signals.wait` is the only pause; a stop that is pending ends a turn over many bundles early.
    `connections` are the stores' logins by name, which all bundles share.
    """

    def __init__(
        self,
        assignments: Iterable[Assignment],
        connections: Mapping[str, Connection],
        tempo: Tempo,
        signals: Signals,
        followers: Sequence[Follower] = (),
    ) -> None:
        self._tasks = [_Task(Keeper(assignment, self)) for assignment in assignments]
        self._followers = followers
        self._grace = tempo.grace
        self._fall_back_at = time.monotonic() + tempo.patience
        self._connections = connections
        self._schedule = tempo.schedule
        self._signals = signals
        self.status = self._status(0.0)

    def init(self, deadline: float) -> None:
        """Publish every bundle once, within `deadline` seconds; optional ones are tried once.

        Raises the error of the first required bundle that was not published, or `Interrupted`.
        """
        until = time.monotonic() + deadline
        self._turn(self._tasks)
        while pending := [task for task in self._tasks if not task.succeeded]:
            required = [task for task in pending if task.keeper.assignment.required]
            if not required:
                return
            left = until - time.monotonic()
            for error in [task.error for task in required if task.error]:
                if left <= 0 or not error.transient:
                    raise error
            pause = min(task.due for task in pending) - time.monotonic()
            if self._signals.wait(max(0.0, min(pause, left))) is Wake.STOP:
                raise Interrupted
            self._turn([task for task in pending if task.due <= time.monotonic()])

    def run(self) -> None:
        """Publish, then stay and poll until a stop comes."""
        for task in self._tasks:
            task.keeper.adopt(datetime.now(UTC))
            if task.keeper.status.ready:
                task.due = time.monotonic() + self._schedule.first()
        wake = Wake.TIMEOUT
        while wake is not Wake.STOP:
            self._turn([task for task in self._tasks if self._is_due(task, wake)])
            due = min(task.due for task in self._tasks)
            for follower in self._followers:
                due = min(due, follower.turn(time.monotonic()))
                self._acknowledge(follower.told())
            pause = max(0.0, due - time.monotonic())
            self.status = self._status(pause)
            wake = self._signals.wait(pause)

    def current(self) -> AgentStatus:
        """Return the status of the last turn, with what followers have to say now."""
        status = self.status
        for follower in self._followers:
            status = follower.report(status)
        return status

    def close(self) -> None:
        """Let go of the output directories, and give the logins back."""
        for follower in self._followers:
            follower.close()
        for task in self._tasks:
            task.keeper.assignment.sink.close()
        for connection in self._connections.values():
            connection.close()

    def _acknowledge(self, bundles: Sequence[str]) -> None:
        for task in self._tasks:
            if task.keeper.assignment.name in bundles:
                with suppress(OutputError):  # the next pass meets it too, and says so
                    task.keeper.acknowledge()

    @staticmethod
    def _is_due(task: _Task, wake: Wake) -> bool:
        """Whether a task's time has come, or somebody asks for it.

        A watched directory that changes without end must not make a poll of every change.
        """
        now = time.monotonic()
        if wake is Wake.CHANGED and task.keeper.assignment.watched:
            task.due = min(task.due, max(now, task.turned_at + _SHORTEST_CHANGE))
        if wake is Wake.RELOAD:
            task.due = min(task.due, now)
        return task.due <= now

    def _turn(self, tasks: Sequence[_Task]) -> None:
        """Make the passes that are due: of those that work first, then by how long they are due.

        Where a store let one wait, its others stay due, and the next turn begins with another.
        """
        silent: set[str] = set()
        for task in sorted(tasks, key=lambda each: (not each.works, each.due)):
            store = task.keeper.assignment.store
            if store in silent:
                continue
            if self._signals.stop_pending():
                return
            self._pass(task)
            waited = time.monotonic() - task.turned_at > _LONGEST_WAIT
            if store and waited and isinstance(task.error, SourceUnavailable):
                silent.add(store)
            self.status = self._status(0.0)

    def _pass(self, task: _Task) -> None:
        before, task.turned = task.turned, Instant.now()
        now = task.turned.wall
        if before is not None and (step := task.turned.set_since(before)):
            task.keeper.clock_was_set(step)
        try:
            task.keeper.refresh(now)
        except Stopping:
            return
        except CertagentError as error:
            error = self._fallen_back(task, error, now)
            task.error = error
            task.failures += 1
            retry_after = getattr(error, "retry_after", None)
            pause = self._schedule.after_failure(task.failures, retry_after)
            self._report(task, error, pause)
        else:
            if task.reported:
                log.info("recovered", extra=fields(bundle=task.keeper.assignment.name))
            task.error, task.failures, task.reported = None, 0, ""
            pause = self._schedule.after_success(first=not task.succeeded)
            task.succeeded = True
        if task.keeper.changes_at is not None:
            # A phase ends at its own time, also with an interval of hours.
            until = (task.keeper.changes_at - datetime.now(UTC)).total_seconds()
            pause = min(pause, max(until, _SHORTEST_PAUSE))
        task.due = time.monotonic() + pause

    def _fallen_back(self, task: _Task, error: CertagentError, now: datetime) -> CertagentError:
        """Publish a fallback where a start has tried its store for long enough."""
        unreachable = isinstance(error, (SourceUnavailable, AccessDenied))
        if unreachable and time.monotonic() >= self._fall_back_at and not task.succeeded:
            try:
                task.succeeded = task.keeper.fall_back(now)
            except CertagentError as worse:
                return worse
        return error

    def changing(self, bundle: str) -> None:
        """Pass on that a bundle is about to change."""
        for follower in self._followers:
            follower.changing(bundle)

    def changed(self, change: Change) -> None:
        """Pass on what was published."""
        for follower in self._followers:
            follower.changed(change)

    def _report(self, task: _Task, error: CertagentError, pause: float) -> None:
        """Log a failed pass: a new fault at once, an unchanged one every few minutes."""
        now = time.monotonic()
        if str(error) == task.reported and now - task.reported_at < _REMINDER:
            return
        task.reported, task.reported_at = str(error), now
        status = task.keeper.status
        log.error(
            "%s",
            error.message,
            extra=fields(
                bundle=task.keeper.assignment.name,
                source=task.keeper.assignment.source.name,
                fault=type(error).__name__,
                hint=error.hint,
                published=f"version {status.version} stays" if status.ready else "nothing",
                failures=task.failures,
                retry_in=f"{pause:.1f}s",
            ),
        )

    def _status(self, pause: float) -> AgentStatus:
        requests: Counter[tuple[str, str]] = Counter()
        logins: Counter[tuple[str, str]] = Counter()
        for store, connection in self._connections.items():
            requests.update({(store, outcome): n for outcome, n in connection.requests.items()})
            logins.update({(store, outcome): n for outcome, n in connection.logins.items()})
        return AgentStatus(
            bundles=tuple(task.keeper.status for task in self._tasks),
            turned_at=time.monotonic(),
            turn_due_within=pause + self._grace,
            requests=requests,
            logins=logins,
        )
