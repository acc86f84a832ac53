"""What a set on the volume tells the next process of a store that keeps no history.

A KV v1 secret and a directory hold the present content alone. What was before, and when it was
first seen, is in the agent's memory, and written beside each set that it publishes: times and
fingerprints, no keys. The certificates themselves are in the published root-cert.pem.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec.structs import replace

from certagent.errors import MaterialRefused
from certagent.material.history import HistoricRevision
from certagent.material.verification import verify

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from certagent.material.bundle import KeyCertBundle
    from certagent.material.certificates import Certificate
    from certagent.material.verification import VerifiedBundle


_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""With a zone: without one it could be compared with no other."""


class _Past(msgspec.Struct, frozen=True):
    """One revision, without its material; roots and anchors are SHA-256 in hex."""

    version: str
    stored_at: _Moment
    not_before: _Moment
    not_after: _Moment
    roots: tuple[str, ...]
    anchors: tuple[str, ...]


class _Memory(msgspec.Struct, frozen=True):
    """All that is written: revisions oldest first, and when each version was first seen."""

    revisions: tuple[_Past, ...]
    first_seen: dict[str, _Moment]


def written(
    revisions: Sequence[HistoricRevision[Certificate]], first_seen: Mapping[str, datetime]
) -> str:
    """Return what is to be written beside a set, as JSON."""
    past = tuple(
        _Past(
            each.version,
            each.stored_at,
            each.not_before,
            each.not_after,
            tuple(sorted(root.fingerprint for root in each.roots)),
            tuple(sorted(root.fingerprint for root in each.anchors)),
        )
        for each in revisions
    )
    return msgspec.json.encode(_Memory(past, dict(first_seen))).decode()


def remembered(
    text: str, signer: str, published: KeyCertBundle, now: datetime
) -> tuple[list[HistoricRevision[Certificate]], dict[str, datetime]]:
    """Read what was written beside a published set; `signer` is the version of its key.

    Revisions are oldest first. Their roots are those that are still published. One that has none of
    those that it signs under is no longer trusted, and stays as the end of the one before it: by
    that, roots are kept. Where it is the newest it was never published, and is left out. What
    cannot be read is as good as none: the agent then knows less, and says so. Never raises.
    """
    try:
        memory = msgspec.json.decode(text, type=_Memory)
    except (msgspec.MsgspecError, RecursionError):
        return [], {}
    roots = {root.fingerprint: root for root in published.roots}
    revisions = []
    for past in memory.revisions:
        anchors = frozenset(roots[each] for each in past.anchors if each in roots)
        own = frozenset(roots[each] for each in past.roots if each in roots)
        bundle = _alone(published, own, now) if past.version == signer else None
        revisions.append(
            HistoricRevision(
                past.version,
                past.stored_at,
                past.not_before,
                past.not_after,
                own,
                anchors,
                bundle=bundle,
            )
        )
    while revisions and not revisions[-1].anchors:
        revisions.pop()
    return revisions, memory.first_seen


def _alone(
    published: KeyCertBundle, own: frozenset[Certificate], now: datetime
) -> VerifiedBundle | None:
    """Return the signer's set with the roots that it was stored with."""
    ordered = tuple(root for root in published.roots if root in own)
    try:
        return verify(replace(published, roots=ordered), now)
    except MaterialRefused:
        return None
