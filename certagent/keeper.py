"""One bundle's pass: fetch -> verify -> plan -> guard -> publish -> tell.

It knows protocols alone: sources yield revisions, sinks hold one set. A pass that fails leaves what
is published as it is; one that cannot read the store still crosses the boundaries of a rotation
that it knows about.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from certagent.chronicle import Chronicle, Judged, judge
from certagent.errors import (
    CertagentError,
    MaterialRefused,
    OutputError,
    PublicationHeld,
    SecretNotFound,
)
from certagent.material.bundle import KeyCertBundle, refusal
from certagent.material.finding import Severity
from certagent.material.history import HistoricRevision, Policy
from certagent.material.raw import CA_FILES, RawBundle
from certagent.material.roots import joined, next_file
from certagent.material.rotation import Phase, Plan, plan
from certagent.material.verification import expiries, findings, verify
from certagent.memory import remembered, written
from certagent.runtime.logs import fields
from certagent.runtime.status import BundleStatus
from certagent.sinks import Publication

if TYPE_CHECKING:
    from collections.abc import Mapping

    from certagent.material.certificates import Certificate
    from certagent.material.finding import Finding
    from certagent.material.verification import VerifiedBundle
    from certagent.sinks import Sink, Snapshot
    from certagent.sources import Source

log = logging.getLogger("certagent.agent")

ROOTS_FILE = CA_FILES["roots"]
_OPEN_PHASES = {Phase.DISTRIBUTE, Phase.SWITCH, Phase.EARLY}


@dataclass(frozen=True, slots=True)
class Reader:
    """What the reader of a directory can do with a change of roots.

    `may_run`: it may have read what is published; before its first start anything can be published.
    `takes_roots`: it follows such a change, by a reload or because hooks restart it. `pace` is how
    long it may take to read a set, in seconds: a bridge stands for so long.
    """

    may_run: bool = False
    takes_roots: bool = True
    pace: float = 0.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """One bundle to keep published: from where, to where, and by which rules.

    `pins` are the SHA-256 (hex) of the roots that may be published, none means any. `fallback` is
    what a start uses that cannot reach its store. `watched`: the source tells when it changes.
    """

    name: str
    source: Source
    sink: Sink
    required: bool = True
    policy: Policy = field(default_factory=Policy)
    pins: frozenset[str] = frozenset()
    reader: Reader = Reader()
    fallback: Source | None = None
    watched: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What a publication changed, for those who are told of it; `at` is monotonic, in seconds."""

    bundle: str
    verified: VerifiedBundle
    record: Mapping[str, str]
    before: Snapshot | None
    files: frozenset[str]
    at: float

    @property
    def roots(self) -> bool:
        """Whether the reader's trust changed."""
        return ROOTS_FILE in self.files


class Listener(Protocol):
    """Who is told of publications; it never blocks for long, and never raises."""

    def changing(self, bundle: str) -> None:
        """Take note that a bundle is about to change."""
        ...

    def changed(self, change: Change) -> None:
        """Take note of a publication."""
        ...


