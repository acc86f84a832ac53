"""What a push would change, and what speaks against it: decided before anything is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from certagent.material.finding import Finding, Severity
from certagent.material.kinds import CA
from certagent.material.raw import CA_FILES
from certagent.material.roots import joined
from certagent.material.rotation import Phase, forecast, plan
from certagent.material.timeline import Windows, dies_later, reaches_back
from certagent.material.verification import findings as verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from certagent.chronicle import Judged
    from certagent.material.certificates import Certificate
    from certagent.material.history import HistoricRevision, Policy
    from certagent.material.kinds import Kind
    from certagent.material.rotation import Plan
    from certagent.sources.writing import Retention

FEW_VERSIONS = 10
"""Fewer versions are soon cut off by somebody who pushes several times in a day (C16)."""

Step = tuple["datetime", "Plan[Certificate]"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A good set that somebody wants to store now, and the history that it would follow.

    `entries` are newest first. `remembers` says whether the store keeps a history (KV v1 does not),
    `is_cut` that some of it is missing within the windows. What is no CA is served as it is: no
    change of its roots is staged, so nothing of that is asked of it.
    """

    new: HistoricRevision[Certificate]
    entries: tuple[Judged, ...]
    now: datetime
    policy: Policy
    kind: Kind = CA
    remembers: bool = True
    is_cut: bool = False
    retention: Retention | None = None
    notes: tuple[Finding, ...] = field(default=(), compare=False)

    @property
    def history(self) -> list[HistoricRevision[Certificate]]:
        """What the store has told so far, oldest first."""
        return [each.revision for each in reversed(self.entries) if each.revision]

    @property
    def newest_good(self) -> HistoricRevision[Certificate] | None:
        """The newest revision that has material."""
        return next((each for each in reversed(self.history) if not each.withdrawn), None)

    @property
    def before(self) -> Plan[Certificate]:
        """What is published now."""
        return plan(self.history, self.now, self.policy)

    @property
    def is_identical(self) -> bool:
        """Whether the newest version in the store is this set already."""
        return bool(self.entries) and _same(self.entries[0].revision, self.new)

    def phases(self) -> list[Step]:
        """Return what the agents will publish of a CA, with the times, if nobody else pushes."""
        if not self.kind.is_ca:
            return []
        history = self.history if self.is_identical else [*self.history, self.new]
        return list(forecast(history, self.now, self.policy))

    def findings(self, *, force: bool, rollback: bool) -> tuple[Finding, ...]:
        """Return what speaks against it, errors first.

        `force` and `rollback` make warnings of the errors that an operator may overrule.
        """
        if self.is_identical:
            return self.notes
        found = list(self.notes)
        found += _overruled(_older(self), rollback)
        if self.kind.is_ca:
            found += _overruled((*_dropped(self), *_forgotten(self), *_on_the_way(self)), force)
            found += [*_short_lived(self), *_early(self), *_memory(self)]
        found += _deleted(self)
        return tuple(sorted(dict.fromkeys(found), key=lambda each: each.severity != "error"))


def _same(known: HistoricRevision[Certificate] | None, new: HistoricRevision[Certificate]) -> bool:
    if known is None or known.bundle is None or new.bundle is None:
        return False
    return known.bundle.bundle.canonical() == new.bundle.bundle.canonical()


def _overruled(found: Iterator[Finding] | tuple[Finding, ...], yes: bool) -> Iterator[Finding]:
    for finding in found:
        yield replace(finding, severity=Severity.WARNING) if yes else finding


def _error(code: str, part: str, message: str, hint: str) -> Finding:
    return Finding(code, Severity.ERROR, part, message, hint)


def _warning(code: str, part: str, message: str, hint: str) -> Finding:
    return Finding(code, Severity.WARNING, part, message, hint)


def _older(it: Proposal) -> Iterator[Finding]:
    """Refuse what a pipeline has left over: it would bring a replaced key back."""
    newest = it.newest_good
    if newest is None or newest.bundle is None or it.new.bundle is None:
        return
    if _same(newest, it.new):
        return
    known = next((each for each in it.history if _same(each, it.new)), None)
    ours, theirs = it.new.bundle.bundle.certificate, newest.bundle.bundle.certificate
    if known is not None:
        what = f"This is the set of version {known.version} again; the newest is {newest.version}."
    elif ours.not_before < theirs.not_before:
        what = (
            f"Its certificate is of {ours.not_before:%FT%TZ}, older than version {newest.version}"
            f" in the store ({theirs.not_before:%FT%TZ})."
        )
    else:
        return
    hint = "A file left over from before? If you mean to go back, which is safe, give --rollback."
    yield _error("older-than-stored", "certificate", what, hint)


