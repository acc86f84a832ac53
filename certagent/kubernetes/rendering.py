"""Plain data as YAML that people edit: short things in one line, and a reason beside a line."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_WIDTH = 100
_REMARK = 39
"""The column at which remarks begin."""

_PLAIN = re.compile(r"(--)?[A-Za-z/][A-Za-z0-9_./-]*|[0-9]+(m|Ki|Mi|Gi)", re.ASCII)
_PLAIN_IN_BLOCK = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*(:[A-Za-z0-9_./-]+)*", re.ASCII)
_UNPRINTABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_NEWLINE = "\n"
_NOT_TEXT = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
"""What YAML 1.1, which Helm reads, takes for something else."""


def yaml(document: Mapping[str, Any], remarks: Mapping[str, str] | None = None) -> str:
    """Return a mapping as YAML; `remarks` are set beside the lines that they name, without indent.

    The keys at the top have blocks of their own, whatever their length.
    """
    told = remarks or {}
    lines: list[str] = []
    for key, value in document.items():
        lines += _entry(key, value, top=True)
    # Blank lines are those of a text, and have no indent of their own.
    return "".join(f"{_remarked(line, told) if line.strip() else ''}\n" for line in lines)


def _remarked(line: str, remarks: Mapping[str, str]) -> str:
    remark = remarks.get(line.strip())
    return f"{line:<{_REMARK}}# {remark}" if remark else line


def _entry(key: str, value: Any, *, top: bool = False) -> Iterator[str]:
    """Yield the lines of a key and its value."""
    shown = _scalar(key)
    if _is_literal(value):
        yield f"{shown}: |{'' if value.endswith(_NEWLINE) else '-'}"
        text = value.removesuffix(_NEWLINE)
        yield from (f"  {line}" for line in text.split(_NEWLINE))
    elif not isinstance(value, dict | list):
        yield f"{shown}: {_scalar(value)}"
    elif not value or (_is_short(value) and not (top and isinstance(value, dict))):
        yield f"{shown}: {_flow(value)}"
    else:
        yield f"{shown}:"
        indent = "  " if isinstance(value, dict) else ""
        yield from (f"{indent}{line}" for line in _block(value))


def _block(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _entry(key, inner)
        return
    for item in value:
        is_long = isinstance(item, dict) and item and not _is_short(item)
        first, *rest = _block(item) if is_long else (_flow(item),)
        yield f"- {first}"
        yield from (f"  {line}" for line in rest)


def _is_literal(value: Any) -> bool:
    """Whether it is text of several lines that YAML can show as it is."""
    return (
        isinstance(value, str)
        and "\n" in value
        and not value[0].isspace()
        and not value.endswith("\n\n")
        and not any(line.isspace() for line in value.split(_NEWLINE))
        and not _UNPRINTABLE.search(value)
    )


def _is_short(value: dict[str, Any] | list[Any]) -> bool:
    """Whether it is scalars, and in a mapping also lists of scalars, and fits into a line."""
    inner = value.values() if isinstance(value, dict) else value
    nested = [each for each in inner if isinstance(each, dict | list)]
    flat = isinstance(value, dict) and all(
        isinstance(each, list) and not any(isinstance(one, dict | list) for one in each)
        for each in nested
    )
    return (flat or not nested) and not any(map(_is_literal, inner)) and len(_flow(value)) < _WIDTH


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{_scalar(key, _PLAIN)}: {_flow(inner)}" for key, inner in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(inner) for inner in value) + "]"
    return _scalar(value, _PLAIN)


def _scalar(value: Any, plain: re.Pattern[str] = _PLAIN_IN_BLOCK) -> str:
    if isinstance(value, str) and plain.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)
