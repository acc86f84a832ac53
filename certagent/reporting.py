"""What the agent says of a bundle: each thing once, with what an engineer needs at night."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from certagent.assignment import changes
from certagent.errors import CertagentError, MaterialRefused, PublicationHeld, SecretNotFound
from certagent.material.bundle import refusal
from certagent.material.finding import Severity
from certagent.material.kinds import CA
from certagent.material.rotation import Phase
from certagent.runtime.logs import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from certagent.chronicle import Judged
    from certagent.material.bundle import KeyCertBundle
    from certagent.material.certificates import Certificate
    from certagent.material.finding import Finding
    from certagent.material.kinds import Kind
    from certagent.material.rotation import Plan
    from certagent.material.verification import VerifiedBundle
    from certagent.sinks import Snapshot

    Verdict = Callable[[KeyCertBundle, datetime], tuple[Finding, ...]]

log = logging.getLogger("certagent.agent")


class Reporter:
    """Speaks for one bundle; remembers what it has said, and nothing else."""

    def __init__(self, bundle: str, source: str, kind: Kind = CA) -> None:
        self._bundle = bundle
        self._source = source
        self._kind = kind
        self._phase = ""
        self._warned: tuple[Finding, ...] = ()
        self._withdrawn: set[str] = set()
        self._is_young = False

    def phase(self, decision: Plan[Certificate]) -> None:
        """Tell a plan that has changed; a hold is an error of the pass, and told as such."""
        told = f"{decision.phase}: {decision.why}"
        if told == self._phase or decision.phase is Phase.HOLD:
            return
        self._phase = told
        log.log(
            logging.ERROR if decision.phase is Phase.EARLY else logging.INFO,
            "%s",
            told,
            extra=fields(
                bundle=self._bundle,
                roots=len(decision.roots),
                until=f"{decision.changes_at:%FT%TZ}" if decision.changes_at else "",
            ),
        )

    def published(
        self,
        verified: VerifiedBundle,
        record: Mapping[str, str],
        before: Snapshot | None,
        files: Mapping[str, bytes],
    ) -> None:
        """Tell a publication, in one line."""
        certificate = verified.bundle.certificate
        log.info(
            "published",
            extra=fields(
                bundle=self._bundle,
                version=record["version"],
                subject=certificate.subject,
                issuer=certificate.issuer,
                serial=certificate.serial,
                not_after=f"{verified.not_after:%FT%TZ}",
                sha256=certificate.fingerprint,
                roots=" ".join(root.fingerprint[:16] for root in verified.bundle.roots),
                phase=record.get("phase", ""),
                bridge=record.get("bridge", ""),
                changed=changes(before, files) if before else "all (first publication)",
            ),
        )
        roots = self._kind.roots_file
        if before is not None and roots in before.files.keys() - files.keys():
            log.warning(
                "version %s has no roots: %s is not published any more",
                record["version"],
                roots,
                extra=fields(
                    bundle=self._bundle,
                    hint="A gateway that verifies its peers by it cannot start without. Store it"
                    " again; where `fields` names the roots, a version without is refused.",
                ),
            )

    def same_set(self, version: str) -> None:
        """Tell that another version holds what is published already."""
        log.info(
            "version %s is the set that is published already",
            version,
            extra=fields(bundle=self._bundle),
        )

    def adopted(self, published: Snapshot, fingerprint: str) -> None:
        """Tell that a set of an earlier run is served on."""
        log.info(
            "found a good set in the output directory",
            extra=fields(
                bundle=self._bundle,
                version=published.record.get("version", ""),
                sha256=fingerprint,
                published_at=f"{published.published_at:%FT%TZ}",
            ),
        )

    def clock_was_set(self, by: timedelta) -> None:
        """Tell that the times of the lines before this one, and of what was published, are off."""
        way = "forward" if by > timedelta() else "back"
        log.warning("the clock was set %s by %s", way, abs(by), extra=fields(bundle=self._bundle))

    def not_adopted(self, version: str, refused: MaterialRefused) -> None:
        """Tell that the set of an earlier run does not hold any more."""
        log.warning(
            "the set in the output directory is no longer good: %s",
            refused.message,
            extra=fields(bundle=self._bundle, version=version),
        )

    def fallback(self, name: str) -> None:
        """Tell that the fallback stands in for the store."""
        log.error(
            "the store cannot be reached: the fallback is published",
            extra=fields(bundle=self._bundle, fallback=name),
        )

    def history_cut(self, oldest: Judged, window: timedelta) -> None:
        """Tell that the store does not hold what the plan needs.

        Of issuers that is no fault: so it is wherever the first one came only now.
        """
        hours = f"{window / timedelta(hours=1):g} h"
        told = fields(bundle=self._bundle, source=self._source)
        if not oldest.is_issued:
            log.warning(
                "what the store held before version %s cannot be known: a root that was replaced"
                " within the last %s is not kept, and a new one is staged only by agents that run"
                " already",
                oldest.version,
                hours,
                extra=told,
            )
        elif not self._is_young:
            self._is_young = True
            log.info(
                "no issuer is older than %s: if another one was removed within the last %s, its"
                " root is not kept",
                f"{oldest.created_at:%FT%TZ}",
                hours,
                extra=told,
            )

    def withdrawn(self, judged: Judged, *, is_newest: bool) -> None:
        """Tell that a version was taken back in the store."""
        self._withdrawn.add(judged.version)
        hint = "Its root is kept for nobody any more." if self._kind.is_ca else "It was replaced."
        if is_newest and self._kind.is_ca:
            hint = (
                "Within the time of its distribution the version before goes on to sign; after it,"
                " nothing changes until a new set is stored."
            )
        elif is_newest:
            hint = "What is published stays, until a new set is stored."
        log.warning(
            "version %s was %s",
            judged.version,
            judged.withdrawn,
            extra=fields(bundle=self._bundle, hint=hint),
        )

    def late(self, judged: Judged, late: timedelta) -> None:
        """Tell that a version is seen long after it was stored (C20).

        Its windows count from when it was stored: what is left of its distribution may be too short
        for those who trust what this agent published meanwhile.
        """
        if judged.version in self._withdrawn:
            return  # it was undeleted, and is nothing new
        log.warning(
            "version %s was stored %s ago and is seen only now",
            judged.version,
            timedelta(seconds=int(late.total_seconds())),
            extra=fields(
                bundle=self._bundle,
                hint="If it brings a new root, delete it and store it again while it is new: its"
                " distribution begins anew.",
            ),
        )

    def refused(self, judged: Judged) -> None:
        """Tell every reason why a version is refused."""
        if judged.is_mixture:
            self._half_stored(judged)
            return
        for finding in judged.findings:
            self._finding(logging.ERROR, f"version {judged.version} refused", finding)

    def _half_stored(self, judged: Judged) -> None:
        """Tell that a set is being stored, part by part."""
        log.info(
            "version %s does not hold together, and is passed over: %s",
            judged.version,
            judged.findings[0].message,
            extra=fields(
                bundle=self._bundle,
                code=judged.findings[0].code,
                hint="Its parts were not stored together. If that was not in the middle of storing"
                " them, store all of them again.",
            ),
        )

    def present(self, found: tuple[Finding, ...], version: str) -> None:
        """Tell what is to be said of the set that is in use: once, as time brings it up."""
        known = {(finding.code, finding.fingerprint) for finding in self._warned}
        for finding in found:
            if (finding.code, finding.fingerprint) not in known:
                is_error = finding.severity is Severity.ERROR
                level = logging.ERROR if is_error else logging.WARNING
                self._finding(level, f"version {version} {finding.severity}", finding)
        self._warned = found

    def _finding(self, level: int, verdict: str, finding: Finding) -> None:
        log.log(
            level,
            "%s: %s: %s",
            verdict,
            finding.part,
            finding.message,
            extra=fields(
                bundle=self._bundle,
                code=finding.code,
                subject=finding.subject,
                sha256=finding.fingerprint,
                hint=finding.hint,
            ),
        )


def held(source: str, newest: Judged, findings: Verdict, why: str, now: datetime) -> CertagentError:
    """Return the error that says why nothing of a history may be published.

    `findings` are the rules that the newest version is judged by.
    """
    if newest.withdrawn:
        return SecretNotFound(
            f"The newest version of {source}, {newest.version}, was {newest.withdrawn}.",
            hint="certagent does not go back to an older key by itself. Undelete the version"
            " (vault kv undelete)\nor enable it (az keyvault secret set-attributes), or store a new"
            " set.",
        )
    reasons = findings(newest.bundle.bundle, now) if newest.bundle else newest.findings
    if newest.expires_at is not None and newest.expires_at <= now and newest.bundle:
        return PublicationHeld(
            f"The newest version of {source}, {newest.version}, expired in its store at"
            f" {newest.expires_at:%FT%TZ}.",
            hint="Set a later expiry date there (az keyvault secret set-attributes --expires), or"
            " store a new set.",
        )
    if not any(finding.severity is Severity.ERROR for finding in reasons):
        return PublicationHeld(f"{source}: {why}.", hint="Store a new set.")
    refused = refusal(reasons)
    return MaterialRefused(
        f"{source} version {newest.version} is refused: {refused.message}",
        reasons,
        hint=refused.hint,
    )
