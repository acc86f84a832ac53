"""What clients asked of an OpenBao, from its own audit device: who they are plays no part."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class RequestLog:
    """The file of an audit device, read as it grows."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read = 0
        self._counts: Counter[str] = Counter()
        self._arrivals: list[float] = []

    @property
    def counts(self) -> Counter[str]:
        """How many requests there were so far, by their paths (without `/v1/`)."""
        self._read_on()
        return self._counts.copy()

    @property
    def arrivals(self) -> list[float]:
        """When the requests came, in seconds since the epoch."""
        self._read_on()
        return self._arrivals.copy()

    def _read_on(self) -> None:
        with self._file.open("rb") as stream:
            stream.seek(self._read)
            # The last line may still be under way.
            whole, newline, _ = stream.read().rpartition(b"\n")
        self._read += len(whole + newline)
        entries = map(json.loads, whole.splitlines())
        for each in (each for each in entries if each["type"] == "request"):
            self._counts[each["request"]["path"]] += 1
            self._arrivals.append(datetime.fromisoformat(each["time"]).timestamp())
