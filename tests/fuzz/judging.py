"""What must be true of every answer to foreign input."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from certagent.errors import CertagentError, ConfigurationError, MaterialRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CORPUS = Path(__file__).parent / "corpus"

_LINES = 3
_LONGEST = 2000
"""Characters of a line. What is foreign in a message is cut at some hundred."""

_MOST_FINDINGS = 1000
_WINDOW = 16
"""So many characters of a secret in a row are a leak of it."""


def corpus(target: str) -> list[object]:
    """The inputs of a target, as the parameters of a test."""
    files = sorted((CORPUS / target).iterdir())
    assert files, f"the corpus of {target} is empty"
    return [pytest.param(file.read_bytes(), id=file.name) for file in files]


@contextmanager
def typed(secrets: Iterable[str] = ()) -> Iterator[None]:
    """Let pass the project's own errors that say what they must."""
    try:
        yield
    except CertagentError as error:
        judge(error, secrets)


def judge(error: CertagentError, secrets: Iterable[str] = ()) -> None:
    """Hold an error to its form: three lines, printable, bounded, without a secret."""
    assert type(error) is not CertagentError, "no branch of the tree"
    if isinstance(error, ConfigurationError):
        for line in (error.message, *error.faults):
            assert len(line.splitlines()) == 1, f"a fault of several lines: {line!r}"
            _judge_text(line, secrets)
        assert len(error.hint.splitlines()) < _LINES
        _judge_text(error.hint, secrets)
        return
    assert len(str(error).splitlines()) <= _LINES, f"too many lines: {error}"
    _judge_text(str(error), secrets)
    if isinstance(error, MaterialRefused):
        judge_findings(error.findings, secrets)


def judge_findings(findings, secrets: Iterable[str] = ()) -> None:
    """Hold findings to the same form, and their number to a bound."""
    assert len(findings) <= _MOST_FINDINGS
    for finding in findings:
        text = f"{finding.message}\n{finding.hint}"
        assert len(text.splitlines()) <= _LINES, f"too many lines: {text!r}"
        _judge_text(text, secrets)


def _judge_text(text: str, secrets: Iterable[str]) -> None:
    for line in text.split("\n"):
        assert line.isprintable(), f"not printable: {line!r}"
        assert len(line) <= _LONGEST, f"too long: {line[:200]!r}"
    for secret in secrets:
        for at in range(0, max(1, len(secret) - _WINDOW), _WINDOW // 2):
            assert secret[at : at + _WINDOW] not in text, "a secret is shown"