def _dropped(it: Proposal) -> Iterator[Finding]:
    """Refuse to drop a root of which nobody knows whether it has been signed under in the window.

    With a whole history the plan keeps such a root by itself; what it drops at once may go.
    """
    newest = it.newest_good
    if newest is None or (it.remembers and not it.is_cut) or it.policy.immediate:
        return
    after = plan([*it.history, it.new], it.now, it.policy).roots if it.remembers else it.new.roots
    why = (
        "versions of the last windows are missing in the store"
        if it.remembers
        else "KV v1 has no history"
    )
    for root in sorted(it.before.roots - after, key=lambda root: root.fingerprint):
        message = f"The root {root.subject!r} would go at once, and {why}."
        hint = (
            f"Keep it in {CA_FILES['roots']} until {_span(it)} after the last set that signed under"
            " it; if that is past, give --force."
        )
        finding = _error("root-dropped", "roots", message, hint)
        yield replace(finding, subject=root.subject, fingerprint=root.fingerprint)
    if not it.remembers and not it.new.anchors & newest.roots:
        message = "It signs under a root that the workloads of the mesh do not trust yet."
        hint = (
            "Store both roots with the present key first, wait for the distribution, then store the"
            " new key; KV v2 does all of it in one push. --force stores it nevertheless."
        )
        yield _error("root-unknown", "roots", message, hint)


def _span(it: Proposal) -> str:
    hours = (it.policy.distribute + it.policy.retire).total_seconds() / 3600
    return f"{hours:g} h"


def _forgotten(it: Proposal) -> Iterator[Finding]:
    """Refuse what would make KV v2 cut a version off that the plan still needs (C16)."""
    if it.retention is None or it.retention.max_versions is None or not it.entries:
        return
    left = int(it.new.version) - it.retention.max_versions
    gone = [each for each in it.entries if each.revision and int(each.version) <= left]
    rest = [each.revision for each in it.entries if each.revision and int(each.version) > left]
    if gone and not reaches_back(rest, it.now, it.policy):
        versions = ", ".join(each.version for each in reversed(gone))
        most = it.retention.max_versions
        message = (
            f"The store keeps {most} versions, so version {versions} would be cut off, and a change"
            " of roots still depends on it."
        )
        hint = (
            "Raise it: `vault kv metadata put -max-versions=20 …`; or wait. --force: nevertheless."
        )
        yield _error("history-cut", "secret", message, hint)


def _short_lived(it: Proposal) -> Iterator[Finding]:
    """Refuse a set that dies before its own distribution is over: nobody would ever sign (C10)."""
    windows = Windows.of(it.policy)
    if dies_later(it.new, windows):
        return
    if any(dies_later(each, windows) for each in it.history if not each.withdrawn):
        message = (
            f"It expires at {it.new.not_after:%FT%TZ}, before its own distribution is over, so"
            " the agents pass it over."
        )
        hint = "Issue a CA that lives longer: years, not days."
        yield _error("expires-before-switch", "certificate", message, hint)


def _on_the_way(it: Proposal) -> Iterator[Finding]:
    """Judge each set that the agents will make of it: joined roots and lists must work (C22)."""
    assert it.new.bundle is not None  # noqa: S101 - a proposal is of a good set
    own = verdict(it.new.bundle.bundle, max(it.now, it.new.not_before))
    told = {finding.code for finding in own}
    for when, step in it.phases():
        bundle = joined(step)
        if bundle is None:
            continue
        for finding in verdict(bundle, max(it.now, bundle.not_before)):
            if finding.code in told:
                continue
            told.add(finding.code)
            message = f"In phase {step.phase} ({when:%FT%TZ}): {finding.message}"
            yield replace(finding, message=message)


def _early(it: Proposal) -> Iterator[Finding]:
    """Warn where somebody must sign before its root is known everywhere (C11)."""
    for when, step in it.phases():
        if step.phase is Phase.EARLY:
            message = f"At {when:%FT%TZ} {step.why}."
            hint = "Workloads that have not renewed by then are refused. Renew the old CA first."
            yield _warning("early-switch", "certificate", message, hint)
            return


def _memory(it: Proposal) -> Iterator[Finding]:
    """Warn where the store remembers too little for a change to stage itself."""
    if not it.remembers:
        message = (
            "KV v1 keeps no history: a pod that starts during a change of roots cannot stage it."
        )
        yield _warning(
            "no-history",
            "secret",
            message,
            "Use KV v2; or stage by hand, and let no two pipelines push at once.",
        )
        return
    if it.is_cut:
        message = "Versions of the last windows are missing: what they signed is not known."
        hint = "Versions were cut off, or the secret was made anew. In KV v2, raise max-versions."
        yield _warning("history-incomplete", "secret", message, hint)
    if it.retention is None:
        message = "How many versions the store keeps could not be looked up: the login may not."
        hint = 'Allow "read" on the mount\'s config and metadata/ path, or see to max-versions.'
        yield _warning("retention-unknown", "secret", message, hint)
        return
    most = it.retention.max_versions
    if most is not None and most < FEW_VERSIONS:
        message = f"The store keeps {most} versions only."
        hint = "Pushes in a row cut the history off: `vault kv metadata put -max-versions=20 …`."
        yield _warning("few-versions", "secret", message, hint)


def _deleted(it: Proposal) -> Iterator[Finding]:
    """Warn where the store takes back what it holds by itself."""
    if it.remembers and it.retention is not None and it.retention.delete_after:
        message = f"The store deletes versions {it.retention.delete_after} after they are stored."
        hint = "Then nothing can be published. Set delete-version-after to 0s."
        yield _warning("versions-deleted", "secret", message, hint)
