"""Who is told after a publication: a command, a process by signal, a URL.

A hook can hang, fail, or talk without end: a publication stands whatever it does, and the loop
never waits for it. Here is what a hook is and what it is told; `runner` tells it, by `actions`.
"""

from __future__ import annotations

import hashlib
import signal
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

PUBLISHED = "published"
UNCONFIRMED = "unconfirmed"

_PARTS = {
    "certificate": frozenset({"private_key", "certificate", "chain"}),
    "roots": frozenset({"roots"}),
}


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a bundle; nothing in it is secret.

    `changed` are parts: private_key, certificate, chain, roots, crls. `sha256` is the certificate's
    fingerprint, `root_set` the roots', both hex; what they were before is empty where nothing was.
    `reason` tells why a set is unconfirmed.
    """

    name: Literal["published", "unconfirmed"]
    bundle: str
    version: str
    changed: tuple[str, ...]
    subject: str
    serial: str
    sha256: str
    root_set: str
    not_after: datetime
    phase: str
    directory: str
    sha256_before: str = ""
    root_set_before: str = ""
    reason: str = ""

    def since(self, earlier: Event) -> Event:
        """Return this event for somebody who was not told of the earlier one."""
        return replace(
            self,
            changed=tuple(dict.fromkeys((*earlier.changed, *self.changed))),
            sha256_before=earlier.sha256_before,
            root_set_before=earlier.root_set_before,
        )

    def body(self) -> bytes:
        """Return the event as one JSON object, with keys in camelCase, and a newline."""
        import json  # noqa: PLC0415 - only those who have hooks

        told = {
            "event": self.name,
            "bundle": self.bundle,
            "version": self.version,
            "changed": self.changed,
            "subject": self.subject,
            "serial": self.serial,
            "sha256": self.sha256,
            "sha256Before": self.sha256_before,
            "rootSet": self.root_set,
            "rootSetBefore": self.root_set_before,
            "notAfter": f"{self.not_after.astimezone(UTC):%FT%TZ}",
            "phase": self.phase,
            "directory": self.directory,
            "reason": self.reason,
        }
        return json.dumps(told).encode() + b"\n"

    def variables(self) -> dict[str, str]:
        """Return the event as environment variables, for scripts without a JSON parser."""
        return {
            "CERTAGENT_EVENT": self.name,
            "CERTAGENT_BUNDLE": self.bundle,
            "CERTAGENT_VERSION": self.version,
            "CERTAGENT_CHANGED": " ".join(self.changed),
            "CERTAGENT_SHA256": self.sha256,
            "CERTAGENT_ROOT_SET": self.root_set,
            "CERTAGENT_PHASE": self.phase,
            "CERTAGENT_DIRECTORY": self.directory,
        }


@dataclass(frozen=True, slots=True)
class Exec:
    """Run a command without a shell; it must exit 0 within `timeout` seconds.

    It gets the event as JSON on stdin and in CERTAGENT_ variables, and of the agent's own
    environment PATH, HOME and LANG alone.
    """

    argv: tuple[str, ...]
    timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Signal:
    """Signal the processes of a name, in a pod with `shareProcessNamespace: true`."""

    process: str
    number: signal.Signals = signal.SIGHUP


@dataclass(frozen=True, slots=True)
class Http:
    """Send the event as JSON; the answer must be 2xx within `timeout` seconds.

    The URL is https://, or http:// on loopback; raises `ConfigurationError` where it is not.
    `ca_file` is the PEM file of the server's CA; without it the system's are trusted.
    """

    url: str
    method: Literal["POST", "PUT"] = "POST"
    timeout: float = 10.0
    ca_file: str = ""

    def __post_init__(self) -> None:
        """Refuse a URL that must not be used at the start, not at the first publication."""
        from certagent.runtime.hooks.webhook import endpoint  # noqa: PLC0415 - only for http

        endpoint(self.url)


@dataclass(frozen=True, slots=True)
class Hook:
    """Of which events of a bundle somebody is told, and how.

    `on` narrows them to changes of the signer (certificate, chain or key) or of the roots. Of sets
    that stayed unconfirmed a hook is told only where `events` says so: one that restarts its reader
    must not do it twice. `name` is unique in the bundle. `attempts` are made for one event, 1 or
    more. `delay` (seconds) passes before the first: see `stagger`.
    """

    bundle: str
    name: str
    action: Exec | Signal | Http
    on: Literal["any", "certificate", "roots"] = "any"
    events: tuple[str, ...] = (PUBLISHED,)
    attempts: int = 5
    delay: float = 0.0

    def wants(self, event: Event) -> bool:
        """Tell whether the event is one to tell."""
        if event.bundle != self.bundle or event.name not in self.events:
            return False
        return self.on == "any" or not _PARTS[self.on].isdisjoint(event.changed)


@dataclass(frozen=True, slots=True)
class HookStatus:
    """How a hook fared since the start.

    `runs` is by outcome: ok, failed, timeout, cancelled (by the agent's end). `given_up` counts
    events that were not told after all attempts; `waiting` says that one has still to be told.
    """

    bundle: str
    name: str
    runs: Mapping[str, int] = field(default_factory=dict)
    last_failure: datetime | None = None
    given_up: int = 0
    waiting: bool = False


def stagger(hostname: str, spread: float) -> float:
    """Return how many seconds, of `spread` at most, the pod of that name waits.

    The same pod always waits the same time, and pods differ: replicas that restart on a change of
    roots do so one after the other, most of the time. It is no lock: two of n pods are closer than
    t seconds with a probability of about n² · t / spread.
    """
    digest = hashlib.sha256(hostname.encode("utf-8", "surrogateescape")).digest()
    return spread * int.from_bytes(digest[:8]) / 2**64
