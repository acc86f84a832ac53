"""The sentences by which a plan explains itself, for somebody who reads the log at night."""

from __future__ import annotations

from typing import TYPE_CHECKING

from certagent.material.timeline import NEVER, time_of

if TYPE_CHECKING:
    from certagent.material.history import RootT
    from certagent.material.timeline import Moment, Stretch, Timeline


def settled(view: Timeline[RootT]) -> str:
    """Say that the newest revision is published as it is."""
    return f"{_name(view.good[-1])} signs, and its roots alone are published"


def switched(view: Timeline[RootT]) -> str:
    """Say whose roots are published beside those of the newest, and until when."""
    newest = view.good[-1]
    older = [each for each in view.kept if each.anchors - newest.roots]
    last = max((each.until for each in older), default=NEVER) + view.windows.keep
    versions = " and ".join(each.revision.version for each in older)
    return f"{_name(newest)} signs; the roots of version {versions} stay{_at('until', last)}"


def not_the_newest(signer: Stretch[RootT], newest_ready: Moment, view: Timeline[RootT]) -> str:
    """Say why an older revision signs: the newest is not ready yet, or will not last."""
    newest = view.good[-1]
    if view.now < newest_ready < NEVER:
        start = f"{_name(newest)} signs{_at('from', newest_ready)}"
        return f"{start}, when {_published(view)}; until then {_name(signer)} does"
    return f"{_name(signer)} signs, because {_ailment(newest, view)}"


def early(signer: Stretch[RootT], ready: Moment, view: Timeline[RootT]) -> str:
    """Say that somebody signs too soon."""
    soon = f"{_name(signer)} signs before {_published(view)}{_at('at', ready)}"
    return f"{soon}, because no other version can"


def nothing(view: Timeline[RootT]) -> str:
    """Say why nothing may be published."""
    if view.stretches:
        return _ailment(view.stretches[-1], view)
    return f"no version is good and in force{_at('before', min(view.coming, default=NEVER))}"


def _ailment(stretch: Stretch[RootT], view: Timeline[RootT]) -> str:
    """Say why a revision cannot sign."""
    revision = stretch.revision
    if not stretch.good:
        return f"{_name(stretch)} was {revision.withdrawn}"
    if stretch.valid_from > view.now:
        return f"{_name(stretch)} is not valid before {revision.not_before:%FT%TZ}"
    if not stretch.anchors <= stretch.roots:
        return f"{_name(stretch)} does not list the root that it signs under"
    expires = "expires" if view.now < stretch.expires else "expired"
    return f"{_name(stretch)} {expires} at {revision.not_after:%FT%TZ}"


def _name(stretch: Stretch[RootT]) -> str:
    return f"version {stretch.revision.version}"


def _published(view: Timeline[RootT]) -> str:
    return f"its root has been published for {_span(view.windows.distribute)}"


def _at(preposition: str, when: Moment) -> str:
    time = time_of(when)
    return f" {preposition} {time:%FT%TZ}" if time else ""


def _span(microseconds: int) -> str:
    seconds = microseconds / 1_000_000
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"
