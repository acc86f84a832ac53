"""Path building as Go's crypto/x509 does it, for a workload certificate under the CA certificate.

Certificate.Verify with ca-cert.pem as the leaf is what istiod checks; what its workloads' peers
check is the same path one certificate deeper. Here the deeper one is built, without signing
anything: a workload certificate has no property that could fail but its issuer, which is the CA
certificate.

Unlike Go, a candidate with a defect is followed, so that the answer is which certificate is wrong
and not only "unknown authority".
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from msgspec import Struct, field

from certagent.material import rules
from certagent.material.rules import Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from certagent.material.bundle import KeyCertBundle
    from certagent.material.certificates import Certificate
    from certagent.material.finding import Finding

MAX_SIGNATURE_CHECKS = 100
"""crypto/x509.maxChainSignatureChecks: the work that one verification may cost a peer."""


class Path(Struct, frozen=True):
    """From the CA certificate up to an anchor, or as far as issuers were found.

    `defects` are empty when a workload certificate below it verifies. `anchored` tells whether it
    ends in a root. `impostors` have the missing issuer's name, but did not sign.
    """

    certificates: tuple[Certificate, ...]
    defects: tuple[Finding, ...]
    anchored: bool
    impostors: tuple[Certificate, ...] = ()

    @property
    def good(self) -> bool:
        """Whether a workload certificate verifies by this path."""
        return self.anchored and not self.defects

    @property
    def not_before(self) -> datetime:
        """From when all of it holds."""
        return max(certificate.not_before for certificate in self.certificates)

    @property
    def not_after(self) -> datetime:
        """When the first of it expires."""
        return min(certificate.not_after for certificate in self.certificates)


class Search(Struct):
    """All paths of a bundle at a moment; `exhausted` when peers would give up before the end."""

    bundle: KeyCertBundle
    now: datetime
    paths: list[Path] = field(default_factory=list)
    exhausted: bool = False
    _checks: int = 0

    @classmethod
    def of(cls, bundle: KeyCertBundle, now: datetime) -> Search:
        """Build every path (Certificate.Verify: roots.contains first, then buildChains)."""
        search = cls(bundle, now)
        certificate = bundle.certificate
        if certificate in bundle.roots:
            place = Place("roots", (), now)
            search.paths.append(
                Path((certificate,), rules.defects(certificate, place), anchored=True)
            )
        own = rules.defects(certificate, Place("certificate", (), now))
        search._extend((certificate,), own)
        return search

    @property
    def good(self) -> tuple[Path, ...]:
        """The paths by which a workload certificate verifies, the longest-lived first."""
        good = (path for path in self.paths if path.good)
        return tuple(sorted(good, key=lambda path: path.not_after, reverse=True))

    @property
    def first(self) -> Path:
        """The path of a verifier that follows the first issuer of a name and never turns back.

        OpenSSL and Envoy's BoringSSL do (X509_verify_cert; measured with Envoy 1.40): anchors
        first, then the chain in its order, by name and key identifier; a signature or a date that
        fails there is final.
        """
        return self.paths[0]

    @property
    def nearest(self) -> Path:
        """The path that lacks least: anchored rather than not, then with the fewest defects."""
        return min(
            self.paths,
            key=lambda path: (not path.anchored, len(path.defects), -len(path.certificates)),
        )

    def _extend(self, path: tuple[Certificate, ...], defects: tuple[Finding, ...]) -> None:
        """Mirror Certificate.buildChains and its considerCandidate."""
        child, extended, impostors = path[-1], False, []
        child_part = "certificate" if len(path) == 1 else "chain"
        weak = rules.signature_defect(child, child_part)  # then the signature is not looked at
        for candidate, part in self._potential_parents(child):
            if _already_in(path, candidate):
                continue
            self._checks += 1
            if self._checks > MAX_SIGNATURE_CHECKS:
                self.exhausted = True
                break
            if not weak and not signed(child, candidate):
                impostors.append(candidate)
                if not _names_another(child, candidate):
                    self.paths.append(Path(path, defects, anchored=False, impostors=(candidate,)))
                continue
            extended = True
            own = rules.defects(candidate, Place(part, path, self.now))
            found = (*defects, *link_defects(child, candidate, child_part), *own)
            if part == "roots":
                self.paths.append(Path((*path, candidate), found, anchored=True))
            else:
                self._extend((*path, candidate), found)
        if not extended:
            self.paths.append(Path(path, defects, anchored=False, impostors=tuple(impostors)))

    def _potential_parents(self, child: Certificate) -> Iterator[tuple[Certificate, str]]:
        """Mirror CertPool.findPotentialParents: by name, those with another key id last."""
        for part, pool in (("roots", self.bundle.roots), ("chain", self.bundle.chain)):
            named = [
                parent for parent in dict.fromkeys(pool) if parent.subject_name == child.issuer_name
            ]
            for parent in sorted(named, key=lambda parent: _names_another(child, parent)):
                yield parent, part


def link_defects(child: Certificate, parent: Certificate, part: str) -> Iterator[Finding]:
    """Yield what speaks against a link although the parent signed the child."""
    weak = rules.signature_defect(child, part)
    if weak:
        yield weak
    if _names_another(child, parent):
        message = f"The authority key identifier of {child.subject!r} is not that of its issuer"
        hint = "Issue it again: Go passes over this, Envoy does not."
        yield rules.about(child, "key-id-mismatch", part, f"{message} {parent.subject!r}.", hint)


def _names_another(child: Certificate, parent: Certificate) -> bool:
    """Tell whether the child's authority key identifier is not the parent's.

    Go tries such a parent last (CertPool.findPotentialParents); OpenSSL and BoringSSL never
    (X509_check_issued).
    """
    authority = child.extension(x509.AuthorityKeyIdentifier)
    if authority is None:
        return False
    wanted, serial = authority.key_identifier, authority.authority_cert_serial_number
    subject = parent.extension(x509.SubjectKeyIdentifier)
    if wanted and subject and wanted != subject.digest:
        return True
    return serial is not None and serial != parent.x509.serial_number


def _already_in(path: Sequence[Certificate], candidate: Certificate) -> bool:
    """Mirror crypto/x509.alreadyInChain: the same subject, key and alternative names."""
    return any(_identity(certificate) == _identity(candidate) for certificate in path)


def _identity(certificate: Certificate) -> tuple[object, ...]:
    names = rules.alternative_names(certificate)
    return certificate.subject_name, certificate.public_key_info, names


def issued(parent: Certificate, child: Certificate) -> bool:
    """Tell whether the parent is an issuer of the child; a weak signature is taken as it stands."""
    if parent.subject_name != child.issuer_name:
        return False
    return bool(rules.signature_defect(child, "")) or signed(child, parent)


def is_tangled(certificates: Sequence[Certificate]) -> bool:
    """Tell whether to order these by who issued whom takes more work than a peer would do."""
    named = Counter(each.subject_name for each in certificates)
    return sum(named[each.issuer_name] for each in certificates) > MAX_SIGNATURE_CHECKS


@lru_cache(maxsize=64)
def signed(child: Certificate, parent: Certificate) -> bool:
    """Tell whether the parent's key signed the child.

    It is remembered: a set is judged when it is read, and again when it is published.
    """
    try:
        child.x509.verify_directly_issued_by(parent.x509)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True
