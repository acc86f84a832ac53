"""What an agent costs that has published and polls on, with nothing new to find."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks import process
from tests.benchmarks.agents import PATH, bao_agent, certagent, run, vault
from tests.benchmarks.figures import MIB
from tests.benchmarks.interleaving import interleave
from tests.benchmarks.table import side_by_side
from tests.support.process import until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.benchmarks.interleaving import Rounds
    from tests.benchmarks.process import Job
    from tests.benchmarks.world import World

SETTLING = 2
"""Polls before the window: what is loaded, compiled or collected late is there by then."""

POLLS = 5
"""Polls in the window."""

HOUR = 3600.0


def measure(world: World, rounds: Rounds) -> str:
    """Return the table of `certagent run` and `bao agent`, both polling at the same interval.

    `bao agent` polls a little more often than told: after 0.85 to 0.95 of its interval.
    """
    secrets = [world.secret(PATH)]
    rendering = {"static_secret_render_interval": rounds.every}
    jobs = {
        "certagent": partial(certagent, world, vault(world), *run(rounds.every)),
        "bao agent": partial(bao_agent, world, template_config=rendering),
    }
    contenders = {
        name: partial(stay, world, job, secrets, rounds.interval) for name, job in jobs.items()
    }
    title = f"staying, a poll every {rounds.every}"
    return side_by_side(title, interleave(contenders, rounds.count, warm_ups=0))


def stay(
    world: World, job: Callable[[], Job], secrets: Sequence[str], interval: float
) -> dict[str, float]:
    """Let a new job stay for some polls of its secrets, and return what they cost."""
    with process.staying(job()) as agent:
        _wait_for_polls(world, secrets, SETTLING, interval)
        before, cpu, began = world.requests.counts, agent.cpu, time.monotonic()
        _wait_for_polls(world, secrets, POLLS, interval)
        seconds, cpu = time.monotonic() - began, agent.cpu - cpu
        asked = world.requests.counts - before
        polls = sum(asked[secret] for secret in secrets) / len(secrets)
        return {
            "resident memory, MiB": agent.memory("VmRSS") / MIB,
            "anonymous memory, MiB": agent.memory("RssAnon") / MIB,
            "CPU, % of a core": cpu / seconds * 100,
            "requests an hour": asked.total() / seconds * HOUR,
            "requests a poll": asked.total() / polls,
        }


def _wait_for_polls(world: World, secrets: Sequence[str], count: int, interval: float) -> None:
    """Wait until the secrets have been read so many times more, on the average."""

    def reads() -> int:
        counts = world.requests.counts
        return sum(counts[secret] for secret in secrets)

    wanted = reads() + count * len(secrets)
    until(lambda: reads() >= wanted, 2 * count * interval + process.DEADLINE)
