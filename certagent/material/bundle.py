"""A set of material: PEM in, typed parts, canonical PEM out; here as istiod reads a CA.

Decoding refuses what istiod would misread, and reports all faults of all parts in one go. What is
only untidy is put in order: roots are a set, sorted, and their file's bytes are a function of it,
because istiod compares the bytes (pilot/pkg/bootstrap/istio_ca.go handleEvent).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from certagent.errors import MaterialRefused
from certagent.material.finding import Finding, Severity
from certagent.material.parts import Parts, Reader
from certagent.material.raw import CA_FILES, RawBundle
from certagent.values import Identified

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from certagent.material.certificates import Certificate, RevocationList
    from certagent.material.keys import PrivateKey

ISTIOD = Reader("istiod", CA_FILES, optional=frozenset({"chain", "crls"}))


class KeyCertBundle(Identified, frozen=True):
    """The parts of a set, each readable; nothing is said yet about whether they work together.

    Of a CA, `chain` is in the order in which it was stored; of a gateway, it is what follows the
    certificate in a handshake. `roots` are without duplicates, and sorted by notBefore, then
    SHA-256. `notes` are the warnings of decoding.
    """

    private_key: PrivateKey
    certificate: Certificate
    chain: tuple[Certificate, ...]
    roots: tuple[Certificate, ...]
    crls: tuple[RevocationList, ...] = ()
    notes: tuple[Finding, ...] = ()

    @property
    def identity(self) -> object:
        """All but the notes."""
        return (self.private_key, self.certificate, self.chain, self.roots, self.crls)

    @classmethod
    def decode(cls, raw: RawBundle) -> KeyCertBundle:
        """Read the parts as istiod would, only more strictly.

        PEM: encoding/pem.Decode. Key and certificate: ParsePemEncodedKey and
        ParsePemEncodedCertificate of security/pkg/pki/util/crypto.go, the first block each. Raises
        `MaterialRefused` with all faults of all parts, and nothing else, for any bytes.
        """
        parts = Parts(ISTIOD)
        key = parts.private_key(raw.private_key)
        certificates = parts.certificates(raw.certificate, "certificate")
        chain = parts.certificates(raw.chain, "chain")
        roots = parts.certificates(raw.roots, "roots")
        crls = parts.crls(raw.crls)
        if parts.errors or key is None:
            raise refusal(tuple(parts.errors))
        first, *rest = certificates
        parts.warnings += _dropped([each for each in rest if each not in chain])
        return cls(
            private_key=key,
            certificate=first,
            chain=tuple(chain),
            roots=tuple(sorted(set(roots), key=lambda root: (root.not_before, root.fingerprint))),
            crls=tuple(crls),
            notes=tuple(parts.warnings),
        )

    def canonical(self) -> RawBundle:
        """Return the bytes to publish: each block's label and DER, LF, 64 columns, nothing between.

        A fixed point: decoding it gives an equal bundle, whose canonical form is the same.
        """
        return RawBundle(
            private_key=self.private_key.pem,
            certificate=self.certificate.pem,
            chain=b"".join(each.pem for each in self.chain),
            roots=b"".join(each.pem for each in self.roots),
            crls=b"".join(each.pem for each in self.crls),
        )

    @property
    def root_set(self) -> str:
        """The SHA-256 (hex) over the roots' raw SHA-256 digests, one after the other, sorted.

        The same for two bundles exactly when they have the same set of roots; empty without any.
        """
        if not self.roots:
            return ""
        digests = sorted(bytes.fromhex(root.fingerprint) for root in self.roots)
        return hashlib.sha256(b"".join(digests)).hexdigest()

    @property
    def not_before(self) -> datetime:
        """From when the set can hold (aware, UTC): all of its signers, and at least one root."""
        starts = [each.not_before for each in (self.certificate, *self.chain)]
        if self.roots:
            starts.append(min(root.not_before for root in self.roots))
        return max(starts)


def tls_layout(tls_crt: bytes, tls_key: bytes, ca_crt: bytes) -> RawBundle:
    """Return the parts that istiod makes of a kubernetes.io/tls Secret's files.

    As detectSigningCABundleAndCRL (pilot/pkg/bootstrap/istio_ca.go) does it: the chain is `tls.crt`
    and `ca.crt` joined byte by byte, so a `tls.crt` without a newline at its end is found glued.
    Revocation lists are never read in this layout.
    """
    return RawBundle(private_key=tls_key, certificate=tls_crt, chain=tls_crt + ca_crt, roots=ca_crt)


def refusal(findings: tuple[Finding, ...]) -> MaterialRefused:
    """Return the error for material with these findings: the count, the first reason, its hint."""
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    first, others = errors[0], len(errors) - 1
    more = f" ({others} more: {', '.join(dict.fromkeys(f.code for f in errors[1:]))})"
    message = f"{first.part}: {first.message}{more if others else ''}"
    return MaterialRefused(message, findings, hint=first.hint)


def _dropped(certificates: Sequence[Certificate]) -> Iterator[Finding]:
    for each in certificates:
        message = f"After the CA certificate comes {each.subject!r}, which is left out."
        hint = f"istiod reads the first certificate of {CA_FILES['certificate']} only; "
        hint += f"what its peers need must be in {CA_FILES['chain']}."
        yield Finding(
            "extra-blocks",
            Severity.WARNING,
            "certificate",
            message,
            hint,
            each.subject,
            each.fingerprint,
        )
