"""How cost grows with the number of bundles in one agent: the certificates of many gateways."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks.agents import command, login, run
from tests.benchmarks.interleaving import interleave
from tests.benchmarks.process import Job
from tests.benchmarks.start import start
from tests.benchmarks.staying import Store, stay
from tests.benchmarks.table import growth
from tests.support.material import make_leaf, make_root, tls_fields

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.benchmarks.interleaving import Rounds
    from tests.benchmarks.world import Access, World

COUNTS = (1, 10, 100)
FILES = ("current/tls.key", "current/tls.crt", "current/ca.crt")


def measure(world: World, rounds: Rounds) -> str:
    """Return the table of agents with 1, 10 and 100 bundles, each from a secret of its own."""
    fields = tls_fields(make_leaf(roots=[make_root()]).raw())
    secrets = [world.access(_path(number)) for number in range(max(COUNTS))]
    for access in secrets:
        world.put(access, fields)

    def costs(count: int) -> dict[str, float]:
        asked = secrets[:count]
        once = start(partial(_job, world, asked, "init"))
        job = partial(_job, world, asked, *run(rounds.every))
        store = Store(world.asked, [access.asked for access in asked])
        return {**once, **stay(job, store, rounds.interval)}

    contenders = {count: partial(costs, count) for count in COUNTS}
    return growth("bundles of kind tls in one agent", interleave(contenders, rounds.at_most(2)))


def _job(world: World, secrets: Sequence[Access], *words: str) -> Job:
    volumes = [world.volume() for _ in secrets]
    bundles = [_bundle(*each) for each in zip(secrets, volumes, strict=True)]
    config = volumes[0].with_suffix(".yaml")
    config.write_text(json.dumps({"bundles": bundles}))  # JSON is YAML
    environ = {**world.environ, **login(secrets[0])}
    return Job(command(world, *words, "--config", str(config)), environ, tuple(volumes), FILES)


def _bundle(access: Access, volume: Path) -> dict[str, object]:
    source = {"vaultKV": {"mount": access.mount, "path": access.path}}
    output = {"directory": str(volume), "layout": "gateway"}
    return {"name": access.path, "kind": "tls", "source": source, "output": output}


def _path(number: int) -> str:
    return f"gateway-{number}"
