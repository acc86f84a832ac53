"""A secret that holds one good set after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support import material

if TYPE_CHECKING:
    from tests.benchmarks.world import Access, World


class Stored:
    """A secret, and in `files` what a directory with its newest set holds."""

    def __init__(self, world: World, access: Access) -> None:
        self._world = world
        self.access = access
        self.push()

    def push(self) -> dict[str, bytes]:
        """Store a new set, and return its files."""
        raw = self._world.new_set()
        self._world.put(self.access, material.fields(raw))
        self.files = material.files(raw)
        return self.files
