"""How bundles and findings look when a person reads them, and when a program does."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from certagent.material.raw import TLS_FILES
from certagent.material.roots import in_order

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from certagent.material.bundle import KeyCertBundle
    from certagent.material.certificates import Certificate
    from certagent.material.finding import Finding
    from certagent.material.history import Policy
    from certagent.material.kinds import Kind
    from certagent.material.rotation import Plan


def days_left(not_after: datetime, now: datetime) -> str:
    """Return how long a certificate still lives, in the unit that a reader cares about."""
    left = not_after - now
    if left <= timedelta():
        return f"EXPIRED {(now - not_after).days} days ago"
    if left.days >= 2:  # noqa: PLR2004 - under two days, hours count
        return f"{left.days} days left"
    return f"{int(left.total_seconds() // 3600)} hours left"


def tree(
    kind: Kind, bundle: KeyCertBundle, path: Sequence[Certificate], now: datetime
) -> Iterator[str]:
    """Yield the chain of trust as lines, roots first, then down `path` to the certificate.

    `path` leads from the certificate to its root, or as far as is sent.
    """
    file, files = kind.roots_file, kind.files
    top, is_anchored = path[-1], path[-1] in bundle.roots
    beside = f"{file} (not on the path)" if kind.is_ca else file
    for start in bundle.roots if is_anchored else (top, *bundle.roots):
        if start != top:
            yield _line(start, now, beside)
            continue
        for depth, certificate in enumerate(reversed(path)):
            name = files["certificate"]
            if certificate != bundle.certificate:
                name = files.get("chain", name)
            branch = "   " * (depth - 1) + "└─ " if depth else ""
            yield branch + _line(certificate, now, name if depth or not is_anchored else file)


def _line(certificate: Certificate, now: datetime, name: str) -> str:
    expires = f"{certificate.not_after:%F}, {days_left(certificate.not_after, now)}"
    return f"{certificate.subject}  [{name}]  expires {expires}"


def finding_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield findings as lines: severity, code, what, and what to do."""
    for finding in findings:
        yield f"{finding.severity} {finding.code} ({finding.part}): {finding.message}"
        if finding.subject:
            yield f"    certificate: {finding.subject}"
            yield f"    sha256: {finding.fingerprint}"
        yield f"    {finding.hint}"


def kind_lines(kind: Kind, findings: Sequence[Finding]) -> Iterator[str]:
    """Yield what to ask for where a set was taken for a CA's, and is a gateway's perhaps."""
    lacks_roots = f"There is no {TLS_FILES['roots']!r}"
    if kind.is_ca and any(
        (each.code, each.part) == ("not-a-ca", "certificate")
        or each.message.startswith(lacks_roots)
        for each in findings
    ):
        yield "Is it a gateway's certificate? Then ask with --kind tls."


def finding_object(finding: Finding) -> dict[str, str]:
    """Return a finding for a program."""
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "part": finding.part,
        "message": finding.message,
        "hint": finding.hint,
        "subject": finding.subject,
        "sha256": finding.fingerprint,
    }


def certificate_object(certificate: Certificate) -> dict[str, Any]:
    """Return a certificate for a program: names, serial, times (RFC 3339), fingerprint."""
    return {
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "serial": certificate.serial,
        "notBefore": f"{certificate.not_before:%FT%TZ}",
        "notAfter": f"{certificate.not_after:%FT%TZ}",
        "sha256": certificate.fingerprint,
    }


def bundle_object(bundle: KeyCertBundle) -> dict[str, Any]:
    """Return a bundle for a program, without its key."""
    return {
        "certificate": certificate_object(bundle.certificate),
        "chain": [certificate_object(each) for each in bundle.chain],
        "roots": [certificate_object(each) for each in bundle.roots],
        "rootSet": bundle.root_set,
        "crls": len(bundle.crls),
    }


def short(roots: Iterable[Certificate]) -> str:
    """Return roots as they fit a line: the first digits of each SHA-256, the oldest root first."""
    return " ".join(root.fingerprint[:8] for root in in_order(roots)) or "none"


def windows(policy: Policy) -> str:
    """Return what a timeline was reckoned with: the agents must be configured alike."""
    if policy.immediate:
        return "strategy immediate"
    named = (("distribute", policy.distribute), ("retire", policy.retire), ("slack", policy.slack))
    return ", ".join(f"{name} {_length(span)}" for name, span in named)


def _length(span: timedelta) -> str:
    seconds = span.total_seconds()
    unit, size = next((each for each in _UNITS if seconds % each[1] == 0), ("s", 1))
    return f"{seconds / size:g}{unit}"


_UNITS = (("h", 3600), ("m", 60))


def phase_lines(phases: Iterable[tuple[datetime, Plan[Certificate]]]) -> Iterator[str]:
    """Yield a plan and its changes to come, one a line: when, phase, who signs, roots, and why."""
    for when, step in phases:
        signer = f"signer version {step.signer.version}" if step.signer else "no signer"
        yield f"{when:%FT%TZ}  {step.phase:10}  {signer}  roots {short(step.roots)}  {step.why}"


def phase_objects(phases: Iterable[tuple[datetime, Plan[Certificate]]]) -> list[dict[str, Any]]:
    """Return a plan and its changes to come for a program."""
    return [
        {
            "at": f"{when:%FT%TZ}",
            "phase": step.phase.value,
            "signer": step.signer.version if step.signer else None,
            "roots": [root.fingerprint for root in in_order(step.roots)],
            "why": step.why,
        }
        for when, step in phases
    ]
