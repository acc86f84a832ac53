"""Valid input, damaged as networks, editors, copy and paste, and attackers damage it.

mangled([b"..."], tokens=[b"-----"])    # bytes: flips, cuts, copies, splices, tokens
mangled_pem(blocks)                     # PEM: blocks glued, nested, relabelled, with other DER
mangled_der(der)                        # DER: lengths, tags, elements; lengths above stay right
mangled_json({...})                     # JSON: other values, keys and nesting, as bytes
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from certagent.material.pem import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Draw = Callable[[st.SearchStrategy[Any]], Any]

# Bytes


_LARGEST = 100_000


@st.composite
def mangled(draw: Draw, seeds: Sequence[bytes], tokens: Sequence[bytes] = (), most: int = 4):
    """One of the seeds, damaged up to `most` times."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, most))):
        data = _damaged(draw, data, seeds, tokens)
    return data


def _damaged(draw: Draw, data: bytes, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    at = draw(st.integers(0, len(data)))
    end = draw(st.integers(at, min(len(data), at + draw(st.sampled_from((1, 8, 100, 10_000))))))
    before, part, after = data[:at], data[at:end], data[end:]
    other = draw(st.sampled_from(seeds))
    most = _LARGEST // (len(data) + 1) + 2  # PyYAML takes a minute for three megabytes
    few = st.binary(max_size=20)
    ways = {
        "flip": lambda: before + draw(st.binary(min_size=1, max_size=2)) + data[at + 1 :],
        "cut": lambda: before,
        "drop": lambda: before + after,
        "repeat": lambda: before + part * min(draw(st.sampled_from((2, 50, 300))), most) + after,
        "splice": lambda: before + other[draw(st.integers(0, len(other))) :],
        "put": lambda: before + draw(st.sampled_from(tokens) if tokens else few) + part + after,
    }
    return draw(st.sampled_from([*ways.values()]))()


# DER


@st.composite
def mangled_der(draw: Draw, seeds: Sequence[bytes]):
    """One of the DER texts with some of its elements changed."""
    der = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 3))):
        nodes = _parsed(der)
        if not nodes:
            break
        der = b"".join(_written(node) for node in _operated(draw, nodes))
    return der


_Node = tuple[int, "bytes | list[_Node]", bytes]
"""Tag, content, and what stands where the length should (empty: the right one)."""


def _parsed(data: bytes, depth: int = 0) -> list[_Node]:
    """Take data apart; empty where it is not a whole number of elements."""
    nodes: list[_Node] = []
    at = 0
    while at < len(data):
        if len(data) < at + 2:
            return []
        tag, length, start = data[at], data[at + 1], at + 2
        if length >= 0x80:
            start += length - 0x80
            length = int.from_bytes(data[at + 2 : start], "big")
        content = data[start : start + length]
        if len(content) != length or start > len(data):
            return []
        # PKCS #12 and extensions hold DER in OCTET STRINGs.
        inner = _parsed(content, depth + 1) if (tag & 0x20 or tag == 4) and depth < 30 else []
        nodes.append((tag, inner or content, b""))
        at = start + length
    return nodes


def _written(node: _Node) -> bytes:
    tag, content, length = node
    data = content if isinstance(content, bytes) else b"".join(map(_written, content))
    return bytes([tag]) + (length or _length(len(data))) + data


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes([size])
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(digits)]) + digits


_LENGTHS = (
    b"\x00",
    b"\x01",
    b"\x7f",
    b"\x80",
    b"\x81\x01",
    b"\x82\xff\xff",
    b"\x84\xff\xff\xff\xff",
)
_CONTENTS = (b"", b"\x00", b"\x80", b"\xff" * 9, b"\x7f" + b"\xff" * 300, b"\x01" * 5000)


def _operated(draw: Draw, nodes: list[_Node]) -> list[_Node]:
    """Change one element, the lists that lead to it made anew."""
    index = draw(st.integers(0, len(nodes) - 1))
    tag, content, length = nodes[index]
    if isinstance(content, list) and draw(st.integers(0, 5)):
        changed = [(tag, _operated(draw, content), length)]
    else:
        changed = _changed(draw, nodes[index], nodes)
    return [*nodes[:index], *changed, *nodes[index + 1 :]]


def _changed(draw: Draw, node: _Node, others: list[_Node]) -> list[_Node]:
    tag, content, length = node
    tags = (1, 2, 3, 4, 5, 6, 12, 23, 24, 0x30, 0x31, 0xA0)
    ways = {
        "length": lambda: [(tag, content, draw(st.sampled_from(_LENGTHS)))],
        "tag": lambda: [(draw(st.sampled_from(tags)), content, length)],
        "content": lambda: [(tag, draw(st.sampled_from(_CONTENTS) | _FEW), length)],
        "flip": lambda: [(tag, _flipped(draw, content), length)],
        "drop": list,
        "copy": lambda: [node, draw(st.sampled_from(others))],
        "many": lambda: [node] * draw(st.sampled_from((3, 400))),
        "nest": lambda: [_nested(node, draw(st.sampled_from((1, 3, 200))))],
    }
    return draw(st.sampled_from([*ways.values()]))()


_FEW = st.binary(max_size=40)


