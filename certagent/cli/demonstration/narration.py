"""The demo's voice: numbered steps, plain text, one idea a paragraph."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_WIDTH = 88
_SHOWN_WIDTH = 100
_MARGIN = " " * 6


class Narrator:
    """Writes the story to stdout as it happens."""

    def __init__(self) -> None:
        self._steps = 0

    def step(self, title: str) -> None:
        """Begin a step."""
        self._steps += 1
        _write(f"{self._steps}. {title}")

    def tell(self, text: str) -> None:
        """Say a paragraph, wrapped."""
        _write(textwrap.fill(text, _WIDTH, initial_indent="   ", subsequent_indent="   "))

    def show(self, lines: Iterable[str]) -> None:
        """Show what something printed or holds, as it is; long lines are continued, indented."""
        shown = []
        for line in lines:
            shown += textwrap.wrap(
                line,
                _SHOWN_WIDTH,
                initial_indent=_MARGIN,
                subsequent_indent=_MARGIN + " " * 4,
                break_long_words=False,
                break_on_hyphens=False,
            )
        _write("\n".join(shown))

    def offer(self, commands: Iterable[str]) -> None:
        """Show what a reader can paste into a shell: never wrapped."""
        _write("\n".join(_MARGIN + command for command in commands))


def listing(directory: Path) -> list[str]:
    """Return a published directory as `ls -l` and `tree` would tell it together."""
    lines = [f"{directory}/"]
    for entry in sorted(directory.iterdir()):
        if entry.is_symlink():
            lines.append(f"  {entry.name} -> {entry.readlink()}")
            continue
        lines.append(f"  {entry.name}/")
        lines += [
            f"      {file.stat().st_mode & 0o777:04o} {file.name}"
            for file in sorted(entry.iterdir())
        ]
    return lines


def _write(paragraph: str) -> None:
    sys.stdout.write(f"\n{paragraph}\n")
    sys.stdout.flush()
