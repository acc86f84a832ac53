"""The agent of the demo: `certagent run` as a pod would run it, configured by environment alone."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from certagent.cli.demonstration.children import child, environment, failed, free_port, wait_for
from certagent.cli.demonstration.operator import PATH, ROLE
from certagent.sinks.reading import read_directory

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from certagent.cli.demonstration.operator import Places
    from certagent.cli.demonstration.server import Server
    from certagent.sinks import Snapshot

INTERVAL = "500ms"
"""Between two polls; a mesh's default is 30 s."""

WINDOW = "3s"
"""For which a new root is distributed, and an old one kept; a mesh's default is 25 h."""

_SLACK = "500ms"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A running agent: where it publishes, what configures it, and what it says."""

    directory: Path
    settings: Mapping[str, str]
    log: Path
    _process: subprocess.Popen[bytes] = field(repr=False)

    def wait_for_version(self, version: int, phase: str = "settled") -> Snapshot:
        """Wait until a version's signer is published in a phase, and return what a reader finds."""
        wanted = {"version": str(version), "phase": phase}

        def published() -> Snapshot | None:
            snapshot = read_directory(self.directory)
            return snapshot if snapshot and wanted.items() <= snapshot.record.items() else None

        what = f"Version {version} was not published in {self.directory} ({phase})"
        return wait_for(what, published, self._process, self.log)

    def wait_for_line(self, *words: str) -> str:
        """Wait until the agent has logged a line with all of these words, and return it."""

        def logged() -> str | None:
            lines = self.log.read_text(errors="replace").splitlines()
            return next((line for line in lines if all(word in line for word in words)), None)

        what = f"The agent did not log a line with {', '.join(map(repr, words))}"
        return wait_for(what, logged, self._process, self.log)

    def require_running(self) -> None:
        """Raise `CertagentError` if the agent has ended."""
        if (code := self._process.poll()) is not None:
            raise failed(f"The agent has ended with {code}.", self.log)


@contextmanager
def sidecar(server: Server, places: Places, projected: str, home: Path) -> Iterator[Sidecar]:
    """Run the agent of one cluster with that cluster's projected token."""
    token, directory, log = home / "token", home / "root-ca", home / "agent.log"
    token.touch(0o600)
    token.write_text(projected)
    settings = {
        "VAULT_ADDR": server.address,
        "ROOT_CA_DIR": str(directory),
        "CERTAGENT_SOURCE": f"vault:{places.secrets}/{PATH}",
        "CERTAGENT_VAULT_AUTH_METHOD": "jwt",
        "CERTAGENT_VAULT_AUTH_MOUNT": places.auth,
        "CERTAGENT_VAULT_ROLE": ROLE,
        "CERTAGENT_VAULT_TOKEN_FILE": str(token),
        "CERTAGENT_INTERVAL": INTERVAL,
        "CERTAGENT_DISTRIBUTE": WINDOW,
        "CERTAGENT_RETIRE": WINDOW,
        "CERTAGENT_SLACK": _SLACK,
        "ISTIO_MULTIROOT_MESH": "true",
        "CERTAGENT_SERVER_ADDRESS": f"127.0.0.1:{free_port()}",
    }
    command = [sys.executable, "-m", "certagent", "run"]
    with child(command, environment(**server.environ, **settings), log) as process:
        yield Sidecar(directory, settings, log, process)
