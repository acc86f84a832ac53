"""Whether a bundle works: istiod's own checks, and those of the peers of its workloads.

istiod verifies ca-cert.pem as if it were a server's certificate (KeyCertBundle.Verify in
security/pkg/pki/util/keycertbundle.go), and takes sets whose workload certificates every peer will
refuse. Here one rule stands for both: a workload certificate under ca-cert.pem, sent with
cert-chain.pem, must verify against root-cert.pem for both sides of TLS (`chains`). The codes of all
findings, and what they mean, are listed in `codes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from certagent.material import advice, revocation, rules
from certagent.material.bundle import refusal
from certagent.material.chains import MAX_SIGNATURE_CHECKS, Path, Search
from certagent.material.finding import Finding, Severity
from certagent.material.raw import CA_FILES
from certagent.material.rules import about
from certagent.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from certagent.material.bundle import KeyCertBundle
    from certagent.material.certificates import Certificate

_PROOF = object()


class VerifiedBundle(Struct, frozen=True):
    """A bundle that works; only a verification makes one, by `proven`.

    Of a CA, `path` leads from its certificate to a root, the longest-lived where there are several,
    and `anchors` are the roots each of which alone verifies a workload certificate of this CA. Of a
    gateway, `path` is what it sends, and nothing is anchored: whom its roots verify is another
    party. `not_before` and `not_after` (aware, UTC) are those of the whole path. The verdict holds
    for the moment it was made for.
    """

    bundle: KeyCertBundle
    path: tuple[Certificate, ...]
    anchors: tuple[Certificate, ...]
    not_before: datetime
    not_after: datetime
    warnings: tuple[Finding, ...]
    proof: object

    def __repr__(self) -> str:
        """Show what is neither secret nor long."""
        return shown(self, "bundle", "path", "anchors", "not_before", "not_after", "warnings")

    def __post_init__(self) -> None:
        """Refuse to be made by anybody else."""
        if self.proof is not _PROOF:
            raise TypeError("only a verification makes a VerifiedBundle")


def proven(
    bundle: KeyCertBundle,
    found: tuple[Finding, ...],
    path: tuple[Certificate, ...],
    anchors: tuple[Certificate, ...],
    lifetime: tuple[datetime, datetime],
) -> VerifiedBundle:
    """Return the bundle as one that works; raises `MaterialRefused` where `found` has an error."""
    if any(finding.severity is Severity.ERROR for finding in found):
        raise refusal(found)
    return VerifiedBundle(bundle, path, anchors, *lifetime, found, _PROOF)


def verify(bundle: KeyCertBundle, now: datetime) -> VerifiedBundle:
    """Return the bundle as one that works at `now` (aware).

    Raises `MaterialRefused` with all findings, errors first.
    """
    search = Search.of(bundle, now)
    best = search.good[0] if search.good else search.nearest
    ends = {path.certificates[-1] for path in search.good}
    anchors = tuple(root for root in bundle.roots if root in ends)
    lifetime = best.not_before, best.not_after
    return proven(bundle, _findings(search), best.certificates, anchors, lifetime)


def findings(bundle: KeyCertBundle, now: datetime) -> tuple[Finding, ...]:
    """Return all that there is to say about a bundle at `now` (aware): errors first."""
    return _findings(Search.of(bundle, now))


def expiries(bundle: KeyCertBundle) -> dict[str, datetime]:
    """Return when the first certificate of each part expires (aware, UTC).

    The parts are `certificate`, `chain` and `roots`; an empty chain is left out.
    """
    parts = {"certificate": (bundle.certificate,), "chain": bundle.chain, "roots": bundle.roots}
    return {
        part: min(each.not_after for each in certificates)
        for part, certificates in parts.items()
        if certificates
    }


def _findings(search: Search) -> tuple[Finding, ...]:
    bundle, now = search.bundle, search.now
    path = search.good[0] if search.good else search.nearest
    errors = [*_key(bundle), *_no_path(search), *_chain(bundle)]
    blamed = {finding.fingerprint for finding in errors}
    found = [
        *errors,
        *(finding for finding in _roots(search) if finding.fingerprint not in blamed),
        *revocation.findings(bundle, path, now),
        *_unused(search),
        *advice.findings(bundle, path, now),
        *bundle.notes,
    ]
    # A sort is stable: within a severity, the order above is that of importance.
    return tuple(sorted(dict.fromkeys(found), key=lambda each: each.severity is not Severity.ERROR))


def _key(bundle: KeyCertBundle) -> Iterator[Finding]:
    """Check that key and certificate belong together (crypto/tls.X509KeyPair)."""
    if bundle.private_key.public_key_info != bundle.certificate.public_key_info:
        certificate = bundle.certificate
        message = f"The private key does not belong to {certificate.subject!r}."
        hint = (
            f"{CA_FILES['certificate']} must begin with the certificate that was made for the key."
        )
        yield about(certificate, "key-mismatch", "private_key", message, hint)


def _no_path(search: Search) -> tuple[Finding, ...]:
    """Return why peers find no path for a workload certificate, by the path that lacks least."""
    if search.good:
        return () if search.first.good else (_misleading(search.first),)
    if search.exhausted:
        message = f"A path to a root takes more than {MAX_SIGNATURE_CHECKS} signature checks."
        hint = "Remove the certificates with repeated subjects from the chain and the roots."
        return (about(search.bundle.certificate, "too-many-paths", "chain", message, hint),)
    nearest = search.nearest
    return nearest.defects if nearest.anchored else (*nearest.defects, _dead_end(nearest))


def _misleading(path: Path) -> Finding:
    """Say that Go finds a good path, and Envoy a bad one before it."""
    reason = (*path.defects, *(() if path.anchored else (_dead_end(path),)))[0]
    message = f"Envoy takes the first issuer of a name, and does not turn back: {reason.message}"
    hint = "Take the certificate that leads there out of the chain or the roots."
    last = path.certificates[-1]
    return about(last, "misleading-path", reason.part, message, hint)


def _dead_end(path: Path) -> Finding:
    """Say what is missing: Go's UnknownAuthorityError, with its hint."""
    last = path.certificates[-1]
    part = "certificate" if len(path.certificates) == 1 else "chain"
    chain, roots = CA_FILES["chain"], CA_FILES["roots"]
    if last.issuer == last.subject:
        which = f"{last.subject!r} (SHA-256 {last.fingerprint[:16]}…)"
        though = "; another one of that name is" if path.impostors else ""
        message = f"The path ends in {which}, which is not among the roots{though}."
        hint = f"Add it to {roots}, if it is to be trusted."
        return about(last, "unknown-authority", part, message, hint)
    if path.impostors:
        message = (
            f"{last.subject!r} was signed by another key than that of the {last.issuer!r} here."
        )
        hint = "Store certificate, chain and roots that were made together."
        return about(last, "signature-mismatch", part, message, hint)
    message = f"{last.issuer!r}, the issuer of {last.subject!r}, is missing."
    hint = f"Add it to {chain}; if it is a root, to {roots}."
    return about(last, "unknown-authority", part, message, hint)


