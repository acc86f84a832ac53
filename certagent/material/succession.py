"""Which revision of a certificate of kind tls is published.

Nobody trusts it because of what we publish elsewhere, so nothing is staged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from certagent.material.rotation import Phase, Plan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from certagent.material.history import HistoricRevision, Policy, RootT


def plan(
    history: Sequence[HistoricRevision[RootT]],
    now: datetime,
    policy: Policy,  # noqa: ARG001 - as `rotation.plan`
) -> Plan[RootT]:
    """Return the newest revision that is in force at `now` (aware); `history` is oldest first.

    - One that is not valid yet waits, and the one before it serves until then.
    - One that was withdrawn or has expired holds: what is published stays, and no older revision
      comes back by itself. Its key was replaced for a reason that the store does not tell; who
      knows that it is a harmless one stores the set again.

    Never raises.
    """
    waiting = None
    for revision in reversed(history):
        if revision.withdrawn:
            return _hold(f"version {revision.version} was {revision.withdrawn}", waiting)
        if revision.start > now:
            if waiting is None or revision.start < waiting.start:
                waiting = revision
        elif revision.not_after < now:
            expired = f"version {revision.version} expired at {revision.not_after:%FT%TZ}"
            return _hold(expired, waiting)
        else:
            why = f"version {revision.version} is served"
            if waiting is not None:
                why += f"; version {waiting.version} is not valid before {waiting.start:%FT%TZ}"
            ends = [revision.not_after, *([waiting.start] if waiting else [])]
            return Plan(revision, revision.roots, Phase.SETTLED, why, min(ends))
    if waiting is None:
        return _hold("no version is good", None)
    return _hold(f"version {waiting.version} is not valid yet", waiting)


def _hold(why: str, waiting: HistoricRevision[RootT] | None) -> Plan[RootT]:
    """Publish nothing new; where a newer revision is coming, until then."""
    coming = waiting.start if waiting else None
    if coming:
        why += f", and nothing else is valid before {coming:%FT%TZ}"
    return Plan(None, frozenset(), Phase.HOLD, why, coming)
