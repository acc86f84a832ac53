"""What is mounted where, as the kernel tells the process (proc(5), /proc/<pid>/mountinfo)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path("/proc/self/mountinfo")
_MEMORY = frozenset({"tmpfs", "ramfs"})
_VOLUME = re.compile(r"/volumes/[^/]+~[^/]+/[^/]+(?P<below>/.*)?$")
"""Where kubelet keeps the volumes of a pod: `…/pods/<uid>/volumes/kubernetes.io~empty-dir/<name>`.
What a container gets mounted from below that was asked for with `subPath`."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount: where it is, and which part of which kind of file system it shows."""

    point: str
    root: str
    filesystem: str

    @property
    def is_memory(self) -> bool:
        """Whether what is written there never reaches a disk (but for swap)."""
        return self.filesystem in _MEMORY

    @property
    def is_part(self) -> bool:
        """Whether it shows a part of a volume alone, as `subPath` does."""
        if self.is_memory:
            return self.root != "/"
        found = _VOLUME.search(self.root)
        return bool(found and found["below"])


def mounts() -> tuple[Mount, ...]:
    """Return all mounts, later ones over earlier ones; none where there is no such table."""
    try:
        return parsed(_TABLE.read_text())
    except OSError:
        return ()


def parsed(table: str) -> tuple[Mount, ...]:
    """Return the mounts of a table; what is not of its form is left out."""
    found = []
    for line in table.splitlines():
        mount, _, rest = line.partition(" - ")
        fields, kind = mount.split(" "), rest.split(" ")[0]
        if len(fields) > 4 and kind:  # noqa: PLR2004 - id, parent, device, root, point
            found.append(Mount(_unescaped(fields[4]), _unescaped(fields[3]), kind))
    return tuple(found)


def covering(path: Path, table: tuple[Mount, ...]) -> Mount | None:
    """Return the mount that a path lies on, its links followed; the last one, of several."""
    real = path.resolve()
    over = [each for each in table if real.is_relative_to(each.point)]
    # Of those at one point the last hides the others, and `max` takes the first that it meets.
    return max(reversed(over), key=lambda each: len(each.point), default=None)


def _unescaped(text: str) -> str:
    r"""Return a field without the octal escapes of blanks and backslashes: `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
