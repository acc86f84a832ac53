"""Real sets that a reader tells apart: a list of which file belongs to which, by its hash."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def write(path: Path, sets: Iterable[Mapping[str, bytes]]) -> Path:
    """Write the list of these sets, numbered from 0."""
    owners = defaultdict(list)
    for number, files in enumerate(sets):
        for data in files.values():
            owners[_hash(data)].append(number)
    path.write_text(json.dumps(owners))
    return path


class Generations:
    """The list, read back: `of(contents)` are the sets to which all of these files belong."""

    def __init__(self, path: str) -> None:
        owners = json.loads(Path(path).read_text())
        self._owners = {name: frozenset(of) for name, of in owners.items()}

    def of(self, contents: Iterable[bytes]) -> frozenset[int]:
        nobody: frozenset[int] = frozenset()
        return frozenset.intersection(*(self._owners.get(_hash(each), nobody) for each in contents))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
