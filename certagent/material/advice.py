"""Warnings: what works now, and may not for long, or not everywhere."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from certagent.material import names
from certagent.material.finding import Finding, Severity
from certagent.material.rules import about

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from certagent.material.bundle import KeyCertBundle
    from certagent.material.certificates import Certificate
    from certagent.material.chains import Path

WORKLOAD_TTL = timedelta(hours=24)
"""How long a workload certificate lives, unless DEFAULT_WORKLOAD_CERT_TTL says otherwise."""

_USUAL_NAMES = (
    x509.DNSName("istiod.istio-system.svc"),
    x509.UniformResourceIdentifier("spiffe://cluster.local/ns/default/sa/default"),
)


def findings(bundle: KeyCertBundle, path: Path, now: datetime) -> Iterator[Finding]:
    """Yield the warnings about the certificates of a path, and of the CA certificate."""
    for certificate in path.certificates:
        part = _part(bundle, certificate)
        weak = weakness(certificate, part)
        if weak:
            yield weak
        left = certificate.not_after - now
        if timedelta(0) <= left < 2 * WORKLOAD_TTL:
            hours = left // timedelta(hours=1)
            message = (
                f"{certificate.subject!r} expires in {hours} h, at {certificate.not_after:%FT%TZ}."
            )
            hint = "Replace it now: workload certificates cannot outlive it."
            yield about(certificate, "expires-soon", part, message, hint, Severity.WARNING)
        yield from _unusual_constraints(certificate, part)
    if bundle.certificate.extension(x509.SubjectKeyIdentifier) is None:
        message = f"{bundle.certificate.subject!r} has no subject key identifier."
        hint = "Issue it with one: CAs of the same name are told apart by it."
        certificate = bundle.certificate
        yield about(certificate, "no-key-id", "certificate", message, hint, Severity.WARNING)


def _unusual_constraints(certificate: Certificate, part: str) -> Iterator[Finding]:
    constraints = certificate.extension(x509.NameConstraints)
    refused = names.violation(constraints, _USUAL_NAMES) if constraints else None
    if refused:
        message = (
            f"The name constraints of {certificate.subject!r} do not permit {refused.value!r}."
        )
        hint = "Ignore this if the trust domain, or istiod's namespace, is another one."
        code = "name-constraints-unusual"
        yield about(certificate, code, part, message, hint, Severity.WARNING)


def _part(bundle: KeyCertBundle, certificate: Certificate) -> str:
    if certificate == bundle.certificate:
        return "certificate"
    return "roots" if certificate in bundle.roots else "chain"


def weakness(certificate: Certificate, part: str) -> Finding | None:
    """Return a warning for a key that works today and may not everywhere."""
    key = certificate.x509.public_key()
    hint = "Plan its replacement by RSA 3072 or P-256."
    if isinstance(key, ed25519.Ed25519PublicKey):
        code, what = "ed25519-key", "has an Ed25519 key, which not every data plane takes"
    elif isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048:  # noqa: PLR2004 - NIST's bound
        code, what = "weak-key", f"has an RSA key of {key.key_size} bits"
    elif isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp224r1":
        code, what = "weak-key", "has a P-224 key, which few TLS libraries take"
    else:
        return None
    message = f"{certificate.subject!r} {what}."
    return about(certificate, code, part, message, hint, Severity.WARNING)
