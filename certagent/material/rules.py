"""What one certificate must be to stand at its place in a path.

Each rule is one of Go's crypto/x509 (Certificate.isValid, CheckSignatureFrom,
checkChainForKeyUsage) or what a real Envoy asks for beyond them. A rule returns a finding, or None
where it is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, SignatureAlgorithmOID
from msgspec import Struct

from certagent.material import names
from certagent.material.der import INTEGER, context, inside
from certagent.material.finding import Finding, Severity

if TYPE_CHECKING:
    from datetime import datetime

    from certagent.material.certificates import Certificate, RevocationList

MIN_RSA_BITS = 1024
"""Go's crypto/rsa refuses to verify with a shorter key (checkKeySize, since Go 1.24)."""

_SUPPORTED_SIGNATURES = frozenset(
    {
        SignatureAlgorithmOID.RSA_WITH_SHA256,
        SignatureAlgorithmOID.RSA_WITH_SHA384,
        SignatureAlgorithmOID.RSA_WITH_SHA512,
        SignatureAlgorithmOID.RSASSA_PSS,
        SignatureAlgorithmOID.ECDSA_WITH_SHA256,
        SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        SignatureAlgorithmOID.ECDSA_WITH_SHA512,
        SignatureAlgorithmOID.ED25519,
    }
)
"""crypto/x509.signatureAlgorithmDetails, less what checkSignature calls insecure (MD5, SHA-1)."""

_INSECURE_SIGNATURES = {
    SignatureAlgorithmOID.RSA_WITH_MD5: "MD5",
    SignatureAlgorithmOID.RSA_WITH_SHA1: "SHA-1",
    SignatureAlgorithmOID.ECDSA_WITH_SHA1: "SHA-1",
}

_GO_PSS = frozenset(
    (bytes.fromhex(oid), bytes((INTEGER, 1, size)))
    for oid, size in (
        ("0609608648016503040201", 32),  # SHA-256
        ("0609608648016503040202", 48),  # SHA-384
        ("0609608648016503040203", 64),  # SHA-512
    )
)
"""The hashes of RSA-PSS that Go knows, each with its salt length, in DER."""

_HANDLED_WHEN_CRITICAL = frozenset(
    {
        ExtensionOID.KEY_USAGE,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.POLICY_MAPPINGS,
        ExtensionOID.POLICY_CONSTRAINTS,
        ExtensionOID.INHIBIT_ANY_POLICY,
    }
)
"""crypto/x509.processExtensions; it makes the parser fail where a key identifier is critical."""


class Place(Struct, frozen=True):
    """Where a certificate stands: the part it comes from, and the path below it, lowest first."""

    part: str
    below: tuple[Certificate, ...]
    now: datetime


def about(
    certificate: Certificate,
    code: str,
    part: str,
    message: str,
    hint: str,
    severity: Severity = Severity.ERROR,
) -> Finding:
    """Return a finding that names the certificate."""
    named = certificate.subject, certificate.fingerprint
    return Finding(code, severity, part, message, hint, *named)


def defects(certificate: Certificate, place: Place) -> tuple[Finding, ...]:
    """Return why the certificate cannot stand at its place; empty when it can."""
    rules = (
        validity,
        authority,
        critical_extensions,
        _path_length,
        _purposes,
        name_constraints,
        _policies,
        size,
    )
    found = (rule(certificate, place) for rule in rules)
    return tuple(finding for finding in found if finding)


def signature_defect(child: Certificate, part: str) -> Finding | None:
    """Judge the algorithm of a signature that somebody must check (crypto/x509.checkSignature).

    The signature of a root is not: nobody checks what an anchor says of itself.
    """
    algorithm = child.x509.signature_algorithm_oid
    hint = "Issue it again with SHA-256."
    if algorithm in _SUPPORTED_SIGNATURES:
        if pss_as_go_reads_it(child):
            return None
        name = "RSA-PSS in a form"
        hint = "Issue it again with SHA-256 for hash and MGF1 and a salt of 32 bytes"
        hint += " (openssl: `-sigopt rsa_pss_saltlen:digest`), or without PSS."
    else:
        name = _INSECURE_SIGNATURES.get(algorithm, algorithm.dotted_string)
    message = f"{child.subject!r} is signed with {name}, which Go and Envoy refuse."
    return about(child, "insecure-signature", part, message, hint)


