"""What the certificate of a server or a client must be, to be shown as one.

Envoy's own conditions were measured with Envoy 1.40, its peers' with OpenSSL 3.0; Go's are those of
crypto/x509.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from certagent.material import advice, names, rules
from certagent.material.finding import Finding, Severity
from certagent.material.rules import Place, about

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from certagent.material.certificates import Certificate

Usage = Literal["server", "client", "both"]
"""As what a certificate is shown: by a gateway to its clients, by a sidecar to a server."""

MIN_RSA_BITS = 2048
"""Envoy loads no shorter key (ContextImpl in source/common/tls/context_impl.cc)."""

_EKUS = {
    "server": {"serverAuth": ExtendedKeyUsageOID.SERVER_AUTH},
    "client": {"clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH},
}
_EKUS["both"] = _EKUS["server"] | _EKUS["client"]
_PART = "certificate"
_warn = partial(about, severity=Severity.WARNING)


def findings(leaf: Certificate, now: datetime, usage: Usage) -> Iterator[Finding]:
    """Yield all that there is to say about the certificate itself at `now` (aware)."""
    place = Place(_PART, (), now)
    for finding in (
        rules.validity(leaf, place),
        rules.critical_extensions(leaf, place),
        _kind_of_key(leaf) or advice.weakness(leaf, _PART),
        purposes(leaf, _PART, usage),
    ):
        if finding:
            yield finding
    if not rules.may(leaf, "digital_signature"):
        # Envoy loads no EC certificate without it, and browsers refuse an RSA one.
        message = f"keyUsage of {leaf.subject!r} lacks digitalSignature."
        hint = "Issue it again with digitalSignature: TLS 1.3 and ECDHE sign (RFC 8446, 4.4.2.2)."
        yield about(leaf, "key-usage-lacks-digital-signature", _PART, message, hint)
    if rules.is_ca(leaf):
        message = f"{leaf.subject!r} is a CA, and is shown as a {_role(usage)}'s certificate."
        hint = "Firefox and rustls refuse it. Issue one with CA:false."
        yield _warn(leaf, "leaf-is-ca", _PART, message, hint)
    yield from _names(leaf, usage)
    if usage != "client":
        yield from _stapling(leaf)


def _kind_of_key(leaf: Certificate) -> Finding | None:
    """Check that Envoy loads the key: RSA of 2048 bits, P-256, P-384, P-521, Ed25519."""
    key = leaf.x509.public_key()
    hint = "Issue it for a new key: P-256, or RSA 2048."
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        message = f"The RSA key of {leaf.subject!r} has {key.key_size} bits; Envoy refuses it."
        return about(leaf, "key-too-small", _PART, message, hint)
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp224r1":
        message = f"The key of {leaf.subject!r} is on P-224; Envoy refuses it."
        return about(leaf, "key-unsupported", _PART, message, hint)
    return None


def purposes(certificate: Certificate, part: str, usage: Usage) -> Finding | None:
    """Check extendedKeyUsage: what it is shown as by name, or no such extension.

    anyExtendedKeyUsage is enough for Go, and not for OpenSSL (X509_check_purpose).
    """
    usages = certificate.extension(x509.ExtendedKeyUsage)
    missing = [name for name, oid in _EKUS[usage].items() if usages and oid not in usages]
    if not missing:
        return None
    message = f"extendedKeyUsage of {certificate.subject!r} lacks {' and '.join(missing)}."
    hint = "Issue it again with that, or set the bundle's usage to what it is for."
    return about(certificate, "extended-key-usage", part, message, hint)


def _names(leaf: Certificate, usage: Usage) -> Iterator[Finding]:
    """Check that peers can tell whom they meet: nobody looks at the common name any more."""
    found = rules.alternative_names(leaf)
    for name in found:
        if isinstance(name, x509.DNSName) and not names.matchable(name):
            message = f"No client can ask for {name.value!r}, a name of {leaf.subject!r}."
            hint = "A wildcard stands for the whole first label: *.example.com."
            yield _warn(leaf, "san-unusable", _PART, message, hint)
    if any(names.matchable(name) for name in found):
        return
    message = f"{leaf.subject!r} has no subject alternative name that a peer could look for."
    if usage == "client":
        hint = "Servers that ask who it is (by DNS name or URI) refuse it."
        yield _warn(leaf, "client-san-missing", _PART, message, hint)
    else:
        hint = "Issue it again with its host names as DNS names; clients ignore the common name."
        yield about(leaf, "san-missing", _PART, message, hint)


def _stapling(leaf: Certificate) -> Iterator[Finding]:
    """Check for must-staple (RFC 7633): Envoy does not load it without a staple (measured)."""
    feature = leaf.extension(x509.TLSFeature)
    if feature and x509.TLSFeatureType.status_request in feature:
        message = f"{leaf.subject!r} must be served with an OCSP staple, and Istio has none."
        hint = "Issue it again without the TLS feature extension (must-staple)."
        yield about(leaf, "must-staple", _PART, message, hint)


def _role(usage: Usage) -> str:
    return "server" if usage == "both" else usage