class Keeper:
    """Keeps one bundle published; what it remembers between passes is here and nowhere else."""

    def __init__(self, assignment: Assignment, listener: Listener) -> None:
        self.assignment = assignment
        self.status = BundleStatus(assignment.name, assignment.required)
        self.changes_at: datetime | None = None
        self._listener = listener
        self._chronicle = Chronicle(
            assignment.source, assignment.policy, assignment.pins, self._report_judged
        )
        self._told = ""
        self._now = datetime.min.replace(tzinfo=UTC)
        self._warned: tuple[Finding, ...] = ()

    def refresh(self, now: datetime) -> None:
        """Make one pass. Raises `CertagentError`, and then what was published is as the plan says.

        Where the store cannot be read, the plan goes by what is known of it.
        """
        try:
            self._now = now
            failure = self._read(now)
            decision = plan(self._chronicle.revisions, now, self.assignment.policy)
            self._report_plan(decision)
            self._publish(decision, now)
            if failure is not None:
                raise failure
        except CertagentError as error:
            if isinstance(error, OutputError):
                # Take hold afresh at the next pass: a place that was put right needs no restart.
                self.assignment.sink.close()
            raise
        if self._chronicle.entries[0].revision is not None:
            self.status = replace(self.status, last_success=now)

    def adopt(self, now: datetime) -> None:
        """Count a good set that an earlier run left as published: its readers have it already.

        So a sidecar that restarts while its store is down does not take istiod out of service.
        Of a store without history, it is also what is known of the revision before.
        """
        try:
            published = self.assignment.sink.read()
        except OutputError:
            self.assignment.sink.close()
            return
        if published is None:
            return
        version = published.record.get("version", "")
        try:
            verified = verify(published_bundle(published), now)
        except MaterialRefused as error:
            log.warning(
                "the set in the output directory is no longer good: %s",
                error.message,
                extra=fields(bundle=self.assignment.name, version=version),
            )
            return
        self._note_published(verified.bundle, version)
        self._remember(published, verified, now)
        log.info(
            "found a good set in the output directory",
            extra=fields(
                bundle=self.assignment.name,
                version=version,
                sha256=verified.bundle.certificate.fingerprint,
                published_at=f"{published.published_at:%FT%TZ}",
            ),
        )

    def fall_back(self, now: datetime) -> bool:
        """Publish the fallback's set, where there is one and nothing is published yet; say whether.

        For a start that cannot reach its store: the store's set follows as soon as it answers.
        """
        fallback = self.assignment.fallback
        if fallback is None or self.status.ready:
            return self.status.fallback
        judged = judge(next(iter(fallback.revisions())), now, self.assignment.pins)
        if judged.bundle is None:
            raise refusal(judged.findings)
        log.error(
            "the store cannot be reached: the fallback is published",
            extra=fields(bundle=self.assignment.name, fallback=fallback.name),
        )
        record = {"version": judged.version, "source": fallback.name}
        self._write(judged.bundle, ca_files(judged.bundle.bundle), record, None)
        self.status = replace(self.status, fallback=True)
        return True

    # Fetch and verify

    def _read(self, now: datetime) -> CertagentError | None:
        """Bring the history up to date; return why not, where what is known must do."""
        try:
            self._chronicle.read(now, again=self.status.phase in _OPEN_PHASES)
        except CertagentError as error:
            if not self._chronicle.entries:
                raise
            return error
        if not self._chronicle.entries:
            source = self.assignment.source.name
            raise SecretNotFound(f"{source} has no version at all.", hint="Store a set there.")
        if self._chronicle.is_cut and not self.status.history_cut:
            log.warning(
                "what the store held before version %s cannot be known: a root that was replaced"
                " within the last %s is not kept, and a new one is staged only by agents that run"
                " already",
                self._chronicle.entries[-1].version,
                2 * self.assignment.policy.distribute + self.assignment.policy.retire,
                extra=fields(bundle=self.assignment.name, source=self.assignment.source.name),
            )
        self.status = replace(self.status, history_cut=self._chronicle.is_cut)
        return None

    def _remember(self, published: Snapshot, verified: VerifiedBundle, now: datetime) -> None:
        """Take up what the process before knew of a store that keeps no history."""
        record = published.record
        if record.get("source") != self.assignment.source.name:
            return
        revisions, first_seen = remembered(
            record.get("history", ""), record.get("version", ""), verified, now
        )
        self._chronicle.entries = tuple(
            Judged(each.version, None, each) for each in reversed(revisions)
        )
        self._chronicle.first_seen = first_seen

    # Plan, guard and publish

    def _publish(self, decision: Plan[Certificate], now: datetime) -> None:
        bundle = joined(decision)
        if bundle is None or decision.signer is None:
            raise self._held(decision.why, now)
        sink = self.assignment.sink
        published = sink.read()
        files = ca_files(bundle)
        self._report_warnings(findings(bundle, now), decision.signer.version)
        if published is not None and published.files == files:
            sink.tidy()
            if self.status.version not in {"", decision.signer.version}:
                log.info(
                    "version %s is the set that is published already",
                    decision.signer.version,
                    extra=fields(bundle=self.assignment.name),
                )
            self._note_published(bundle, decision.signer.version)
            return
        # Joined roots can mislead a verifier that neither revision alone misleads.
        verified = verify(bundle, now)
        record = self._record(decision.signer, decision)
        if published is not None and self.assignment.reader.may_run:
            wanted = files[ROOTS_FILE]
            files[ROOTS_FILE] = self._guarded(published, wanted, decision)
            if files[ROOTS_FILE] != wanted:
                record["bridge"] = "true"
            if published.files == files or self._bridge_stands(published, now):
                return
        self._write(verified, files, record, published)

    def _guarded(self, published: Snapshot, wanted: bytes, decision: Plan[Certificate]) -> bytes:
        """Return the roots file that may follow the published one, for a reader that runs."""
        before = published.files.get(ROOTS_FILE, b"")
        if before != wanted and not self.assignment.reader.takes_roots:
            raise PublicationHeld(
                f"{decision.why}; this changes the roots, and istiod would refuse it together with"
                " every later change.",
                hint="Set ISTIO_MULTIROOT_MESH=true for istiod and for certagent, or"
                " rotation.istiod: restart with a hook\nthat restarts istiod. What is published"
                " stays.",
            )
        return next_file(before, wanted)

    def _bridge_stands(self, published: Snapshot, now: datetime) -> bool:
        """Whether the published set is a bridge that the reader may not have crossed yet."""
        since = now - published.published_at
        pace = timedelta(seconds=self.assignment.reader.pace)
        return "bridge" in published.record and timedelta() <= since < pace

    def _record(
        self, signer: HistoricRevision[Certificate], decision: Plan[Certificate]
    ) -> dict[str, str]:
        """Return what is written beside the set: for `status`, and for the process after this."""
        record = {
            "version": signer.version,
            "source": self.assignment.source.name,
            "phase": decision.phase.value,
            "why": decision.why,
        }
        if self._chronicle.entries[0].created_at is None:
            record["history"] = written(self._chronicle.revisions, self._chronicle.first_seen)
        return record

    def _write(
        self,
        verified: VerifiedBundle,
        files: Mapping[str, bytes],
        record: dict[str, str],
        before: Snapshot | None,
    ) -> None:
        certificate = verified.bundle.certificate
        record |= {"sha256": certificate.fingerprint, "rootSet": verified.bundle.root_set}
        private = frozenset({CA_FILES["private_key"]})
        self._listener.changing(self.assignment.name)
        self.assignment.sink.publish(Publication(files=files, private=private, record=record))
        self._note_published(verified.bundle, record["version"])
        self.status = replace(self.status, published=self.status.published + 1)
        log.info(
            "published",
            extra=fields(
                bundle=self.assignment.name,
                version=record["version"],
                subject=certificate.subject,
                issuer=certificate.issuer,
                serial=certificate.serial,
                not_after=f"{verified.not_after:%FT%TZ}",
                sha256=certificate.fingerprint,
                roots=" ".join(root.fingerprint[:16] for root in verified.bundle.roots),
                phase=record.get("phase", ""),
                changed=changes(before, files) if before else "all (first publication)",
            ),
        )
        names = frozenset(changes(before, files).split())
        self._listener.changed(
            Change(self.assignment.name, verified, record, before, names, time.monotonic())
        )

    # Tell

    def _note_published(self, bundle: KeyCertBundle, version: str) -> None:
        self.status = replace(
            self.status,
            ready=True,
            fallback=False,
            version=version,
            root_set=bundle.root_set,
            not_after=expiries(bundle),
        )

    def _report_plan(self, decision: Plan[Certificate]) -> None:
        """Log a plan that has changed, and note it for metrics and for the loop's next turn."""
        self.changes_at = decision.changes_at
        self.status = replace(self.status, phase=decision.phase.value)
        told = f"{decision.phase}: {decision.why}"
        if told == self._told or decision.phase is Phase.HOLD:
            return  # a hold is an error of the pass, and told as such
        self._told = told
        log.log(
            logging.ERROR if decision.phase is Phase.EARLY else logging.INFO,
            "%s",
            told,
            extra=fields(
                bundle=self.assignment.name,
                roots=len(decision.roots),
                until=f"{decision.changes_at:%FT%TZ}" if decision.changes_at else "",
            ),
        )

    def _report_judged(self, judged: Judged) -> None:
        """Log a version that is refused, and count it, or that was withdrawn.

        What a good one warns of is said when it is used.
        """
        if judged.withdrawn:
            log.warning(
                "version %s was %s",
                judged.version,
                judged.withdrawn,
                extra=fields(
                    bundle=self.assignment.name,
                    hint="Within the time of its distribution the version before goes on to sign;"
                    " after it, nothing changes until a new set is stored.",
                ),
            )
        if judged.revision is not None:
            self._report_late(judged)
            return
        counts = dict(self.status.refused)
        code = judged.findings[0].code
        counts[code] = counts.get(code, 0) + 1
        self.status = replace(self.status, refused=counts)
        for finding in judged.findings:
            self._log_finding(logging.ERROR, f"version {judged.version} refused", finding)

    def _report_late(self, judged: Judged) -> None:
        """Warn of a version that a running agent sees long after it was stored (C20).

        Its windows count from when it was stored: what is left of its distribution may be too short
        for those who trust what this agent published meanwhile.
        """
        stored, slack = judged.created_at, self.assignment.policy.slack
        if stored is None or self.status.last_success is None or judged.bundle is None:
            return
        late = self._now - stored
        if late > slack:
            log.warning(
                "version %s was stored %s ago and is seen only now",
                judged.version,
                timedelta(seconds=int(late.total_seconds())),
                extra=fields(
                    bundle=self.assignment.name,
                    hint="If it brings a new root, delete it and store it again while it is new:"
                    " its distribution begins anew.",
                ),
            )

    def _report_warnings(self, present: tuple[Finding, ...], version: str) -> None:
        """Log what is to be said of the set that is in use: once, as time brings it up."""
        known = {(finding.code, finding.fingerprint) for finding in self._warned}
        for finding in present:
            if (finding.code, finding.fingerprint) not in known:
                is_error = finding.severity is Severity.ERROR
                level = logging.ERROR if is_error else logging.WARNING
                self._log_finding(level, f"version {version} {finding.severity}", finding)
        self._warned = present

    def _log_finding(self, level: int, verdict: str, finding: Finding) -> None:
        log.log(
            level,
            "%s: %s: %s",
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
        newest = self._chronicle.entries[0]
        if newest.withdrawn:
            return SecretNotFound(
                f"The newest version of {source}, {newest.version}, was {newest.withdrawn}.",
                hint="certagent does not go back to an older key by itself. Undelete the version"
                " (vault kv undelete), or store a new set.",
            )
        reasons = findings(newest.bundle.bundle, now) if newest.bundle else newest.findings
        if not any(finding.severity is Severity.ERROR for finding in reasons):
            return PublicationHeld(f"{source}: {why}.", hint="Store a new set.")
        refused = refusal(reasons)
        return MaterialRefused(
            f"{source} version {newest.version} is refused: {refused.message}",
            reasons,
            hint=refused.hint,
        )


def ca_files(bundle: KeyCertBundle) -> dict[str, bytes]:
    """Return a CA under the file names that istiod reads; without CRLs there is no CRL file."""
    raw = bundle.canonical()
    parts = {CA_FILES[part]: getattr(raw, part) for part in CA_FILES}
    return {name: data for name, data in parts.items() if data}


def changes(before: Snapshot | None, files: Mapping[str, bytes]) -> str:
    """Return the names of the files that a publication changes, with spaces between."""
    old = before.files if before else {}
    names = sorted(old.keys() | files.keys())
    return " ".join(name for name in names if old.get(name) != files.get(name))


def published_bundle(published: Snapshot) -> KeyCertBundle:
    """Read a published set; raises `MaterialRefused`."""
    parts = {part: published.files.get(name) for part, name in CA_FILES.items()}
    return KeyCertBundle.decode(RawBundle.of(parts, {part: part for part in CA_FILES}))