def pss_as_go_reads_it(signed: Certificate | RevocationList) -> bool:
    """Mirror what getSignatureAlgorithmFromAI asks of RSA-PSS; of other algorithms, True.

    One of three hashes, the same in MGF1, and a salt of the length of the hash.
    """
    if signed.x509.signature_algorithm_oid != SignatureAlgorithmOID.RSASSA_PSS:
        return True
    parameters = inside(inside(signed.der)[1])[1]
    digest, mask, salt = (context(parameters, number) for number in range(3))
    if digest is None or mask is None or salt is None:
        return False  # a default: SHA-1, or a salt of 20 bytes
    algorithm = inside(digest)[0]
    return inside(inside(mask)[1])[0] == algorithm and (algorithm, salt) in _GO_PSS


def is_ca(certificate: Certificate) -> bool:
    """Whether basicConstraints says CA:true."""
    constraints = certificate.extension(x509.BasicConstraints)
    return constraints is not None and constraints.ca


def may(certificate: Certificate, usage: str) -> bool:
    """Whether keyUsage allows `usage`; a certificate without the extension may do everything."""
    extension = certificate.extension(x509.KeyUsage)
    return extension is None or bool(getattr(extension, usage))


def alternative_names(certificate: Certificate) -> tuple[x509.GeneralName, ...]:
    """Return the subject's alternative names."""
    return tuple(certificate.extension(x509.SubjectAlternativeName) or ())


def validity(certificate: Certificate, place: Place) -> Finding | None:
    """Check the dates to the second, without tolerance (Certificate.isValid)."""
    if place.now < certificate.not_before:
        message = f"{certificate.subject!r} is not valid before {certificate.not_before:%FT%TZ}."
        hint = f"Now is {place.now:%FT%TZ}. Wait, or issue it with an earlier notBefore."
        return about(certificate, "certificate-not-yet-valid", place.part, message, hint)
    if place.now > certificate.not_after:
        message = f"{certificate.subject!r} expired at {certificate.not_after:%FT%TZ}."
        hint = f"Now is {place.now:%FT%TZ}. Issue it again, and store the new set."
        return about(certificate, "certificate-expired", place.part, message, hint)
    return None


def authority(certificate: Certificate, place: Place) -> Finding | None:
    """Check that it may sign certificates: CheckSignatureFrom, and isValid of an intermediate."""
    if not is_ca(certificate):
        message = f"{certificate.subject!r} is not a CA: basicConstraints lacks CA:true."
        hint = "Only a CA may stand here, not the certificate of a server."
        return about(certificate, "not-a-ca", place.part, message, hint)
    if not may(certificate, "key_cert_sign"):
        message = f"{certificate.subject!r} may not sign certificates: keyUsage lacks keyCertSign."
        hint = "Issue it again with keyCertSign."
        return about(certificate, "key-usage-lacks-cert-sign", place.part, message, hint)
    return None


def critical_extensions(certificate: Certificate, place: Place) -> Finding | None:
    """Check for UnhandledCriticalExtensions (crypto/x509.processExtensions)."""
    for extension in certificate.x509.extensions:
        if extension.critical and not _handled(extension):
            oid = extension.oid.dotted_string
            message = (
                f"{certificate.subject!r} has a critical extension that Go cannot read: {oid}."
            )
            hint = "Issue it again without, or not marked critical."
            return about(certificate, "unhandled-critical-extension", place.part, message, hint)
    return None


