"""Certificate revocation lists: what istiod asks for, and what Envoy then does with them.

istiod (security/pkg/pki/util/keycertbundle.go Verify) wants, as soon as ca-crl.pem is not empty, a
list signed by every certificate of cert-chain.pem. Envoy checks each certificate of a peer's chain
against its issuer's list (X509_V_FLAG_CRL_CHECK_ALL): a list that is missing, or past its
nextUpdate, refuses every connection under its issuer, and so does one that revokes the CA itself
(measured with Envoy 1.40; of several lists of one issuer, a present one is enough).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from certagent.material.chains import MAX_SIGNATURE_CHECKS
from certagent.material.finding import Finding, Severity
from certagent.material.raw import CA_FILES
from certagent.material.rules import about, may, pss_as_go_reads_it

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from certagent.material.bundle import KeyCertBundle
    from certagent.material.certificates import Certificate, RevocationList
    from certagent.material.chains import Path

_PART = "crls"
_FILE = CA_FILES[_PART]


def findings(bundle: KeyCertBundle, path: Path, now: datetime) -> tuple[Finding, ...]:
    """Judge the lists of a bundle that signs by `path`; a bundle without lists has no findings."""
    if not bundle.crls:
        return ()
    signers = dict.fromkeys((*bundle.chain, *path.certificates))
    named = Counter(each.subject_name for each in (*signers, *bundle.roots))
    if sum(named[crl.issuer_name] for crl in bundle.crls) > MAX_SIGNATURE_CHECKS:
        message = f"{_FILE} and the certificates take too many signature checks."
        hint = "Leave one list of each issuer, and one certificate of each name."
        return (about(bundle.certificate, "crl-too-many", _PART, message, hint),)
    needed = (finding for signer in signers if (finding := _list_of(bundle, signer, now)))
    return (*needed, *_revoked(bundle, path), *_uncovered(bundle, signers))


def _list_of(bundle: KeyCertBundle, signer: Certificate, now: datetime) -> Finding | None:
    """Return what is wrong with the list that the signer must have."""
    lists = [crl for crl in bundle.crls if _signed_by(crl, signer)]
    if not lists:
        message = f"{_FILE} has no list signed by {signer.subject!r}."
        hint = f"Add its list: every certificate of {CA_FILES['chain']} and the root need one."
        return about(signer, "crl-missing", _PART, message, hint)
    if not may(signer, "crl_sign"):
        message = f"{signer.subject!r} may not sign lists: its keyUsage lacks cRLSign."
        hint = f"Issue it again with cRLSign, or leave {_FILE} out."
        return about(signer, "crl-signer", _PART, message, hint)
    if any(crl.this_update <= now and not _stale(crl, now) for crl in lists):
        return None
    newest = max(lists, key=lambda crl: crl.this_update)
    if _stale(newest, now):
        message = (
            f"The list of {signer.subject!r} had its next update at {newest.next_update:%FT%TZ}."
        )
        hint = "Store its present list: Envoy refuses all connections under a stale one."
        return about(signer, "crl-expired", _PART, message, hint)
    message = f"The list of {signer.subject!r} is not valid before {newest.this_update:%FT%TZ}."
    hint = f"Now is {now:%FT%TZ}. Wait, or issue the list again."
    return about(signer, "crl-not-yet-valid", _PART, message, hint)


def _revoked(bundle: KeyCertBundle, path: Path) -> Iterator[Finding]:
    for child, issuer in zip(path.certificates, path.certificates[1:], strict=False):
        serial = child.x509.serial_number
        for crl in bundle.crls:
            if serial in crl.revoked and _signed_by(crl, issuer):
                message = (
                    f"{child.subject!r} (serial {child.serial}) is revoked by its issuer's list."
                )
                hint = "Issue a new CA certificate with a new key, and store that set."
                yield about(child, "certificate-revoked", "certificate", message, hint)
                break


def _uncovered(bundle: KeyCertBundle, signers: dict[Certificate, None]) -> Iterator[Finding]:
    """Warn of roots that others sign under: with lists present, Envoy wants theirs too."""
    for root in bundle.roots:
        if root in signers or any(_signed_by(crl, root) for crl in bundle.crls):
            continue
        message = f"{_FILE} has no list of the root {root.subject!r}: peers under it are refused."
        hint = "Add the lists of every root and of the CAs below it."
        yield about(root, "crl-missing-for-root", _PART, message, hint, Severity.WARNING)


def _stale(crl: RevocationList, now: datetime) -> bool:
    return crl.next_update is not None and crl.next_update < now


def _signed_by(crl: RevocationList, signer: Certificate) -> bool:
    """Mirror RevocationList.CheckSignatureFrom; Envoy finds the list by the issuer's name."""
    if crl.issuer_name != signer.subject_name or not pss_as_go_reads_it(crl):
        return False
    # Every kind of key that a Certificate can hold signs lists; what cannot be checked is False.
    return crl.x509.is_signature_valid(signer.x509.public_key())  # type: ignore[arg-type]
