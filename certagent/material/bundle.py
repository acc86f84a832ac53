"""A CA as istiod knows it: PEM in, typed parts, canonical PEM out.

Decoding refuses what istiod would misread, and reports all faults of all parts in one go. What is
only untidy is put in order: roots are a set, sorted, and their file's bytes are a function of it,
because istiod compares the bytes (pilot/pkg/bootstrap/istio_ca.go handleEvent).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from certagent.errors import MaterialRefused
from certagent.material import keys, pem
from certagent.material.certificates import Certificate, RevocationList, Unparseable
from certagent.material.finding import Finding, Severity
from certagent.material.keys import PrivateKey
from certagent.material.raw import CA_FILES, RawBundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class KeyCertBundle:
    """The parts of a CA, each readable; nothing is said yet about whether they work together.

    `chain` is in the order in which it was stored, `roots` without duplicates and sorted by
    notBefore, then SHA-256. `notes` are the warnings of decoding.
    """

    private_key: PrivateKey
    certificate: Certificate
    chain: tuple[Certificate, ...]
    roots: tuple[Certificate, ...]
    crls: tuple[RevocationList, ...] = ()
    notes: tuple[Finding, ...] = field(default=(), compare=False)

    @classmethod
    def decode(cls, raw: RawBundle) -> KeyCertBundle:
        """Read the parts as istiod would, only more strictly.

        PEM: encoding/pem.Decode. Key and certificate: ParsePemEncodedKey and
        ParsePemEncodedCertificate of security/pkg/pki/util/crypto.go, the first block each. Raises
        `MaterialRefused` with all faults of all parts, and nothing else, for any bytes.
        """
        parts = _Parts()
        key = parts.private_key(raw.private_key)
        certificates = parts.certificates(raw.certificate, "certificate")
        chain = parts.certificates(raw.chain, "chain")
        roots = parts.certificates(raw.roots, "roots")
        crls = parts.crls(raw.crls)
        if parts.errors or key is None:
            raise refusal(tuple(parts.errors))
        first, *rest = certificates
        parts.note_dropped([each for each in rest if each not in chain])
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

        The same for two bundles exactly when they have the same set of roots.
        """
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


class _Parts:
    """The parts of one bundle while they are read, and what there is to say about them."""

    def __init__(self) -> None:
        self.errors: list[Finding] = []
        self.warnings: list[Finding] = []

    def private_key(self, data: bytes) -> PrivateKey | None:
        blocks = self._blocks(data, "private_key")
        if not blocks:
            return None
        first, *rest = blocks
        fault = _key_fault(first)
        if fault:
            self._error(fault[0], "private_key", *fault[1:])
            return None
        if rest:
            message = f"After the key there are {len(rest)} more PEM blocks, which are left out."
            hint = "Store the key alone: istiod reads the first block only."
            self._warn("extra-blocks", "private_key", message, hint)
        try:
            return PrivateKey.load(first.label, first.der)
        except Unparseable as why:
            code, hint = why.code or "key-unreadable", why.hint or _PKEY
            self._error(code, "private_key", f"The private key cannot be used: {why}.", hint)
            return None

    def certificates(self, data: bytes, part: str) -> Sequence[Certificate]:
        blocks = self._blocks(data, part, optional=part == "chain")
        good = [block for block in blocks if self._labelled(block, part, "CERTIFICATE")]
        return self._loaded(good, part, Certificate.load, ("certificate-unreadable", "certificate"))

    def crls(self, data: bytes) -> Sequence[RevocationList]:
        blocks = self._blocks(data, "crls", optional=True)
        good = [block for block in blocks if self._labelled(block, "crls", "X509 CRL")]
        return self._loaded(
            good, "crls", RevocationList.load, ("crl-unreadable", "revocation list")
        )

    def note_dropped(self, dropped: Sequence[Certificate]) -> None:
        for each in dropped:
            message = f"After the CA certificate comes {each.subject!r}, which is left out."
            hint = f"istiod reads the first certificate of {CA_FILES['certificate']} only; "
            hint += f"what its peers need must be in {CA_FILES['chain']}."
            self._warn("extra-blocks", "certificate", message, hint, each)

    def _blocks(self, data: bytes, part: str, *, optional: bool = False) -> Sequence[pem.Block]:
        blocks, findings = pem.decode(data, part)
        self.errors += findings
        if not blocks and not findings and not optional:
            self._error("part-empty", part, "It is empty.", f"Store the PEM of {CA_FILES[part]}.")
        return blocks

    def _labelled(self, block: pem.Block, part: str, label: str) -> bool:
        if "PRIVATE KEY" in block.label:
            message = "There is a private key in it: this part is readable by everybody."
            hint = "Take the key out; if others could read it, replace it."
            self._error("key-in-public-part", part, message, hint)
        elif block.label != label:
            message = f"There is a block labelled {_shown(block.label)}, which Go passes over."
            self._error(
                "pem-label", part, message, f"The label must be {label!r}: {_RELABEL[label]}"
            )
        elif block.headers:
            message = "A block has headers after its BEGIN line, and Go passes over such a block."
            self._error(
                "pem-headers", part, message, "Remove the lines between BEGIN and the base64."
            )
        else:
            return True
        return False

    def _loaded(
        self,
        blocks: Iterable[pem.Block],
        part: str,
        load: Callable[[bytes], _T],
        named: tuple[str, str],
    ) -> Sequence[_T]:
        loaded = []
        code, noun = named
        for number, block in enumerate(blocks, start=1):
            try:
                loaded.append(load(block.der))
            except Unparseable as why:
                message = f"The {noun} {number} cannot be read: {why}."
                hint = why.hint or f"Have the {noun} issued again by the CA that made it."
                self._error(why.code or code, part, message, hint)
        return loaded

    def _error(self, code: str, part: str, message: str, hint: str) -> None:
        self.errors.append(Finding(code, Severity.ERROR, part, message, hint))

    def _warn(
        self, code: str, part: str, message: str, hint: str, about: Certificate | None = None
    ) -> None:
        subject, fingerprint = (about.subject, about.fingerprint) if about else ("", "")
        self.warnings.append(
            Finding(code, Severity.WARNING, part, message, hint, subject, fingerprint)
        )


_PKEY = "Write it as PKCS #8: `openssl pkey -in ca-key.pem -out new-key.pem`, and store that."
_RELABEL = {
    "CERTIFICATE": "`openssl x509 -in old.pem -out new.pem` writes it.",
    "X509 CRL": "`openssl crl -in old.pem -out new.pem` writes it.",
}


def _key_fault(block: pem.Block) -> tuple[str, str, str] | None:
    """Return code, message and hint where istiod would not read the block as a private key."""
    if block.label == "ENCRYPTED PRIVATE KEY" or any("ENCRYPTED" in each for each in block.headers):
        return "key-encrypted", "The private key is encrypted; istiod has no passphrase.", _PKEY
    if block.headers:
        message = "The private key has headers after its BEGIN line."
        return "pem-headers", message, _PKEY
    if block.label == "EC PARAMETERS":
        message = "EC PARAMETERS come before the key, and istiod reads the first block only."
        return "key-ec-parameters", message, _PKEY
    if block.label not in keys.LABELS:
        message = f"The first block is labelled {_shown(block.label)}, not a private key."
        return "key-label", message, _PKEY
    return None


def _shown(label: str) -> str:
    return repr(label[:40])