def _flipped(draw: Draw, content: bytes | list[_Node]) -> bytes | list[_Node]:
    if not content or isinstance(content, list):
        return content
    at = draw(st.integers(0, len(content) - 1))
    return content[:at] + draw(st.binary(min_size=1, max_size=1)) + content[at + 1 :]


def _nested(node: _Node, times: int) -> _Node:
    for _ in range(times):
        node = (0x30, [node], b"")
    return node


# PEM

_LABELS = (
    "CERTIFICATE",
    "X509 CRL",
    "PRIVATE KEY",
    "RSA PRIVATE KEY",
    "EC PRIVATE KEY",
    "EC PARAMETERS",
    "ENCRYPTED PRIVATE KEY",
    "TRUSTED CERTIFICATE",
    "certificate",
    "",
    "-",
)
PEM_TOKENS = (
    b"-----BEGIN ",
    b"-----END ",
    b"-----",
    b"CERTIFICATE",
    b"\n",
    b"\r\n",
    b"\r",
    b"\n\n",
    b" ",
    b"\t",
    b":",
    b"=",
    b"\x00",
    b"\xef\xbb\xbf",
    b"\\n",
    b"Proc-Type: 4,ENCRYPTED\n\n",
)


@st.composite
def mangled_pem(draw: Draw, blocks: Sequence[tuple[str, bytes]]):
    """Some of the blocks, in some order, each as it is or damaged; then the text damaged."""
    chosen = draw(st.lists(st.sampled_from(blocks), min_size=1, max_size=6))
    text = b""
    for label, der in chosen:
        if draw(st.booleans()):
            der = draw(mangled_der([der]))  # noqa: PLW2901
        if not draw(st.integers(0, 9)):
            label = draw(st.sampled_from(_LABELS))  # noqa: PLW2901
        block = encode(label, der) if der else b""
        way = draw(
            st.sampled_from(
                ("as it is",) * 6 + ("glued", "CRLF", "indented", "headed", "nested", "many")
            )
        )
        if way == "glued":
            block = block.rstrip()
        elif way == "CRLF":
            block = block.replace(b"\n", b"\r\n")
        elif way == "indented":
            block = b" " + block
        elif way == "headed":
            block = block.replace(b"-----\n", b"-----\nKey: value\n\n", 1)
        elif way == "nested":
            block = block[: len(block) // 2] + b"\n" + block + block[len(block) // 2 :]
        elif way == "many":
            block *= draw(st.sampled_from((2, 60, 101)))
        text += block
    return draw(mangled([text], PEM_TOKENS, most=draw(st.sampled_from((0, 0, 2)))))


# JSON

_DEEP = "deeper than most parsers go"
"""Stands for lists within lists until all is text: what nests them could not be written."""

NASTY = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    10**400,
    -(10**400),
    2**31,
    2**63,
    2**64,
    253402300800,
    1e30,
    "",
    "x",
    "\n",
    "a\nb\nc\nd",
    "\x00",
    "\x1b[31m",
    "\ud800",
    "é" * 3000,
    "x" * 10_000,
    "0",
    "-1",
    "1e999",
    "2026-01-01",
    "9999-12-31T23:59:59.999999999-23:59",
    "0001-01-01T00:00:00+23:59",
    "2026-01-01T00:00:00",
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"a\nb": 1},
)
"""Values that somebody's code has not reckoned with."""


@st.composite
def mangled_json(draw: Draw, seeds: Sequence[Any], most: int = 3):
    """One of the documents with some values, keys or levels changed, as bytes."""
    document = copy.deepcopy(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, most))):
        document = _changed_value(draw, document)
    text = json.dumps(document).replace(f'"{_DEEP}"', "[" * 1200 + "]" * 1200).encode()
    if not draw(st.integers(0, 9)):
        text = draw(mangled([text], (b"{", b"[", b'"', b"\\u", b"\\ud800", b"9" * 5000, b"\xff")))
    return text


def _changed_value(draw: Draw, value: Any) -> Any:
    """Go down some levels, and change what is there."""
    if isinstance(value, dict) and value and draw(st.integers(0, 6)):
        return _changed_member(draw, value)
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        index = draw(st.integers(0, len(value) - 1))
        return [*value[:index], _changed_value(draw, value[index]), *value[index + 1 :]]
    if not draw(st.integers(0, 5)):
        for _ in range(draw(st.sampled_from((1, 40)))):
            value = [value]
        return value
    return draw(st.sampled_from((*NASTY, _DEEP)))


def _changed_member(draw: Draw, value: dict[str, Any]) -> dict[str, Any]:
    key = draw(st.sampled_from(sorted(value)))
    ways = {
        "drop": lambda: {each: value[each] for each in value if each != key},
        "rename": lambda: {
            (_strange(draw) if each == key else each): value[each] for each in value
        },
        "more": lambda: {**value, _strange(draw): draw(st.sampled_from(NASTY))},
        "value": lambda: {**value, key: _changed_value(draw, value[key])},
    }
    return ways[draw(st.sampled_from([*ways, *["value"] * 4]))]()


def _strange(draw: Draw) -> str:
    return draw(
        st.sampled_from(("", "\n", "a\nb\nc\nd", "\x1b[31m", "\ud800", "x" * 5000, "data", "kind"))
    )
