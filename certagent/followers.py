"""What follows a publication: hooks are run, and the reader is asked whether it took the set.

Nothing here can undo a publication, or hold one up for longer than a handshake's second.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from msgspec.structs import replace

from certagent.runtime.confirmation import Confirmation, Confirmer, IssuedBy, Serves, shown
from certagent.runtime.hooks import PUBLISHED, UNCONFIRMED, Event
from certagent.runtime.logs import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from certagent.assignment import Change
    from certagent.runtime.handshake import Reader
    from certagent.runtime.hooks.runner import HookRunner
    from certagent.runtime.status import AgentStatus

log = logging.getLogger("certagent.agent")


class Hooks:
    """Tells the hooks of what was published, from the second publication on.

    At the first nobody reads yet: the reader starts after it.
    """

    def __init__(self, runner: HookRunner, directories: Mapping[str, str]) -> None:
        self._runner = runner
        self._directories = directories
        self._untold: dict[str, int] = {}

    def report(self, status: AgentStatus) -> AgentStatus:
        """Return the status with how each hook fared."""
        return replace(status, hooks=self._runner.status)

    def changing(self, bundle: str) -> None:
        """Do nothing: a hook is told of what is done."""

    def changed(self, change: Change) -> None:
        """Tell the hooks that want to know."""
        if change.before is not None:
            self._untold[change.bundle] = self._given_up(change.bundle)
            self._runner.submit(event(PUBLISHED, change, self._directories[change.bundle]))

    def unconfirmed(self, change: Change, reason: str) -> None:
        """Tell the hooks that asked for it that the reader did not take a set."""
        directory = self._directories[change.bundle]
        self._runner.submit(event(UNCONFIRMED, change, directory, reason))

    def turn(self, now: float) -> float:
        """Return when to look again whether the hooks are done: they have threads of their own."""
        return now + 1.0 if self._untold else math.inf

    def told(self) -> Sequence[str]:
        """Return the bundles all of whose hooks have run; one that was given up never has."""
        waiting = {hook.bundle for hook in self._runner.status if hook.waiting}
        done = [bundle for bundle in self._untold if bundle not in waiting]
        ok = [bundle for bundle in done if self._given_up(bundle) == self._untold[bundle]]
        for bundle in done:
            del self._untold[bundle]
        return ok

    def _given_up(self, bundle: str) -> int:
        return sum(hook.given_up for hook in self._runner.status if hook.bundle == bundle)

    def close(self) -> None:
        """End what runs."""
        self._runner.close()


class Confirmations:
    """Asks the readers whether they took what was published, from the second publication on.

    `readers` are by bundle; `on_unconfirmed` is told once of each set that was not taken.
    """

    def __init__(
        self,
        readers: Mapping[str, Reader],
        on_unconfirmed: Callable[[Change, str], None] = lambda _, __: None,
    ) -> None:
        self._unconfirmed: Mapping[str, bool] = {}
        self._readers = readers
        self._on_unconfirmed = on_unconfirmed
        self._before: dict[str, str] = {}
        self._pending: dict[str, tuple[Change, Confirmer, str]] = {}

    def changing(self, bundle: str) -> None:
        """Look at what the reader serves before: a new certificate of the same CA is a reload."""
        if bundle in self._readers:
            self._before[bundle] = shown(self._readers[bundle])

    def changed(self, change: Change) -> None:
        """Begin to ask; a newer set takes the place of the one that was asked for."""
        reader = self._readers.get(change.bundle)
        if reader is None or change.before is None:
            return
        certificate = change.verified.bundle.certificate
        expected = (
            IssuedBy(certificate, self._before.get(change.bundle, ""))
            if change.kind.is_ca
            else Serves(certificate.fingerprint)
        )
        confirmer = Confirmer(reader, expected, change.at, roots_changed=change.roots)
        self._pending[change.bundle] = (change, confirmer, "pending")

    def turn(self, now: float) -> float:
        """Ask those that are due."""
        for bundle, (change, confirmer, before) in list(self._pending.items()):
            seen = confirmer.turn(now)
            if seen.state != before:
                self._pending[bundle] = (change, confirmer, seen.state)
                self._tell(change, seen)
        return min((confirmer.due for _, confirmer, _ in self._pending.values()), default=math.inf)

    def told(self) -> Sequence[str]:
        """Return nothing: who asks has told nobody."""
        return ()

    def report(self, status: AgentStatus) -> AgentStatus:
        """Return the status with whose reader did not take its set."""
        return replace(status, unconfirmed=self._unconfirmed)

    def close(self) -> None:
        """Stop asking."""
        self._pending.clear()

    def _tell(self, change: Change, seen: Confirmation) -> None:
        about = fields(
            bundle=change.bundle,
            version=change.record.get("version", ""),
            after=f"{seen.after:.1f}s",
            reason=seen.reason,
            hint=seen.hint,
        )
        # Replaced, not changed: the probes' thread reads it.
        missed = seen.state == "unconfirmed"
        self._unconfirmed = {**self._unconfirmed, change.bundle: missed}
        if seen.state == "confirmed":
            log.info("confirmed: the reader took the set", extra=about)
        else:
            log.error("unconfirmed: the reader did not take the set", extra=about)
            self._on_unconfirmed(change, seen.reason)


def event(name: str, change: Change, directory: str, reason: str = "") -> Event:
    """Return what hooks are told of a change."""
    certificate = change.verified.bundle.certificate
    before = change.before.record if change.before else {}
    part_of = {name: part for part, name in change.kind.files.items()}
    return Event(
        name="unconfirmed" if name == UNCONFIRMED else "published",
        bundle=change.bundle,
        version=change.record.get("version", ""),
        changed=tuple(part_of[file] for file in sorted(change.files) if file in part_of),
        subject=certificate.subject,
        serial=certificate.serial,
        sha256=certificate.fingerprint,
        root_set=change.verified.bundle.root_set,
        not_after=change.verified.not_after,
        phase=change.record.get("phase", ""),
        directory=directory,
        sha256_before=before.get("sha256", ""),
        root_set_before=before.get("rootSet", ""),
        reason=reason,
    )
