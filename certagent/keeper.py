"""One bundle's pass: fetch -> verify -> plan -> publish -> tell.

It knows protocols alone: sources yield revisions, sinks hold one set. A pass that fails leaves what
is published as it is.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from certagent.errors import CertagentError, MaterialRefused, OutputError, SecretNotFound
from certagent.material.bundle import KeyCertBundle, refusal
from certagent.material.finding import Severity
from certagent.material.history import HistoricRevision, Policy
from certagent.material.raw import CA_FILES, RawBundle
from certagent.material.rotation import plan
from certagent.material.timeline import reaches_back
from certagent.material.verification import expiries, findings, verify
from certagent.runtime.logs import fields
from certagent.runtime.status import BundleStatus
from certagent.sinks import Publication

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from certagent.material.certificates import Certificate
    from certagent.material.finding import Finding
    from certagent.material.verification import VerifiedBundle
    from certagent.sinks import Sink, Snapshot
    from certagent.sources import Revision, Source

log = logging.getLogger("certagent.agent")

LOOKBACK = 10
"""How many revisions are read in search of a good one: as many as KV v2 keeps by default."""

POLICY = Policy(immediate=True)
"""The newest good revision is published as it is."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One version of a store, judged once and for ever.

    `revision` is None where it was refused, and `findings` say why; `withdrawn` is the store's word
    for how the version was taken back.
    """

    version: str
    revision: HistoricRevision[Certificate] | None
    findings: tuple[Finding, ...] = ()
    withdrawn: str = ""

    @property
    def bundle(self) -> VerifiedBundle | None:
        """The material that verified."""
        return self.revision.bundle if self.revision else None


@dataclass(frozen=True, slots=True)
class Assignment:
    """One bundle to keep published: from where, and to where."""

    name: str
    source: Source
    sink: Sink
    required: bool = True


class Keeper:
    """Keeps one bundle published; what it remembers between passes is here and nowhere else."""

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.status = BundleStatus(assignment.name, assignment.required)
        self._history: tuple[Judged, ...] = ()

    def refresh(self, now: datetime) -> None:
        """Make one pass. Raises `CertagentError`, and then what was published still is."""
        try:
            self._history = self._read_history(now)
            history = [each.revision for each in reversed(self._history) if each.revision]
            decision = plan(history, now, POLICY)
            self.status = replace(self.status, phase=decision.phase)
            if decision.signer is None or decision.signer.bundle is None:
                raise self._held(decision.why, now)
            self._publish(decision.signer, decision.signer.bundle)
        except CertagentError as error:
            if isinstance(error, OutputError):
                # Take hold afresh at the next pass: a place that was put right needs no restart.
                self.assignment.sink.close()
            self.status = replace(self.status, fault=type(error).__name__)
            raise
        if self._history[0].bundle is None:
            self.status = replace(self.status, fault=MaterialRefused.__name__)
        else:
            self.status = replace(self.status, fault="", last_success=now)

    def adopt(self, now: datetime) -> None:
        """Count a good set that an earlier run left as published: its readers have it already.

        So a sidecar that restarts while its store is down does not take istiod out of service.
        """
        try:
            published = self.assignment.sink.read()
        except OutputError:
            self.assignment.sink.close()
            return
        if published is None:
            return
        parts = {part: published.files.get(name) for part, name in CA_FILES.items()}
        version = published.record.get("version", "")
        try:
            raw = RawBundle.of(parts, {part: part for part in CA_FILES})
            verified = verify(KeyCertBundle.decode(raw), now)
        except MaterialRefused as error:
            log.warning(
                "the set in the output directory is no longer good: %s",
                error.message,
                extra=fields(bundle=self.assignment.name, version=version),
            )
            return
        self._note_published(verified, version)
        log.info(
            "found a good set in the output directory",
            extra=fields(
                bundle=self.assignment.name,
                version=version,
                sha256=verified.bundle.certificate.fingerprint,
                published_at=f"{published.published_at:%FT%TZ}",
            ),
        )

    # Fetch and verify

    def _read_history(self, now: datetime) -> tuple[Judged, ...]:
        """Read revisions, newest first, back to one that is good or was seen before."""
        history: list[Judged] = []
        for revision in self.assignment.source.revisions():
            known = self._remembered(revision)
            if known is not None:
                history.extend(self._history[known:])
                break
            judged = judge(revision, now)
            self._report_judged(judged)
            history.append(judged)
            read = [each.revision for each in history if each.revision]
            # A withdrawn newest revision stops everything: what is below it decides nothing.
            enough = reaches_back(read, now, POLICY) or history[0].withdrawn
            if enough or len(history) >= LOOKBACK:
                break
        return tuple(history[:LOOKBACK])

    def _remembered(self, revision: Revision) -> int | None:
        """Return the index of what was judged before: versions are immutable, unless withdrawn."""
        for index, known in enumerate(self._history):
            if (known.version, known.withdrawn) == (revision.version, revision.withdrawn):
                return index
        return None

    def _report_judged(self, judged: Judged) -> None:
        if judged.findings and judged.bundle is None:
            counts = dict(self.status.refused)
            code = judged.findings[0].code
            counts[code] = counts.get(code, 0) + 1
            self.status = replace(self.status, refused=counts)
        level = logging.WARNING if judged.bundle else logging.ERROR
        verdict = "warning" if judged.bundle else "refused"
        for finding in judged.findings:
            log.log(
                level,
                "version %s %s: %s: %s",
                judged.version,
                verdict,
                finding.part,
                finding.message,
                extra=fields(
                    bundle=self.assignment.name,
                    code=finding.code,
                    subject=finding.subject,
                    sha256=finding.fingerprint,
                    hint=finding.hint,
                ),
            )

    def _held(self, why: str, now: datetime) -> CertagentError:
        """Return the error that says why nothing of the history may be published."""
        source = self.assignment.source.name
        if not self._history:
            return SecretNotFound(f"{source} has no version at all.", hint="Store a set there.")
        newest = self._history[0]
        if newest.withdrawn:
            return SecretNotFound(
                f"The newest version of {source}, {newest.version}, was {newest.withdrawn}.",
                hint="certagent does not go back to an older key by itself. Undelete the version"
                " (vault kv undelete), or store a new set.",
            )
        reasons = findings(newest.bundle.bundle, now) if newest.bundle else newest.findings
        if not any(finding.severity is Severity.ERROR for finding in reasons):
            return MaterialRefused(f"{source}: {why}.", reasons, hint="Store a new set.")
        refused = refusal(reasons)
        return MaterialRefused(
            f"{source} version {newest.version} is refused: {refused.message}",
            reasons,
            hint=refused.hint,
        )

    # Publish and tell

    def _publish(self, signer: HistoricRevision[Certificate], verified: VerifiedBundle) -> None:
        sink = self.assignment.sink
        published = sink.read()
        files = ca_files(verified.bundle)
        if published is not None and published.files == files:
            sink.tidy()
            self._note_published(verified, published.record.get("version", ""))
            return
        record = {
            "version": signer.version,
            "source": self.assignment.source.name,
            "sha256": verified.bundle.certificate.fingerprint,
            "rootSet": verified.bundle.root_set,
        }
        private = frozenset({CA_FILES["private_key"]})
        sink.publish(Publication(files=files, private=private, record=record))
        self._note_published(verified, signer.version)
        self.status = replace(self.status, published=self.status.published + 1)
        certificate = verified.bundle.certificate
        log.info(
            "published",
            extra=fields(
                bundle=self.assignment.name,
                version=signer.version,
                subject=certificate.subject,
                issuer=certificate.issuer,
                serial=certificate.serial,
                not_after=f"{verified.not_after:%FT%TZ}",
                sha256=certificate.fingerprint,
                changed=changes(published, files),
            ),
        )

    def _note_published(self, verified: VerifiedBundle, version: str) -> None:
        self.status = replace(
            self.status,
            ready=True,
            version=version,
            root_set=verified.bundle.root_set,
            not_after=expiries(verified.bundle),
        )


def judge(revision: Revision, now: datetime) -> Judged:
    """Verify a revision as of the moment it came into force, so that the verdict stands for ever.

    A store without times is judged as of `now`, when its content was first seen; so is one whose
    clock is ahead of ours, because istiod will read the set by our clock.
    """
    version, stored = revision.version, min(revision.created_at or now, now)
    if revision.withdrawn:
        tombstone: HistoricRevision[Certificate] = HistoricRevision.tombstone(
            version, stored, revision.withdrawn
        )
        return Judged(version, tombstone, withdrawn=revision.withdrawn)
    try:
        bundle = KeyCertBundle.decode(revision.load())
        verified = verify(bundle, max(stored, bundle.not_before))
    except MaterialRefused as refused:
        return Judged(version, None, refused.findings)
    return Judged(version, HistoricRevision.good(version, stored, verified), verified.warnings)


def ca_files(bundle: KeyCertBundle) -> dict[str, bytes]:
    """Return a CA under the file names that istiod reads; without CRLs there is no CRL file."""
    raw = bundle.canonical()
    parts = {CA_FILES[part]: getattr(raw, part) for part in CA_FILES}
    return {name: data for name, data in parts.items() if data}


def changes(before: Snapshot | None, files: Mapping[str, bytes]) -> str:
    """Say which files a publication changes."""
    if before is None:
        return "all (first publication)"
    names = sorted(before.files.keys() | files.keys())
    return " ".join(name for name in names if before.files.get(name) != files.get(name))
