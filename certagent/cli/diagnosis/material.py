"""What a store holds for a bundle: whether it can be read, how far back, and what of it is good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from certagent.chronicle import Chronicle
from certagent.cli.diagnosis.result import About, attempt
from certagent.cli.diagnosis.steps import READ
from certagent.cli.rules import kind, pins, policy
from certagent.cli.show import days_left
from certagent.errors import MaterialRefused, PublicationHeld, SecretNotFound
from certagent.material.timeline import window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from certagent.chronicle import Judged
    from certagent.cli.diagnosis.result import Result
    from certagent.config.model import BundleConfig, Config
    from certagent.material.history import Policy
    from certagent.material.kinds import Kind
    from certagent.sources import Source

_DEPTH = (
    "Let the store keep more (KV v2: max-versions; Key Vault: enabled versions, and the permission"
    " to list).\nUntil then, change no root without need."
)


def stored(bundle: BundleConfig, source: Source, config: Config, now: datetime) -> Iterator[Result]:
    """Yield that a source can be read, how far it reaches back, and its newest version's verdict.

    The same versions are read as by an agent that starts; raises what `Source.revisions` raises.
    """
    of = kind(bundle.kind, bundle.usage)
    rules = policy(config, of)
    chronicle = Chronicle(source, rules, pins(config), of)
    chronicle.read(now)
    newest = chronicle.entries[0]
    when = f", stored at {newest.created_at:%FT%TZ}" if newest.created_at else ""
    yield About(READ, bundle.name).ok(f"{source.name} has version {newest.version}{when}.")
    if of.is_ca and not rules.immediate:
        yield _depth(About("history", bundle.name), chronicle, rules)
    about = About("newest", bundle.name)
    yield from attempt(about, _verdict(about, newest, of, now))


def _depth(about: About, chronicle: Chronicle, rules: Policy) -> Result:
    """Return whether what the store tells of the past reaches as far as the windows do."""
    oldest, reach = chronicle.entries[-1], f"{window(rules).total_seconds() / 3600:g} h"
    if chronicle.entries[0].created_at is None:
        return about.warning(
            f"The store keeps no history, and the windows reach back {reach}: a pod that starts"
            " after a change of roots does not know the old one.",
            "Use KV v2 or Key Vault; or stage a change of roots by hand.",
        )
    if chronicle.is_cut:
        return about.warning(
            f"What the store held before version {oldest.version} cannot be known, and the windows"
            f" reach back {reach}.",
            _DEPTH,
        )
    return about.ok(
        f"The history reaches back to version {oldest.version}, and the windows {reach}: enough."
    )


def _verdict(about: About, newest: Judged, of: Kind, now: datetime) -> Iterator[Result]:
    """Yield what an agent would make of the newest version, now."""
    prefix = f"version {newest.version}: "
    if newest.withdrawn:
        raise SecretNotFound(
            f"The newest version, {newest.version}, was {newest.withdrawn}.",
            hint="Undelete or enable it, or store a new set: an older key does not come back by"
            " itself.",
        )
    if newest.is_mixture and newest.bundle is None:
        yield about.warning(
            f"{prefix}its parts do not belong together: {newest.findings[0].message}",
            "Somebody may be storing them just now; if not, store all of them again.",
        )
        return
    if newest.bundle is None:
        yield from about.findings(newest.findings, prefix)
        return
    if newest.expires_at is not None and newest.expires_at <= now:
        raise PublicationHeld(
            f"{prefix}it expired in its store at {newest.expires_at:%FT%TZ}.",
            hint="Set a later expiry date there, or store a new set.",
        )
    bundle = newest.bundle.bundle
    try:
        verified = of.verify(bundle, now)
    except MaterialRefused as refused:
        yield from about.findings(refused.findings, prefix)
        return
    if verified.warnings:
        yield from about.findings(verified.warnings, prefix)
        return
    left = days_left(verified.not_after, now)
    yield about.ok(f"{prefix}{of.reader} would take {bundle.certificate.subject!r}, {left}.")
