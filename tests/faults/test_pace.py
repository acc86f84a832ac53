"""How often a store is asked that cannot answer, and how much of what it sends is taken."""

from __future__ import annotations

import re
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.faults.sets import FIRST, SECOND
from tests.faults.table import Fault
from tests.support.azure.faults import answers, floods
from tests.support.material import files
from tests.support.oracle import NOTHING, Oracle
from tests.support.process import running

SHORTER, LONGER = 0.95, 1.5
"""A clock that is read at both ends of a pause may shorten it, and a busy machine makes it longer:
never by so much."""


def pauses(store):
    """The seconds between the requests that were answered with a failure."""
    failed = [each.at for each in store.exchanges.copy() if (each.status or 0) >= 429]
    return [later - earlier for earlier, later in pairwise(failed)]


@pytest.mark.parametrize(("where", "status"), [("login", 429), ("secret", 503)])
def test_retry_after_is_obeyed_whatever_the_interval(vault, where, status):
    vault.push(FIRST)
    how = answers(status, {"errors": ["slow down"]}, Retry_After="1")
    vault.begin(Fault("throttled", how, where=where))
    with Oracle(vault.directory, first=files(FIRST)) as oracle, running(**vault.environ) as agent:
        agent.until(lambda: len(pauses(vault)) >= 2)
        vault.end()
        agent.until(lambda: oracle.now == "first")

    assert min(pauses(vault)) >= SHORTER


def test_a_store_that_fails_on_is_asked_after_a_second_at_least_and_within_every_interval(vault):
    vault.push(FIRST)
    vault.begin(Fault("503", answers(503)))
    # A poll that worked would come after 1.8 s at the earliest.
    with (
        Oracle(vault.directory, first=files(FIRST)) as oracle,
        running(**{**vault.environ, "CERTAGENT_INTERVAL": "2s"}) as agent,
    ):
        agent.until(lambda: len(pauses(vault)) >= 3)
        assert oracle.now == NOTHING
        ended_at = time.time()
        vault.end()
        agent.until(lambda: oracle.now == "first")
        back = next(each.at for each in vault.exchanges if each.at > ended_at)

    assert min(pauses(vault)) >= SHORTER
    assert max(*pauses(vault), back - ended_at) <= 2 * LONGER


def test_an_answer_without_end_costs_no_memory(vault):
    vault.push(FIRST)
    with (
        Oracle(vault.directory, first=files(FIRST), second=files(SECOND)) as oracle,
        running(**vault.environ) as agent,
    ):
        agent.until(lambda: oracle.now == "first")
        before, asked = peak(agent), len(vault.exchanges)
        vault.begin(Fault("100 MiB", floods()))
        agent.until(lambda: len(vault.exchanges) > asked + 3)
        vault.push(SECOND)
        vault.end()
        agent.until(lambda: oracle.now == "second")
        grown = peak(agent) - before

    assert grown < 90, f"{grown:.0f} MiB, and it was sent 100 several times"


def peak(agent):
    """The most memory (MiB) that a process has had resident."""
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
