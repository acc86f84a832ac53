"""`certagent retire SOURCE`: destroy superseded key material, once no plan needs it (C21).

A version that is destroyed becomes a tombstone of the history, and one inside the windows would end
the trust in what it signed. So a version goes only when a newer good one was in force before the
window: then nothing older can change a plan, now or later, whatever is pushed (`reaches_back`).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from certagent.chronicle import judge
from certagent.cli.options import add_configuration, add_format
from certagent.cli.show import short, windows
from certagent.cli.stores import add_source, destructible
from certagent.errors import MaterialRefused, UsageError
from certagent.material.history import HistoricRevision
from certagent.material.rotation import Phase, plan
from certagent.material.timeline import reaches_back, window

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from certagent.chronicle import Judged
    from certagent.cli.stores import DestructiblePlace
    from certagent.material.certificates import Certificate
    from certagent.material.history import Policy

LOOKBACK = 500
"""How many versions are read at most, a request each."""

DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one version that still has material.

    `free_at` is when nothing needs it any more, if nobody pushes; None where it is the newest that
    is good, or newer. `harm` says what its destruction would do now.
    """

    version: str
    free_at: datetime | None
    harm: str = ""

    def is_free(self, now: datetime) -> bool:
        """Whether it can be destroyed."""
        return self.free_at is not None and self.free_at <= now


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.description = (
        "Show which versions of a CA in a KV v2 secret nothing needs any more, and with --yes"
        " destroy their key material for ever. Exit 65 when --yes was given and a change of roots"
        " still needs all that is superseded."
    )
    add_source(parser, "vault:<mount>/<path>")
    act = parser.add_mutually_exclusive_group()
    act.add_argument("--yes", action="store_true", help="destroy; without it, they are shown")
    act.add_argument("--dry-run", action="store_true", help="show only, as without --yes")
    add_configuration(parser)
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show what can go and what stays, and destroy what can where that was asked for."""
    now = datetime.now(UTC)
    with destructible(arguments) as place:
        if not place.kind.is_ca:
            raise UsageError(
                f"{arguments.source} is of kind tls, and retire is about CAs.",
                hint="No older version of it is needed once the newest is served: destroy what you"
                " like with\n`vault kv destroy`.",
            )
        entries = _entries(place, now) if place.source.keeps_history else []
        every = fates(entries, now, place.policy)
        free = [each for each in every if each.is_free(now)]
        waiting = [each for each in every if each.free_at is not None and each not in free]
        outcome, acts = _outcome(place, free), bool(free and arguments.yes)
        if waiting and arguments.yes and not free:
            raise _still_needed(place, waiting)
        if acts:
            place.source.destroy([int(each.version) for each in free])
        elif free:
            outcome = f"nothing was destroyed; with --yes: {outcome}"
    if arguments.format == "json":
        document = {
            "source": arguments.source,
            "versions": [_object(each, now) for each in every],
            "destroyed": [each.version for each in free] if acts else [],
            "outcome": outcome,
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        lines = [f"{arguments.source}: what is superseded ({windows(place.policy)})"]
        lines += [f"  version {each.version}: {_sentence(each, now)}" for each in every]
        sys.stdout.write("\n".join([*lines, f"{arguments.source}: {outcome}."]) + "\n")
    return 0


def _outcome(place: DestructiblePlace, free: Sequence[Fate]) -> str:
    if not place.source.keeps_history:
        return "KV v1 keeps no older versions: there is nothing to destroy"
    if not free:
        return "no version can be destroyed now"
    versions = ", ".join(sorted((each.version for each in free), key=int))
    return f"the material of version {versions} is destroyed"


def fates(entries: Sequence[Judged], now: datetime, policy: Policy) -> list[Fate]:
    """Return what becomes of each version that has material; `entries` are newest first."""
    found: list[Fate] = []
    newer: list[HistoricRevision[Certificate]] = []
    history = [each.revision for each in reversed(entries) if each.revision]
    for entry in entries:
        if not entry.withdrawn.startswith(DESTROYED):
            free_at = _free_at(newer, policy)
            gone = free_at is not None and free_at <= now
            harm = "" if gone or not entry.bundle else _harm(entry.version, history, now, policy)
            found.append(Fate(entry.version, free_at, harm))
        if entry.revision:
            newer.append(entry.revision)
    return found


def _free_at(newer: Sequence[HistoricRevision[Certificate]], policy: Policy) -> datetime | None:
    """Return from when the newer ones alone reach back over the window."""
    times = [each.start + window(policy) for each in newer]
    return min(
        (at for at, each in zip(times, newer, strict=True) if reaches_back([each], at, policy)),
        default=None,
    )


def _harm(
    version: str,
    history: Sequence[HistoricRevision[Certificate]],
    now: datetime,
    policy: Policy,
) -> str:
    """Say what the destruction of a version would do now."""
    without: list[HistoricRevision[Certificate]] = [
        HistoricRevision.tombstone(each.version, each.stored_at, DESTROYED)
        if each.version == version
        else each
        for each in history
    ]
    before, after = plan(history, now, policy), plan(without, now, policy)
    if after.phase is Phase.HOLD:
        return "without it nothing can be published"
    if lost := before.roots - after.roots:
        return f"without it the root {short(lost)} goes at once, with what was signed under it"
    if before.signer and after.signer and before.signer.version != after.signer.version:
        return f"without it version {after.signer.version} signs at once"
    return "a change of roots counts on it"


def _entries(place: DestructiblePlace, now: datetime) -> list[Judged]:
    """Judge all versions that the store still tells of, newest first."""
    revisions = islice(place.source.revisions(), LOOKBACK)
    return [judge(revision, now, place.pins) for revision in revisions]


def _still_needed(place: DestructiblePlace, waiting: Sequence[Fate]) -> MaterialRefused:
    first = min(waiting, key=lambda each: each.free_at or datetime.max.replace(tzinfo=UTC))
    return MaterialRefused(
        f"Every superseded version of {place.source.name} is still needed, version"
        f" {first.version} until {first.free_at:%FT%TZ}.",
        (),
        hint="Nothing was destroyed. If a key was stolen: push a new root, let the agents run with"
        "\nrotation.strategy immediate, and then `vault kv destroy` the version.",
    )


def _sentence(fate: Fate, now: datetime) -> str:
    if fate.is_free(now):
        return f"superseded, and not needed since {fate.free_at:%FT%TZ}"
    if fate.free_at is None:
        return f"kept: {fate.harm or 'no newer version is good'}"
    return f"kept until {fate.free_at:%FT%TZ}: {fate.harm or 'a change of roots counts on it'}"


def _object(fate: Fate, now: datetime) -> dict[str, Any]:
    return {
        "version": fate.version,
        "free": fate.is_free(now),
        "neededUntil": f"{fate.free_at:%FT%TZ}" if fate.free_at else None,
        "harm": fate.harm,
    }
