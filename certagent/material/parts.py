"""Reading the parts of a set: every fault of each, in the terms of who will read the files.

PEM and DER are read as Go reads them, which istiod and pilot-agent are written in. What differs
between readers is little, and is in `Reader`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from certagent.material import keys, pem
from certagent.material.certificates import Certificate, RevocationList, Unparseable
from certagent.material.finding import Finding, Severity
from certagent.material.keys import PrivateKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_T = TypeVar("_T")


class Reader(Struct, frozen=True):
    """Who opens the files of a set, as messages name him, and what each part's file is called.

    `optional` are the parts that may be empty. `skips_parameters`: he finds a key after EC
    PARAMETERS (crypto/tls.X509KeyPair does, istiod's ParsePemEncodedKey does not).
    """

    name: str
    files: Mapping[str, str]
    optional: frozenset[str]
    skips_parameters: bool = False


class Parts:
    """The parts of one bundle while they are read, and what there is to say about them."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.errors: list[Finding] = []
        self.warnings: list[Finding] = []

    def private_key(self, data: bytes) -> PrivateKey | None:
        """Read the key, which is the first block, or None where there are errors."""
        blocks = list(self._blocks(data, "private_key"))
        if self._reader.skips_parameters and blocks[1:] and blocks[0].label == _PARAMETERS:
            del blocks[0]
        if not blocks:
            return None
        first, *rest = blocks
        fault = _key_fault(first, self._reader)
        if fault:
            self._error(fault[0], "private_key", *fault[1:])
            return None
        if rest:
            message = f"After the key there are {len(rest)} more PEM blocks, which are left out."
            hint = f"Store the key alone: {self._reader.name} reads the first one only."
            self._warn("extra-blocks", "private_key", message, hint)
        try:
            return PrivateKey.load(first.label, first.der)
        except Unparseable as why:
            code, hint = why.code or "key-unreadable", why.hint or _PKEY
            self._error(code, "private_key", f"The private key cannot be used: {why}.", hint)
            return None

    def certificates(self, data: bytes, part: str) -> Sequence[Certificate]:
        """Read certificates in their order; those that cannot be read are errors."""
        blocks = self._blocks(data, part)
        good = [block for block in blocks if self._labelled(block, part, "CERTIFICATE")]
        return self._loaded(good, part, Certificate.load, ("certificate-unreadable", "certificate"))

    def crls(self, data: bytes) -> Sequence[RevocationList]:
        """Read revocation lists in their order."""
        blocks = self._blocks(data, "crls")
        good = [block for block in blocks if self._labelled(block, "crls", "X509 CRL")]
        return self._loaded(
            good, "crls", RevocationList.load, ("crl-unreadable", "revocation list")
        )

    def _blocks(self, data: bytes, part: str) -> Sequence[pem.Block]:
        blocks, findings = pem.decode(data, part)
        self.errors += findings
        if not blocks and not findings and part not in self._reader.optional:
            hint = f"Store the PEM of {self._reader.files[part]}."
            self._error("part-empty", part, "It is empty.", hint)
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

    def _warn(self, code: str, part: str, message: str, hint: str) -> None:
        self.warnings.append(Finding(code, Severity.WARNING, part, message, hint))


_PARAMETERS = "EC PARAMETERS"
_PKEY = "Write it as PKCS #8: `openssl pkey -in old-key.pem -out new-key.pem`, and store that."
_RELABEL = {
    "CERTIFICATE": "`openssl x509 -in old.pem -out new.pem` writes it.",
    "X509 CRL": "`openssl crl -in old.pem -out new.pem` writes it.",
}


def _key_fault(block: pem.Block, reader: Reader) -> tuple[str, str, str] | None:
    """Return code, message and hint where Go would not read the block as a private key."""
    if block.label == "ENCRYPTED PRIVATE KEY" or any("ENCRYPTED" in each for each in block.headers):
        message = f"The private key is encrypted; {reader.name} has no passphrase."
        return "key-encrypted", message, _PKEY
    if block.headers:
        message = "The private key has headers after its BEGIN line."
        return "pem-headers", message, _PKEY
    if block.label == _PARAMETERS and not reader.skips_parameters:
        message = f"EC PARAMETERS come before the key; {reader.name} reads the first block only."
        return "key-ec-parameters", message, _PKEY
    if block.label not in keys.LABELS:
        message = f"The first block is labelled {_shown(block.label)}, not a private key."
        return "key-label", message, _PKEY
    return None


def _shown(label: str) -> str:
    return repr(label[:40])
