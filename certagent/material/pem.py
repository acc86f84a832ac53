"""PEM as Go reads it (encoding/pem.Decode), with every deviation named instead of skipped.

Go's decoder passes over whatever it does not like, and istiod ignores how many certificates it got:
two blocks glued together silently become none. So what Go would pass over is an error finding here.
What Go takes in its stride (CRLF, a missing newline at the end, text between blocks, blank lines
and white space within the base64) is taken, and is gone from the canonical form.
"""

from __future__ import annotations

import base64
import binascii

from msgspec import Struct

from certagent.material.finding import Finding, Severity
from certagent.material.raw import MAX_PART_BYTES
from certagent.values import shown

MAX_BLOCKS = 100
"""No part has more: a chain has three certificates, a file of roots a few. Bounds the work."""

_BEGIN = b"-----BEGIN "
_END = b"-----END "
_DASHES = b"-----"
_BASE64_OF_BEGIN = b"LS0tLS1CRUdJTi"
_LINE = 64


class Block(Struct, frozen=True):
    """A label such as `CERTIFICATE`, and the DER under it; `headers` are its `Key: value` lines."""

    label: str
    der: bytes
    headers: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show what is neither secret nor long."""
        return shown(self, "label")


def encode(label: str, der: bytes) -> bytes:
    """Return the canonical PEM of `der` (RFC 7468, as encoding/pem.Encode writes it)."""
    text = base64.b64encode(der)
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    name = label.encode()
    return b"\n".join([_BEGIN + name + _DASHES, *lines, _END + name + _DASHES, b""])


def decode(data: bytes, part: str) -> tuple[tuple[Block, ...], tuple[Finding, ...]]:
    """Return the blocks of a part in order, and an error finding for each deviation.

    Blocks with headers are returned with them: what they mean depends on the part. Text without
    any block is a finding; nothing but white space is not.
    """
    if len(data) > MAX_PART_BYTES:
        size = f"It has {len(data)} bytes; the limit is {MAX_PART_BYTES}."
        return (), (_finding("part-too-large", part, size, "Store the PEM of this part alone."),)
    scanner = _Scanner(part)
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        # Like encoding/pem.getLine: a CR belongs to the line end only where an LF follows it.
        ended = line.removesuffix(b"\r") if number < len(lines) else line
        scanner.take(number, ended.rstrip(b" \t"))
        if len(scanner.blocks) + len(scanner.findings) > MAX_BLOCKS:
            # Those that are none count too: 1 MiB has room for 90,000, and for each a finding.
            message = f"There are more than {MAX_BLOCKS} PEM blocks."
            return (), (_finding("too-many-blocks", part, message, _SPLIT),)
    scanner.finish()
    if data.strip() and not scanner.blocks and not scanner.findings:
        return (), (_no_block(data, part),)
    return tuple(scanner.blocks), tuple(scanner.findings)


class _Scanner:
    """The state between two lines: outside of blocks, or inside the block that `label` opened."""

    def __init__(self, part: str) -> None:
        self.part = part
        self.blocks: list[Block] = []
        self.findings: list[Finding] = []
        self.label: bytes | None = None
        self.start = 0
        self.headers: list[str] = []
        self.body: list[bytes] = []

    def fault(self, code: str, message: str, hint: str) -> None:
        self.findings.append(_finding(code, self.part, message, hint))

    def take(self, number: int, line: bytes) -> None:
        if _BEGIN in line:
            self._begin(number, line)
        elif _END in line:
            self._end(number, line)
        elif self.label is not None:
            # encoding/pem.Decode: lines with a colon right after BEGIN are headers.
            if b":" in line and not self.body:
                self.headers.append(line.decode("latin-1").strip())
            else:
                self.body.append(line)

    def finish(self) -> None:
        """End the text: a block that is still open here was cut off."""
        if self.label is not None:
            message = f"The block that begins in line {self.start} has no END line."
            self.fault("pem-truncated", message, "Store the whole file again.")
            self.label = None

    def _begin(self, number: int, line: bytes) -> None:
        before, _, rest = line.partition(_BEGIN)
        label = rest.removesuffix(_DASHES)
        if _END in before:
            self.label = None
            message = f"Line {number} holds the END of one block and the BEGIN of the next."
            self.fault("pem-glued", message, _GLUED)
            return
        self.finish()
        if before:
            mark = before.startswith(b"\xef\xbb\xbf")
            what = "a byte-order mark" if mark else "white space or text"
            message = f"Line {number} has {what} before BEGIN, so Go does not see the block."
            self.fault("pem-indented", message, "Let each BEGIN stand at the start of its line.")
        elif b"\\n" in rest:
            message = f"Line {number} has newlines written as backslash and n."
            self.fault("pem-escaped", message, "Store the text itself, not its JSON form.")
        elif label == rest or _DASHES in label:
            message = f"Line {number} holds more than the BEGIN of a block."
            self.fault("pem-malformed", message, _ONE_LINE)
        else:
            self.label, self.start = label, number
            self.headers, self.body = [], []

    def _end(self, number: int, line: bytes) -> None:
        label, self.label = self.label, None
        if label is None:
            if not self.findings:  # else it is the end of the block that was just found bad
                message = f"Line {number} ends a block that never began."
                self.fault("pem-truncated", message, "Store the whole file again.")
            return
        if line != _END + label + _DASHES:
            message = f"The END in line {number} is not that of the BEGIN in line {self.start}."
            self.fault("pem-malformed", message, _ONE_LINE)
            return
        try:
            text = b"".join(self.body).translate(None, delete=b" \t\r")
            der = binascii.a2b_base64(text, strict_mode=True)
        except binascii.Error:
            der = b""
        if not der:
            message = f"The block of line {self.start} is not base64."
            self.fault("pem-malformed", message, "Store the whole file again.")
            return
        self.blocks.append(Block(label.decode("latin-1"), der, tuple(self.headers)))


_GLUED = "Put a newline between the two (`cat` joins files as they are), and store it again."
_SPLIT = "Store only the certificates that this part needs."
_ONE_LINE = "Give each BEGIN and END a line of its own, with the same label and nothing else."


def _no_block(data: bytes, part: str) -> Finding:
    if data.lstrip().startswith(_BASE64_OF_BEGIN):
        message, hint = (
            "It is base64 of PEM, not PEM.",
            "Decode it once (`base64 -d`) and store that.",
        )
        return _finding("pem-encoded-twice", part, message, hint)
    hint = "Store PEM; DER becomes PEM with `openssl x509 -inform der` (or `openssl pkey`)."
    return _finding("pem-missing", part, "There is no PEM block in it.", hint)


def _finding(code: str, part: str, message: str, hint: str) -> Finding:
    return Finding(code, Severity.ERROR, part, message, hint)
