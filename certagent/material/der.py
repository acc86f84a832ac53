"""How something is written, where `cryptography` only tells what it says.

Go takes fewer ways of writing the same thing than OpenSSL does. To be used on DER that a parser
has taken: nothing is checked again here.
"""

from __future__ import annotations

INTEGER = 0x02
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


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content of the element at `at` begins, and where it ends."""
    length, start = der[at + 1], at + 2
    if length >= _LONG:
        start += length - _LONG
        length = int.from_bytes(der[at + 2 : start], "big")
    return start, start + length
