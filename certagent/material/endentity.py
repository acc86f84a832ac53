"""Whether a set of kind tls works: the certificate, what is sent with it, and whom it trusts.

What is sent is checked link by link, up to where it ends: where the peers' trust begins is not
known here. The roots beside it are no part of that path, whatever the usage: a server's `ca.crt` is
the CA of its clients, a client's that of its servers (BuildListenerTLSContext,
ApplyToCommonTLSContext in pilot). They are judged by themselves.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from cryptography import x509

from certagent.material import advice, leaf, rules
from certagent.material.chains import issued, link_defects
from certagent.material.finding import Finding, Severity
from certagent.material.raw import TLS_FILES
from certagent.material.rules import Place, about
from certagent.material.verification import proven

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from certagent.material.bundle import KeyCertBundle
    from certagent.material.certificates import Certificate
    from certagent.material.leaf import Usage
    from certagent.material.verification import VerifiedBundle

LONGEST_NOTICE = timedelta(days=30)
"""How long before its end a certificate is spoken of at most."""

_PART = "certificate"
"""The part that is sent: the chain follows the certificate in one file."""

_warn = partial(about, severity=Severity.WARNING)


def verify(bundle: KeyCertBundle, now: datetime, *, usage: Usage) -> VerifiedBundle:
    """Return the bundle as one that works at `now` (aware).

    It works from when all that is sent is valid, and one of the roots, if there are any; and for as
    long. Raises `MaterialRefused` with all findings, errors first.
    """
    sent = (bundle.certificate, *bundle.chain)
    ends = [each.not_after for each in sent]
    if bundle.roots:
        ends.append(max(root.not_after for root in bundle.roots))
    found = findings(bundle, now, usage=usage)
    return proven(bundle, found, sent, (), (bundle.not_before, min(ends)))


def findings(bundle: KeyCertBundle, now: datetime, *, usage: Usage) -> tuple[Finding, ...]:
    """Return all that there is to say about a bundle at `now` (aware): errors first."""
    found = (
        *_key(bundle),
        *leaf.findings(bundle.certificate, now, usage),
        *_links(bundle, now, usage),
        *_roots(bundle, now),
        *_soon(bundle, now),
        *bundle.notes,
    )
    return tuple(sorted(dict.fromkeys(found), key=lambda each: each.severity is not Severity.ERROR))


def _key(bundle: KeyCertBundle) -> Iterator[Finding]:
    """Check that key and certificate belong together (crypto/tls.X509KeyPair)."""
    first = bundle.certificate
    if bundle.private_key.public_key_info != first.public_key_info:
        message = f"The private key does not belong to {first.subject!r}, nor to what follows it."
        hint = f"{TLS_FILES['certificate']} must hold the certificate that was made for the key."
        yield about(first, "key-mismatch", "private_key", message, hint)


# What is sent with it


def _links(bundle: KeyCertBundle, now: datetime, usage: Usage) -> Iterator[Finding]:
    """Check each certificate that is sent against the one that it issued."""
    below: dict[Certificate, tuple[Certificate, ...]] = {bundle.certificate: ()}
    for child in (bundle.certificate, *bundle.chain):
        if child not in below:
            continue  # an impostor, which is blamed below
        issuers = [each for each in bundle.chain if issued(each, child)]
        for issuer in issuers:
            below.setdefault(issuer, (*below[child], child))
            yield from link_defects(child, issuer, _PART)
        if child != bundle.certificate:
            yield from _issuer(child, Place(_PART, below[child], now), usage)
        if not issuers and not issued(child, child):
            yield from _end(bundle, child)


def _issuer(issuer: Certificate, place: Place, usage: Usage) -> Iterator[Finding]:
    for finding in (
        rules.validity(issuer, place),
        rules.authority(issuer, place),
        rules.critical_extensions(issuer, place),
        rules.name_constraints(issuer, place),
        rules.size(issuer, place),
        leaf.purposes(issuer, place.part, usage),
        _path_length(issuer, place),
        _policy(issuer, place),
        advice.weakness(issuer, place.part),
    ):
        if finding:
            yield finding
    if issued(issuer, issuer):
        message = f"The root {issuer.subject!r} is sent in every handshake."
        hint = "Leave it out: who trusts it has it, and who has not does not trust it."
        yield _warn(issuer, "root-sent", place.part, message, hint)


def _path_length(issuer: Certificate, place: Place) -> Finding | None:
    """Count the CAs below it: all that is below but the leaf."""
    constraints = issuer.extension(x509.BasicConstraints)
    limit = constraints.path_length if constraints else None
    cas = len(place.below) - 1
    if limit is None or cas <= limit:
        return None
    message = f"{issuer.subject!r} has pathlen:{limit}; CAs below it: {cas}."
    hint = f"Issue it again with pathlen:{cas} or more, or issue with a CA nearer to it."
    return about(issuer, "path-length", place.part, message, hint)


def _policy(issuer: Certificate, place: Place) -> Finding | None:
    """Check for requireExplicitPolicy, which Go and not OpenSSL looks at (policiesValid)."""
    policy = issuer.extension(x509.PolicyConstraints)
    if policy is None or policy.require_explicit_policy is None:
        return None
    lacking = next((each for each in place.below if not _has_policies(each)), None)
    if lacking is None:
        return None
    message = f"{issuer.subject!r} requires a policy, and {lacking.subject!r} has none."
    hint = "Issue the one with certificatePolicies, or the other without policyConstraints."
    return about(issuer, "policy-required", place.part, message, hint)


def _has_policies(certificate: Certificate) -> bool:
    return certificate.extension(x509.CertificatePolicies) is not None


def _end(bundle: KeyCertBundle, last: Certificate) -> Iterator[Finding]:
    """Judge the last certificate that is sent: its issuer must be known to the peers."""
    weak = rules.signature_defect(last, _PART)
    if weak:
        yield weak
    namesakes = [each for each in bundle.chain if each.subject_name == last.issuer_name]
    if any(each.subject_name != each.issuer_name for each in namesakes):
        message = f"{last.subject!r} was signed by another key than that of the {last.issuer!r}"
        hint = "Store a certificate and a chain that were made together."
        yield about(last, "signature-mismatch", _PART, f"{message} here.", hint)
    elif last.extension(x509.PrecertificateSignedCertificateTimestamps) is not None:
        # No root of a browser may issue such a certificate itself (CA/Browser Forum BR, 6.1.7).
        # Of a private CA nobody can tell whether the issuer is a root, which is not to be sent.
        message = f"{last.issuer!r}, the issuer of {last.subject!r}, is not sent."
        hint = f"Append it to {TLS_FILES['certificate']} (fullchain.pem): only some clients find it"
        hint += " by themselves."
        yield _warn(last, "chain-incomplete", _PART, message, hint)


# Whom it trusts


def _roots(bundle: KeyCertBundle, now: datetime) -> Iterator[Finding]:
    """Check those that its peers must have been issued by, or must be.

    Envoy trusts whatever stands there for itself, a peer's own certificate included, and what was
    issued by it unless it says that it may not issue (measured: 1.40).
    """
    file = TLS_FILES["roots"]
    valid = [root for root in bundle.roots if root.not_before <= now <= root.not_after]
    if bundle.roots and not valid:
        last = max(bundle.roots, key=lambda root: root.not_after)
        message = "None of the roots is valid now, so nobody can be verified."
        hint = f"The last one holds from {last.not_before:%FT%TZ} to {last.not_after:%FT%TZ}."
        yield about(last, "no-valid-root", "roots", message, f"{hint} Store those of the peers.")
    for root in bundle.roots:
        if not rules.is_ca(root):
            message = f"{root.subject!r} is among the roots, and does not say that it is a CA."
            hint = "Right for a peer's own certificate, which is trusted for itself."
            hint += f" Else put the CA that issued it into {file}."
            yield _warn(root, "root-trusted-for-itself", "roots", message, hint)
        elif unable := rules.authority(root, Place("roots", (), now)):
            yield unable
        if valid and root not in valid:
            when = f"from {root.not_before:%FT%TZ} to {root.not_after:%FT%TZ}"
            message = f"The root {root.subject!r} is not valid now, only {when}."
            yield _warn(root, "root-not-valid", "roots", message, f"Remove it from {file} in time.")
        found = rules.size(root, Place("roots", (), now)) or advice.weakness(root, "roots")
        if found:
            yield found


def _soon(bundle: KeyCertBundle, now: datetime) -> Iterator[Finding]:
    """Warn in the last third of the leaf's lifetime, by which time it should have been renewed."""
    first = bundle.certificate
    notice = min((first.not_after - first.not_before) / 3, LONGEST_NOTICE)
    for part, certificates in ((_PART, (first, *bundle.chain)), ("roots", bundle.roots)):
        for each in certificates:
            left = each.not_after - now
            if timedelta(0) <= left < notice:
                hours = left // timedelta(hours=1)
                message = f"{each.subject!r} expires in {hours} h, at {each.not_after:%FT%TZ}."
                hint = "Renew it now, and see why nobody has."
                yield _warn(each, "expires-soon", part, message, hint)
