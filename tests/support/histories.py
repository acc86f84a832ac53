"""Random histories at awkward moments, in ticks of a microsecond, for the plan and its oracle."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING

from certagent.material.history import HistoricRevision, Policy
from tests.support import specification
from tests.support.specification import Rev, Windows

if TYPE_CHECKING:
    from random import Random

    from certagent.material.rotation import Plan

START = datetime(2026, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)
FOREVER = 10**12


def random_windows(rng: Random) -> Windows:
    """Return windows of some 24 ticks, sensible ones and others."""
    return Windows(rng.choice((24, 30)), rng.choice((24, 30, 5, 0)), rng.choice((0, 1, 3)), 1)


def random_history(rng: Random, windows: Windows, most: int = 7) -> list[Rev]:
    """Return revisions whose distances are those at which rules differ; now and then a clock steps.

    Roots and anchors are drawn freely: not even what signs under a root must list it.
    """
    d, r, slack, _ = windows
    gaps = (0, 1, d - 1, d, d + 1, d + r, d + r - slack, 2 * d + r, d // 2, slack, -1, -d)
    history = []
    stored = 0
    for _ in range(rng.randint(0, most)):
        stored += rng.choice(gaps) if rng.random() < 0.7 else rng.randint(0, 3 * d)
        history.append(_random_revision(rng, stored, windows))
    return history


def random_moment(rng: Random, history: list[Rev], windows: Windows) -> int:
    """Return a moment near one at which something changes."""
    d, r = windows.d, windows.r
    near = rng.choice(history).T if history else 0
    return near + rng.choice((0, 1, -1, d, d + 1, d + r, 2 * d + r, rng.randint(-d, 4 * d)))


def _random_revision(rng: Random, stored: int, windows: Windows) -> Rev:
    d, slack = windows.d, windows.slack
    if rng.random() < 0.2:
        gone = stored + rng.choice((0, 1, d - slack, d - slack + 1, rng.randint(0, 3 * d)))
        return Rev(stored, stored, stored, tomb=True, gone=rng.choice((None, gone)))
    roots = frozenset(rng.sample("ABC", rng.choice((1, 1, 2, 3))))
    anchors = frozenset(rng.sample("ABC", 1) if rng.random() < 0.1 else [min(roots)])
    if rng.random() < 0.2:
        anchors = roots
    begins = stored + rng.choice((0, 0, 0, -5, 1, d // 2, d, d + 1))
    lives = rng.choice((FOREVER, FOREVER, FOREVER, rng.randint(1, 4 * d)))
    return Rev(stored, begins, begins + lives, roots, anchors)


def at(tick: int) -> datetime:
    """Return a tick as a time."""
    return START + tick * TICK


def policy(windows: Windows) -> Policy:
    """Return windows as a policy."""
    return Policy(*(ticks * TICK for ticks in windows))


def revisions(history: list[Rev]) -> list[HistoricRevision[str]]:
    """Return the oracle's history as that of the module; the versions are the places in it."""
    return [
        HistoricRevision(
            str(place),
            at(each.T),
            at(each.nb),
            at(each.na),
            each.roots,
            each.anchors,
            "deleted" if each.tomb else "",
            None if each.gone is None else at(each.gone),
        )
        for place, each in enumerate(history)
    ]


def told(decision: Plan[str]) -> specification.Out:
    """Return a plan as the oracle tells one."""
    changes = decision.changes_at
    return specification.Out(
        None if decision.signer is None else int(decision.signer.version),
        decision.roots,
        inf if changes is None else (changes - START) // TICK,
        decision.phase.value,
    )