def _handled(extension: x509.Extension[x509.ExtensionType]) -> bool:
    value = extension.value
    if isinstance(value, x509.SubjectAlternativeName):
        return any(isinstance(name, names.KINDS) for name in value)
    if isinstance(value, x509.NameConstraints):
        trees = (*(value.permitted_subtrees or ()), *(value.excluded_subtrees or ()))
        return all(isinstance(tree, names.KINDS) for tree in trees)
    return extension.oid in _HANDLED_WHEN_CRITICAL


def _path_length(certificate: Certificate, place: Place) -> Finding | None:
    """Count the CAs below it: isValid's numIntermediates, for a workload's certificate.

    istiod takes the CA certificate for the leaf, and counts one less than its workloads' peers.
    """
    constraints = certificate.extension(x509.BasicConstraints)
    limit = constraints.path_length if constraints else None
    below = len(place.below)
    if limit is None or below <= limit:
        return None
    message = f"{certificate.subject!r} has pathlen:{limit}; CAs below it: {below}"
    hint = f"Issue it again with pathlen:{below} or more, or sign with a CA nearer to it."
    if below == limit + 1:
        text = f"{message}. istiod starts, and peers refuse every workload certificate."
        return about(certificate, "leaf-path-length", place.part, text, hint)
    return about(certificate, "path-length", place.part, f"{message}.", hint)


def _purposes(certificate: Certificate, place: Place) -> Finding | None:
    """Check extendedKeyUsage: both sides of TLS by name, or no such extension.

    checkChainForKeyUsage asks for one of the usages or any, of roots too. Envoy (measured: 1.40)
    does not take anyExtendedKeyUsage for clientAuth, and does not ask its anchors.
    """
    usages = certificate.extension(x509.ExtendedKeyUsage)
    if usages and place.part == "roots" and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usages:
        return None
    needed = {
        "serverAuth": ExtendedKeyUsageOID.SERVER_AUTH,
        "clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    missing = [name for name, usage in needed.items() if usages and usage not in usages]
    if not missing:
        return None
    message = f"extendedKeyUsage of {certificate.subject!r} lacks {' and '.join(missing)}."
    hint = "Issue it again with serverAuth and clientAuth, or without extendedKeyUsage."
    return about(certificate, "extended-key-usage", place.part, message, hint)


def name_constraints(certificate: Certificate, place: Place) -> Finding | None:
    """Check the names of all CAs below against its name constraints."""
    constraints = certificate.extension(x509.NameConstraints)
    for other in place.below:
        if constraints is None:
            break
        theirs = alternative_names(other)
        if names.too_many(constraints, theirs):
            message = f"{certificate.subject!r} has too many name constraints for {other.subject!r}"
            hint = f"Issue one of them again: Go compares {names.MAX_COMPARISONS} pairs at most."
            code = "name-constraints-too-many"
            return about(certificate, code, place.part, f"{message}.", hint)
        name = names.violation(constraints, theirs)
        if name:
            message = (
                f"{certificate.subject!r} may not sign for {name.value!r} of {other.subject!r}."
            )
            hint = "Issue one of them again: the name constraints must permit the name."
            return about(certificate, "name-constraints-violated", place.part, message, hint)
    return None


def _policies(certificate: Certificate, place: Place) -> Finding | None:
    """Check for requireExplicitPolicy: workload certificates have no policies (policiesValid)."""
    policy = certificate.extension(x509.PolicyConstraints)
    if place.part == "roots" or policy is None or policy.require_explicit_policy is None:
        return None  # an anchor's policies are not looked at
    message = f"{certificate.subject!r} requires a policy that no workload certificate has."
    hint = "Issue it again without policyConstraints."
    return about(certificate, "policy-required", place.part, message, hint)


def size(certificate: Certificate, place: Place) -> Finding | None:
    """Check that Go verifies with the key (crypto/rsa checkKeySize)."""
    key = certificate.x509.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size >= MIN_RSA_BITS:
        return None
    message = f"The RSA key of {certificate.subject!r} has {key.key_size} bits; Go refuses it."
    return about(certificate, "key-too-small", place.part, message, "Use RSA 3072 or P-256.")
