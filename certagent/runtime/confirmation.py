"""Whether the reader took a published set, by a TLS handshake on the pod's loopback.

istiod signs its own serving certificate anew, with the CA certificate that it has, whenever it
reloads (pilot/pkg/bootstrap/istio_ca.go, handleEvent); a gateway serves the leaf that it has. The
certificate is compared with what was published: that is why the server's chain is not verified.
What cannot be seen this way: a change of a gateway's `ca.crt` alone.

Import this module where confirmation is configured: `ssl` is not for those who do without.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from certagent.material.certificates import Certificate, Unparseable
from certagent.runtime.handshake import Unanswered, handshake

if TYPE_CHECKING:
    from certagent.runtime.handshake import Reader

FIRST_PAUSE = 0.25
"""Seconds before the first look, doubled from look to look: istiod waits 100 ms for more events
before it reloads (handleCACertsFileWatch)."""

LONGEST_PAUSE = 5.0
"""Seconds between two looks at most, while the reader is waited for."""

LATE_PAUSE = 60.0
"""Seconds between two looks after that: an alarm ends when somebody restarts the reader."""


class NotTaken(Exception):
    """The server showed another certificate; the one argument tells which."""


class Expectation(Protocol):
    """What a reader that took the set would show."""

    def examine(self, der: bytes) -> None:
        """Look at the certificate that it shows; raises `NotTaken`."""
        ...

    def causes(self, *, roots_changed: bool) -> str:
        """Name the likely causes why it shows another one, and what to do."""
        ...


@dataclass(frozen=True, slots=True)
class IssuedBy:
    """istiod's serving certificate is signed by the published CA certificate, and is a new one.

    `before` is the SHA-256 (hex) of what `shown` returned before the publication, or empty. Where
    the CA's key stays (a change of roots alone, a renewed CA certificate) only this tells an istiod
    that reloaded from one that did not.
    """

    certificate: Certificate
    before: str = ""

    def examine(self, der: bytes) -> None:
        """See `Expectation`."""
        served = _loaded(der)
        if served.fingerprint == self.before:
            raise NotTaken(f"still serves the old certificate {served.fingerprint}")
        try:
            served.x509.verify_directly_issued_by(self.certificate.x509)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
            raise NotTaken(
                f"still serves the old certificate {served.fingerprint}, issued by"
                f" {served.issuer!r} and not by the published {self.certificate.fingerprint}"
            ) from None

    def causes(self, *, roots_changed: bool) -> str:
        """See `Expectation`."""
        if roots_changed:
            return (
                "The roots changed: istiod then refuses the whole set unless"
                " ISTIO_MULTIROOT_MESH=true (its log: 'Multi root is disabled' or 'Updating new"
                " ROOT-CA not supported'). Set it, and restart istiod."
            )
        return (
            "Perhaps istiod mounts the volume by subPath, which never changes, or its watcher died"
            " (its log: 'failed to catch events on cacerts file'), or it serves a custom"
            " certificate, which cannot be asked. Restart istiod."
        )


@dataclass(frozen=True, slots=True)
class Serves:
    """A gateway serves the published leaf itself; `fingerprint` is its SHA-256 in hex."""

    fingerprint: str

    def examine(self, der: bytes) -> None:
        """See `Expectation`."""
        served = _fingerprint(der)
        if served != self.fingerprint:
            raise NotTaken(
                f"still serves the old certificate {served} and not the published"
                f" {self.fingerprint}"
            )

    def causes(self, *, roots_changed: bool) -> str:  # noqa: ARG002 - a gateway takes any roots
        """See `Expectation`."""
        return (
            "Perhaps the gateway mounts the volume by subPath, which never changes, its watcher"
            " died, or serverName asks for a host that another Gateway serves. Restart the gateway."
        )


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What is known of a set: `pending` until its reader's time is over.

    `reason` tells what the last look met, `hint` the likely causes and what to do; both are empty
    where the set is confirmed. `after` is the time since the publication, in seconds.
    """

    state: Literal["pending", "confirmed", "unconfirmed"]
    after: float = 0.0
    reason: str = ""
    hint: str = ""


class Confirmer:
    """Looks whether a set was taken, one bounded look a turn.

    Made at the moment of publication, `now` (monotonic seconds). The loop calls `turn` when `due`;
    each takes `handshake.ATTEMPT_SECONDS` at most. After the reader's time the set is unconfirmed,
    and looked at more rarely: who restarts the reader sees it confirmed. After that, `due` is
    infinite.
    """

    def __init__(
        self, reader: Reader, expectation: Expectation, now: float, *, roots_changed: bool = False
    ) -> None:
        self.confirmation = Confirmation("pending")
        self.due = now + min(FIRST_PAUSE, reader.within)
        self._reader = reader
        self._expectation = expectation
        self._roots_changed = roots_changed
        self._began = now
        self._pause = FIRST_PAUSE

    def turn(self, now: float) -> Confirmation:
        """Look once, if it is time to, and return what is known."""
        if now < self.due:
            return self.confirmation
        until = self._began + self._reader.within
        over = now >= until
        state: Literal["pending", "unconfirmed"] = "unconfirmed" if over else "pending"
        try:
            self._expectation.examine(handshake(self._reader))
        except (NotTaken, Unanswered) as seen:
            reason = f"{self._reader.address} {seen}"
            hint = self._hint(seen)
            self.confirmation = Confirmation(state, now - self._began, reason, hint)
            self._pause = LATE_PAUSE if over else min(2 * self._pause, LONGEST_PAUSE)
            self.due = now + self._pause if over else min(now + self._pause, until)
        else:
            self.confirmation = Confirmation("confirmed", now - self._began)
            self.due = float("inf")
        return self.confirmation

    def _hint(self, seen: Exception) -> str:
        if isinstance(seen, NotTaken):
            return self._expectation.causes(roots_changed=self._roots_changed)
        return (
            f"Nobody can be asked at {self._reader.address}, so nothing is known: see whether the"
            " reader runs, and whether confirm.address and serverName are those that it serves."
        )


def shown(reader: Reader) -> str:
    """Return the SHA-256 (hex) of what the reader serves now, or nothing where it does not answer.

    To be asked before a publication, for `IssuedBy`; takes `handshake.ATTEMPT_SECONDS` at most.
    """
    try:
        return _fingerprint(handshake(reader))
    except Unanswered:
        return ""


def _loaded(der: bytes) -> Certificate:
    try:
        return Certificate.load(der)
    except Unparseable as fault:
        raise NotTaken(f"serves a certificate that cannot be read: {fault}") from None


def _fingerprint(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()