def _chain(bundle: KeyCertBundle) -> Iterator[Finding]:
    """Check that peers are sent the CA certificate, and that istiod watches its expiry.

    istiod appends cert-chain.pem to each certificate that it signs without looking into it, and
    takes the expiry of its first certificate for the CA's (security/pkg/pki/ca/ca.go minTTL).
    """
    certificate, file = bundle.certificate, CA_FILES["chain"]
    if certificate not in bundle.chain:
        message = f"{file} lacks the CA certificate {certificate.subject!r}."
        hint = f"Write it as `cat {CA_FILES['certificate']} {CA_FILES['roots']}` (with newlines)."
        yield about(certificate, "chain-lacks-certificate", "chain", message, hint)
    elif bundle.chain[0] != certificate:
        message = f"{file} begins with {bundle.chain[0].subject!r}, not with the CA certificate."
        hint = "Put the CA certificate first, and each issuer after the one that it issued."
        yield about(certificate, "chain-order", "chain", message, hint)


def _roots(search: Search) -> Iterator[Finding]:
    """Check the roots that stand beside the path.

    Each must be a CA: istiod asks it of the first (verifyTrustAnchor in pilot/pkg/trustbundle)
    after it has swapped the set, and any of a sorted file may be the first.
    """
    now = search.now
    for root in search.bundle.roots:
        if not rules.is_ca(root):
            message = f"{root.subject!r} is among the roots, and is not a CA."
            hint = f"Take it out of {CA_FILES['roots']}."
            yield about(root, "root-not-a-ca", "roots", message, hint)
        elif not root.not_before <= now <= root.not_after:
            when = f"from {root.not_before:%FT%TZ} to {root.not_after:%FT%TZ}"
            message = f"The root {root.subject!r} is not valid now, only {when}."
            hint = "Remove it once nothing is signed under it."
            yield about(root, "root-not-valid", "roots", message, hint, Severity.WARNING)


def _unused(search: Search) -> Iterator[Finding]:
    if not search.good:
        return
    used = {each for path in search.paths if path.anchored for each in path.certificates}
    for certificate in dict.fromkeys(search.bundle.chain):
        if certificate not in used:
            message = (
                f"{certificate.subject!r} is in {CA_FILES['chain']}, and on no path to a root."
            )
            hint = "Remove it: it is sent with every workload certificate."
            yield about(certificate, "chain-unused", "chain", message, hint, Severity.WARNING)
