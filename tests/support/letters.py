"""Histories of letters: `[A,B]/B@24` is a push, 24 hours in, of the roots A and B, signing under B.

    walk("[A]/A", "[B]/B@0")   # {-1: "A/A", 0: "A/AB", 24: "B/AB", 48: "B/B"}: signer/roots

A push without a time is very old. What follows it are its conditions, in hours: `valid 30` (its
notBefore), `expires 100` (its notAfter), `gone 2` (withdrawn from the store; what it held is
forgotten). A signer is written with a dash (`A'`) where it is another intermediate of the root.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from certagent.material.history import HistoricRevision, Policy
from certagent.material.rotation import Plan, plan

HOUR = timedelta(hours=1)
START = datetime(2026, 7, 1, tzinfo=UTC)
LONG = 10_000
"""Hours: longer than anything here takes."""

DAY = Policy(24 * HOUR, 24 * HOUR, timedelta(0))
"""The windows of the counterexamples: d = r = 24 hours, clocks and agents without fault."""

_PUSH = re.compile(r"\[([A-Z,]*)\]/([A-Z]'?)(?:@(-?\d+))?((?: \w+ -?\d+)*)")


class Push(NamedTuple):
    """What one of the texts says; times in hours."""

    roots: str
    signer: str
    at: int
    valid: int
    expires: int
    gone: int

    @classmethod
    def read(cls, text: str) -> Push:
        roots, signer, at, conditions = _PUSH.fullmatch(text).groups()
        words = conditions.split()
        times = dict(zip(words[::2], map(int, words[1::2]), strict=True))
        given = [times.pop(name, 2 * LONG) for name in ("expires", "gone")]
        push = cls(
            roots.replace(",", ""), signer, int(at or -LONG), times.pop("valid", -LONG), *given
        )
        assert not times, text
        return push

    def revision(self, version: str, hour: int) -> HistoricRevision[str]:
        """What a store tells of it at some hour."""
        stored = time(self.at)
        if self.gone <= hour:
            return HistoricRevision.tombstone(version, stored, "deleted", time(self.gone))
        valid = (time(self.valid), time(self.expires))
        anchors = frozenset(self.signer[0])
        return HistoricRevision(version, stored, *valid, frozenset(self.roots), anchors)


def time(hour: float) -> datetime:
    """Return an hour as a time."""
    return START + hour * HOUR


def history(*pushes: str, at: int = LONG) -> list[HistoricRevision[str]]:
    """Return what the store holds at some hour, as versions 1, 2, …"""
    read = map(Push.read, pushes)
    known = [push for push in read if push.at <= at]
    return [push.revision(str(number), at) for number, push in enumerate(known, start=1)]


def decide(*pushes: str, at: int, policy: Policy = DAY) -> Plan[str]:
    """Return the plan at some hour, of what the store holds then."""
    return plan(history(*pushes, at=at), time(at), policy)


def shown(pushes: tuple[str, ...], decision: Plan[str]) -> str:
    """Return a plan as `signer/roots`, or `hold`."""
    if decision.signer is None:
        return "hold"
    signer = Push.read(pushes[int(decision.signer.version) - 1]).signer
    return f"{signer}/{''.join(sorted(decision.roots))}"


def walk(*pushes: str, policy: Policy = DAY, until: int = 150) -> dict[int, str]:
    """Look at every hour, and return what is published, by the hour from which it is."""
    found: dict[int, str] = {}
    for hour in range(-1, until):
        now = shown(pushes, decide(*pushes, at=hour, policy=policy))
        if [now] != list(found.values())[-1:]:
            found[hour] = now
    return found


def phases(*pushes: str, policy: Policy = DAY, until: int = 150) -> dict[int, str]:
    """Return the phases, by the hour from which they are."""
    found: dict[int, str] = {}
    for hour in range(-1, until):
        phase = str(decide(*pushes, at=hour, policy=policy).phase)
        if [phase] != list(found.values())[-1:]:
            found[hour] = phase
    return found
