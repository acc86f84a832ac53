"""What clients asked of an OpenBao, from its own audit device: who they are plays no part."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class RequestLog:
    """The file of an audit device, read as it grows."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read = 0
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> Counter[str]:
        """How many requests there were so far, by their paths (without `/v1/`)."""
        with self._file.open("rb") as stream:
            stream.seek(self._read)
            # The last line may still be under way.
            whole, newline, _ = stream.read().rpartition(b"\n")
        self._read += len(whole + newline)
        entries = map(json.loads, whole.splitlines())
        self._counts.update(
            each["request"]["path"] for each in entries if each["type"] == "request"
        )
        return self._counts.copy()
