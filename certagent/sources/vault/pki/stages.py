"""The history that a mount's issuers tell: who signed, and which roots stood beside, since when.

Vault tells which issuers a mount has and which is the default, but not since when. The history is
made of that, so that `material.rotation.plan` can stage a change of the issuer, and that all agents
come to the same plan:

1. **The roots of all issuers are published, always.** An issuer that was added is distributed at
   once, before anybody signs under it, and the old root stays as long as its issuer does. So it
   does not matter when the default was switched, which nobody tells: the operator switches it when
   he likes, and removes the old issuer d + r after that.
2. **An issuer was not there before its certificate was valid**, nor a root before its own
   (`Issuer.arrivals`; one that was cross-signed is no younger for it). A pod that is born in
   the middle of a rotation knows no more, and for an issuer that was generated in the mount it is
   enough: it signs d after that, as the agents do which saw it come.
3. **What an agent sees itself, it dates itself.** It has seen that an imported issuer, made long
   ago, came just now; and under which issuer it signed until the default was switched. A new pod
   cannot know either. So an imported issuer must be in the mount for d before it is made the
   default, and the old one must not be removed too early: then 1 and 2 suffice.
4. **What comes before the newest stage is told while a root has not been published for d**: then
   the older issuer may have to sign, or it may have to be known later that he was alone. After that
   he need not be able to, and no certificate is asked of him.

Why it is safe: `plan` lets B sign under its root d after the first stage that lists it. By 2 and 3
no agent dates that stage before B came into the mount (an imported one: before its default, by d),
and by 1 every agent publishes B's root from then on, and A's as long as A is in the mount.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from certagent.material.certificates import Certificate
    from certagent.sources.vault.pki.issuers import Issuer, Mount

_MOST = 50
"""Stages that are remembered: a mount whose default flaps must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What a mount was like from `since` on: who signs, and the roots of all issuers."""

    issuer: Issuer
    roots: tuple[Certificate, ...]
    since: datetime


def inferred(mount: Mount, now: datetime) -> tuple[Stage, ...]:
    """Return what an agent knows that sees a mount for the first time, oldest first.

    One stage for each time at which an issuer or a root came, as if each issuer had been the
    default from then on; those that came after the present default have never been.
    """

    def came(issuer: Issuer) -> tuple[datetime, str]:
        return min(issuer.since, now), issuer.id

    ordered = sorted(mount.issuers, key=came)
    arrivals = {
        root: min(now, *(each.arrivals[root] for each in ordered if root in each.roots))
        for root in mount.roots
    }
    stages = []
    for since in sorted({*arrivals.values(), *(came(each)[0] for each in ordered)}):
        known = [each for each in ordered if came(each)[0] <= since]
        signer = [each for each in known if came(each) <= came(mount.current)][-1]
        roots = tuple(root for root, time in arrivals.items() if time <= since)
        stages.append(Stage(signer, roots, since))
    return tuple(stages)


def observed(stages: Sequence[Stage], mount: Mount, now: datetime) -> tuple[Stage, ...]:
    """Return what an agent knows that saw these stages, and sees the mount now."""
    if not stages:
        return inferred(mount, now)
    last = stages[-1]
    if last.issuer.id == mount.current.id and set(last.roots) == set(mount.roots):
        # Its chain may have been completed meanwhile.
        return (*stages[:-1], replace(last, issuer=mount.current))
    return (*stages, Stage(mount.current, mount.roots, now))[-_MOST:]


def told(
    stages: Sequence[Stage], mount: Mount, now: datetime, distribute: timedelta
) -> tuple[Stage, ...]:
    """Return the stages that a plan needs now or later, newest first.

    The newest alone, if all of its roots have been published for `distribute`; else also those
    that were in force within that time, as far as their issuers are still there. Who knows a stage
    is not told again what was before it.
    """
    *older, newest = stages
    if _is_distributed(newest, older, now - distribute):
        return (newest,)
    needed = [newest]
    for stage in reversed(older):
        if needed[-1].since <= now - distribute or not mount.has(stage.issuer):
            break
        needed.append(stage)
    return tuple(needed)


def _is_distributed(newest: Stage, older: Sequence[Stage], by: datetime) -> bool:
    """Whether all of its roots have been published since then, or since ever."""
    wanted, known = set(newest.roots), newest
    for stage in reversed(older):
        if not wanted <= set(stage.roots):
            return known.since <= by
        known = stage
    return True
