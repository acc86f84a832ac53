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
    from pathlib import Path

    from tests.benchmarks.interleaving import Rounds
    from tests.benchmarks.world import World

COUNTS = (1, 10, 100)
FILES = ("current/tls.key", "current/tls.crt", "current/ca.crt")


def measure(world: World, rounds: Rounds) -> str:
    """Return the table of agents with 1, 10 and 100 bundles, each from a secret of its own."""
    fields = tls_fields(make_leaf(roots=[make_root()]).raw())
    secrets = [world.secret(_path(number), fields) for number in range(max(COUNTS))]

    def costs(count: int) -> dict[str, float]:
        once = start(partial(_job, world, count, "init"))
        job = partial(_job, world, count, *run(rounds.every))
        return {**once, **stay(job, Store(world.asked, secrets[:count]), rounds.interval)}

    contenders = {count: partial(costs, count) for count in COUNTS}
    return growth("bundles of kind tls in one agent", interleave(contenders, rounds))


def _job(world: World, count: int, *words: str) -> Job:
    volumes = [world.volume() for _ in range(count)]
    bundles = [_bundle(world, number, volume) for number, volume in enumerate(volumes)]
    config = volumes[0].with_suffix(".yaml")
    config.write_text(json.dumps({"bundles": bundles}))  # JSON is YAML
    environ = {**world.environ, **login(world)}
    return Job(command(*words, "--config", str(config)), environ, tuple(volumes), FILES)


def _bundle(world: World, number: int, volume: Path) -> dict[str, object]:
    source = {"vaultKV": {"mount": world.mount, "path": _path(number)}}
    output = {"directory": str(volume), "layout": "gateway"}
    return {"name": f"gateway-{number}", "kind": "tls", "source": source, "output": output}


def _path(number: int) -> str:
    return f"gateways/{number}"
