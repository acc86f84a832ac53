"""From the start of a process to four published files, and to its end: an init container's work."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks.agents import PATH, bao_agent, certagent, vault
from tests.benchmarks.figures import MIB, MS
from tests.benchmarks.interleaving import interleave
from tests.benchmarks.process import publish
from tests.benchmarks.table import side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.interleaving import Rounds
    from tests.benchmarks.process import Job
    from tests.benchmarks.world import World


def measure(world: World, rounds: Rounds) -> str:
    """Return the table of `certagent init` and `bao agent` with `exit_after_auth`."""
    access = world.secret(PATH)
    jobs = {
        "certagent": partial(certagent, world, vault(access), "init"),
        "bao agent": partial(bao_agent, world, access, exit_after_auth=True),
    }
    contenders = {name: partial(start, job) for name, job in jobs.items()}
    return side_by_side("once", interleave(contenders, rounds))


def start(job: Callable[[], Job]) -> dict[str, float]:
    """Run a new job to its end, and return what it cost."""
    cost = publish(job())
    return {
        "start to published, ms": cost.published * MS,
        "start to end, ms": cost.ended * MS,
        "CPU, ms": cost.cpu * MS,
        "peak memory, MiB": cost.peak / MIB,
    }
