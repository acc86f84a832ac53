"""Which revision of a store's history is to be published now.

`plan` is pure: the history and the clock are all it knows, so every replica, and a pod that is born
in the middle of a rotation, comes to the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from certagent.material.finding import Finding
    from certagent.material.verification import VerifiedBundle


class Phase(StrEnum):
    """What the plan is at: `settled`, or `hold` when nothing in the history may be published."""

    SETTLED = "settled"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class HistoricRevision:
    """One revision of a history, judged once and for ever.

    `bundle` is None where the revision was refused (`findings` say why) or withdrawn from the store
    (`withdrawn` says how). `in_force_from` is when it was stored, or its certificates' notBefore if
    that is later: the moment at which it was verified, so that the verdict does not change with the
    clock that reads it.
    """

    version: str
    in_force_from: datetime
    bundle: VerifiedBundle | None = None
    findings: tuple[Finding, ...] = ()
    withdrawn: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to publish now: `signer`, or nothing new when it is None; `why` is for the log."""

    signer: HistoricRevision | None
    phase: Phase
    why: str


def plan(history: Sequence[HistoricRevision], now: datetime) -> Plan:
    """Choose the newest good revision that is in force; `history` is newest first.

    1. A withdrawn newest revision stops everything. To go back to the one before would bring back,
       in every replica within a poll, a key that somebody had a reason to replace.
    2. The newest revision that verified and is in force is the one. Those above it were refused, or
       start later: a bad push never takes the mesh down.
    3. When that one has expired, an older one does not take its place: a clock must not revive a
       superseded key.
    """
    if history and history[0].withdrawn:
        return Plan(None, Phase.HOLD, f"version {history[0].version} was {history[0].withdrawn}")
    for revision in history:
        if revision.bundle is None or revision.in_force_from > now:
            continue
        if revision.bundle.not_after <= now:
            why = f"version {revision.version} expired at {revision.bundle.not_after:%FT%TZ}"
            return Plan(None, Phase.HOLD, why)
        why = f"version {revision.version} is the newest that is good and in force"
        return Plan(revision, Phase.SETTLED, why)
    return Plan(None, Phase.HOLD, "no revision is good and in force")
