"""How something is written, where `cryptography` only tells what it says.

Go takes fewer ways of writing the same thing than OpenSSL does. To be used on DER that a parser
has taken: nothing is checked again here, but by `rounds`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

INTEGER = 0x02
_OCTETS = 0x04
_SEQUENCE = 0x30
_CONSTRUCTED = 0x20
_LONG = 0x80


def inside(element: bytes) -> tuple[bytes, ...]:
    """Return the elements that a constructed one holds, each with its tag and length (X.690)."""
    at, end = _content(element, 0)
    found = []
    while at < end:
        _, after = _content(element, at)
        found.append(element[at:after])
        at = after
    return tuple(found)


def context(element: bytes, number: int) -> bytes | None:
    """Return what is under the explicit tag `[number]` of a constructed element, or None."""
    tag = 0xA0 | number
    return next((inside(each)[0] for each in inside(element) if each[0] == tag), None)


def rounds(der: bytes) -> Iterator[int]:
    """Yield how often each password of PKCS #12 is to be hashed: the integers after a salt.

    Takes any bytes, and BER's lengths without an end; goes into OCTET STRINGs that hold a SEQUENCE.
    """
    at, before = 0, 0
    while at + 2 < len(der):
        tag, (start, end) = der[at], _content(der, at)
        if tag == INTEGER and before == _OCTETS:
            yield int.from_bytes(der[start:end], "big")
        is_wrapper = tag == _OCTETS and der[start : start + 1] == bytes([_SEQUENCE])
        if is_wrapper and start + 1 < len(der):
            is_wrapper = der[start + 1] == _LONG or _content(der, start)[1] == end
        at, before = (start if tag & _CONSTRUCTED or is_wrapper else end), tag


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content of the element at `at` begins, and where it ends."""
    length, start = der[at + 1], at + 2
    if length >= _LONG:
        start += length - _LONG
        length = int.from_bytes(der[at + 2 : start], "big")
    return start, start + length
