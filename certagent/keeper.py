"""One bundle's pass: fetch -> verify -> plan -> guard -> publish -> tell.

It knows protocols alone: sources yield revisions, sinks hold one set. A pass that fails leaves what
is published as it is; one that cannot read the store still crosses the boundaries of a rotation
that it knows about.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NoReturn

from msgspec.structs import replace

from certagent.assignment import Change, changes
from certagent.chronicle import Chronicle, Judged, judge
from certagent.errors import (
    CertagentError,
    MaterialRefused,
    OutputError,
    PublicationHeld,
    SecretNotFound,
)
from certagent.material.bundle import refusal
from certagent.material.pinning import unpinned
from certagent.material.roots import in_order, joined, next_file, union_of_crls
from certagent.material.rotation import Phase, Plan
from certagent.material.timeline import window
from certagent.material.verification import expiries
from certagent.memory import remembered, written
from certagent.reporting import Reporter, held
from certagent.runtime.status import BundleStatus
from certagent.sinks import Publication

if TYPE_CHECKING:
    from collections.abc import Mapping

    from certagent.assignment import Assignment, Listener
    from certagent.material.bundle import KeyCertBundle
    from certagent.material.certificates import Certificate
    from certagent.material.finding import Finding
    from certagent.material.verification import VerifiedBundle
    from certagent.sinks import Snapshot

_UNTOLD = "untold"
"""The record's mark of a change of roots until everybody has been told of it: a restart that a hook
owes istiod must not be lost with the agent."""

_OPEN_PHASES = {Phase.DISTRIBUTE, Phase.SWITCH, Phase.EARLY}


class Keeper:
    """Keeps one bundle published; what it remembers between passes is here and nowhere else."""

    def __init__(self, assignment: Assignment, listener: Listener) -> None:
        self.assignment = assignment
        self.status = BundleStatus(assignment.name, assignment.required)
        self.changes_at: datetime | None = None
        self._listener = listener
        self._chronicle = Chronicle(
            assignment.source,
            assignment.policy,
            assignment.pins,
            assignment.kind,
            self._note_judged,
        )
        self._kind = assignment.kind
        self._reporter = Reporter(assignment.name, assignment.source.name, assignment.kind)
        self._now = datetime.min.replace(tzinfo=UTC)

    def refresh(self, now: datetime) -> None:
        """Make one pass. Raises `CertagentError`, and then what was published is as the plan says.

        Where the store cannot be read, the plan goes by what is known of it.
        """
        try:
            self._now = now
            failure = self._read(now)
            history = self._chronicle.known_at(now)
            decision = self._kind.plan(history, now, self.assignment.policy)
            self.changes_at = decision.changes_at
            self.status = replace(self.status, phase=decision.phase.value)
            self._reporter.phase(decision)
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
            bundle = self._kind.bundle_of(published.files)
            self._remember(published, bundle, now)
            verified = self._kind.verify(bundle, now)
            if strangers := tuple(unpinned(bundle, self.assignment.pins)):
                raise refusal(strangers)
        except MaterialRefused as error:
            self._reporter.not_adopted(version, error)
            return
        self._note_published(bundle, version)
        fallback = self.assignment.fallback
        is_fallback = fallback is not None and published.record.get("source") == fallback.name
        self.status = replace(self.status, fallback=is_fallback)
        self._reporter.adopted(published, bundle.certificate.fingerprint)
        if _UNTOLD in published.record:
            # The process before ended before its hooks had restarted the reader, perhaps.
            told = frozenset({self._kind.roots_file})
            self._listener.changed(
                Change(
                    self.assignment.name,
                    self._kind,
                    verified,
                    published.record,
                    published,
                    told,
                    time.monotonic(),
                )
            )

    def clock_was_set(self, by: timedelta) -> None:
        """Take up that the clock was set forward since the last pass; a negative `by` is back."""
        self._reporter.clock_was_set(by)
        self._chronicle.clock_was_set(by)

    def acknowledge(self) -> None:
        """Note that everybody has been told of the published roots; raises `OutputError`."""
        published = self.assignment.sink.read()
        if published is not None and _UNTOLD in published.record:
            record = {key: text for key, text in published.record.items() if key != _UNTOLD}
            self.assignment.sink.remember(record)

    def fall_back(self, now: datetime) -> bool:
        """Publish the fallback's set, where there is one and nothing is published yet; say whether.

        For a start that cannot reach its store: the store's set follows as soon as it answers.
        """
        fallback = self.assignment.fallback
        if fallback is None or self.status.ready:
            return self.status.fallback
        judged = judge(next(iter(fallback.revisions())), now, self.assignment.pins, self._kind)
        if judged.bundle is None:
            raise refusal(judged.findings)
        self._reporter.fallback(fallback.name)
        record = {"version": judged.version, "source": fallback.name}
        self._write(judged.bundle, self._kind.files_of(judged.bundle.bundle), record, None)
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
        oldest = self._chronicle.entries[-1]
        is_cut = self._kind.is_ca and self._chronicle.is_cut
        if is_cut and not self.status.history_cut:
            self._reporter.history_cut(oldest, window(self.assignment.policy))
        self.status = replace(self.status, history_cut=is_cut and not oldest.is_issued)
        return None

    def _remember(self, published: Snapshot, bundle: KeyCertBundle, now: datetime) -> None:
        """Take up what the process before knew of a store that keeps no history."""
        record = published.record
        if record.get("source") != self.assignment.source.name:
            return
        revisions, first_seen = remembered(
            record.get("history", ""), record.get("version", ""), bundle, now
        )
        self._chronicle.entries = tuple(
            Judged(each.version, None, each) for each in reversed(revisions)
        )
        self._chronicle.first_seen = first_seen

    # Plan, guard and publish

    def _publish(self, decision: Plan[Certificate], now: datetime) -> None:
        """Publish what is decided; raises why not, where the plan's own set is not to be had."""
        published = self.assignment.sink.read()
        bundle, signer = joined(decision), decision.signer
        if bundle is not None and signer is not None:
            self._bring_out(bundle, signer.version, decision, published, now)
            return
        newest, name = self._chronicle.entries[0], self.assignment.source.name
        error = held(name, newest, self._kind.findings, decision.why, now)
        if signer is not None and published is not None:
            stand_in = self._stand_in(decision, published, now)
            self._bring_out(stand_in, published.record["version"], decision, published, now)
            raise PublicationHeld(
                f"{name}: {decision.why}; the store does not hold its key any more.",
                hint="The published key goes on to sign, and new roots are distributed meanwhile.",
            ) from error
        raise error

    def _stand_in(
        self, decision: Plan[Certificate], published: Snapshot, now: datetime
    ) -> KeyCertBundle:
        """Return the published signer's set with the roots of a plan whose signer's key is lost.

        So it is with a store that keeps no history, after a restart: who is to sign is known, and
        his key has gone from the store. Roots are distributed all the same, because the windows
        count from when a version was seen.
        """
        present = self._kind.verify(self._kind.bundle_of(published.files), now)
        crls = {*union_of_crls(decision.kept), *present.bundle.crls}
        return replace(
            present.bundle,
            roots=in_order({*decision.roots, *present.anchors}),
            crls=tuple(sorted(crls, key=lambda crl: (crl.issuer, crl.this_update, crl.der))),
        )

    def _bring_out(
        self,
        bundle: KeyCertBundle,
        version: str,
        decision: Plan[Certificate],
        published: Snapshot | None,
        now: datetime,
    ) -> None:
        """Make a set the published one, or the step on the way to it; `version` is its key's."""
        sink = self.assignment.sink
        files = self._kind.files_of(bundle)
        self._reporter.present(self._present(bundle, decision, now), version)
        record = self._record(version, decision)
        if published is not None and published.files == files:
            sink.tidy()
            if self.status.version not in {"", version}:
                self._reporter.same_set(version)
            self._note_published(bundle, version)
            if record.get("history") != published.record.get("history"):
                # Nothing else remembers what was pushed: a restart would begin its windows anew.
                sink.remember({**published.record, **record})
            return
        # Joined roots can mislead a verifier that neither revision alone misleads.
        verified = self._kind.verify(bundle, now)
        roots = self._kind.roots_file
        is_followed = self._kind.is_ca and self.assignment.reader.may_run
        if is_followed and published is not None and roots in published.files:
            wanted = files[roots]
            if not self.assignment.reader.takes_roots and wanted != published.files[roots]:
                self._hold_roots(published, decision, now)
            files[roots] = next_file(published.files[roots], wanted)
            if files[roots] != wanted:
                record["bridge"] = "true"
            if published.files == files or self._bridge_stands(published, now):
                return
        self._write(verified, files, record, published)

    def _hold_roots(
        self, published: Snapshot, decision: Plan[Certificate], now: datetime
    ) -> NoReturn:
        """Keep the published roots, for a reader that cannot take others, and raise the alarm.

        A signer under a root that is published already is used all the same: it changes no trust.
        """
        held_back = self._kind.bundle_of(published.files).roots
        signer = decision.signer
        if signer is not None and signer.bundle is not None and signer.anchors & set(held_back):
            bundle = replace(signer.bundle.bundle, roots=held_back)
            roots = self._kind.roots_file
            files = self._kind.files_of(bundle) | {roots: published.files[roots]}
            if files != published.files:
                self._write(
                    self._kind.verify(bundle, now),
                    files,
                    self._record(signer.version, decision),
                    published,
                )
        raise PublicationHeld(
            f"{decision.why}; this changes the roots, and istiod would refuse it together with"
            " every later change.",
            hint="Set ISTIO_MULTIROOT_MESH=true for istiod and for certagent, or rotation.istiod:"
            " restart with a hook\nthat restarts istiod. Until then the published roots stay: do"
            " not scale or restart istiod, a new pod takes the new ones.",
        )

    def _present(
        self, bundle: KeyCertBundle, decision: Plan[Certificate], now: datetime
    ) -> tuple[Finding, ...]:
        """Return what there is to say of a set; nothing of an end that is renewed before it comes.

        A certificate that is issued again, and lives longer than itself so, is renewed at two
        thirds of its lifetime: in the last three tenths it is late.
        """
        found = self._kind.findings(bundle, now)
        certificate, signer = bundle.certificate, decision.signer
        late = certificate.not_after - 0.3 * (certificate.not_after - certificate.not_before)
        if signer is None or signer.not_after <= certificate.not_after or now >= late:
            return found
        own = ("expires-soon", certificate.fingerprint)
        return tuple(each for each in found if (each.code, each.fingerprint) != own)

    def _bridge_stands(self, published: Snapshot, now: datetime) -> bool:
        """Whether the published set is a bridge that the reader may not have crossed yet."""
        since = now - published.published_at
        pace = timedelta(seconds=self.assignment.reader.pace)
        return "bridge" in published.record and timedelta() <= since < pace

    def _record(self, version: str, decision: Plan[Certificate]) -> dict[str, str]:
        """Return what is written beside the set: for `status`, and for the process after this."""
        record = {
            "version": version,
            "source": self.assignment.source.name,
            "phase": decision.phase.value,
            "why": decision.why,
        }
        if self._kind.is_ca and self._chronicle.entries[0].created_at is None:
            record["history"] = written(self._chronicle.revisions, self._chronicle.first_seen)
        return record

    def _write(
        self,
        verified: VerifiedBundle,
        files: Mapping[str, bytes],
        record: dict[str, str],
        before: Snapshot | None,
    ) -> None:
        fingerprint = verified.bundle.certificate.fingerprint
        record |= {"sha256": fingerprint, "rootSet": verified.bundle.root_set}
        if self._kind.usage:
            record["usage"] = self._kind.usage
        names = frozenset(changes(before, files).split())
        if before is not None and self._kind.roots_file in names:
            record[_UNTOLD] = "true"
        private = frozenset({self._kind.files["private_key"]})
        self._listener.changing(self.assignment.name)
        self.assignment.sink.publish(Publication(files=files, private=private, record=record))
        self._note_published(verified.bundle, record["version"])
        self.status = replace(self.status, published=self.status.published + 1)
        self._reporter.published(verified, record, before, files)
        self._listener.changed(
            Change(
                self.assignment.name,
                self._kind,
                verified,
                record,
                before,
                names,
                time.monotonic(),
            )
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

    def _note_judged(self, judged: Judged) -> None:
        """Count and tell a new verdict; what a good version warns of is said when it is used."""
        if judged.withdrawn:
            is_newest = judged is self._chronicle.entries[0]
            self._reporter.withdrawn(judged, is_newest=is_newest)
        elif judged.bundle is not None:
            running_since, stored = self.status.last_success, judged.created_at
            is_late = stored and running_since and not judged.is_issued
            late = self._now - stored if stored and is_late else timedelta()
            if self._kind.is_ca and late > self.assignment.policy.slack:
                self._reporter.late(judged, late)
        else:
            counts = dict(self.status.refused)
            code = judged.findings[0].code
            counts[code] = counts.get(code, 0) + 1
            self.status = replace(self.status, refused=counts)
            self._reporter.refused(judged)
