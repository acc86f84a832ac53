"""Real agents rotate real sets under readers that read as fast as they can, each in its manner.

The sink alone, under the same readers: tests/integration/test_publication.py.
"""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from tests.support import generations
from tests.support.effort import effort
from tests.support.process import started
from tests.support.sites import Site, material

ROTATIONS = effort(100, 5000)
WITHIN = effort(60, 3600)


@pytest.mark.parametrize(
    ("layout", "manners"), [("istiod", ("resolver", "istiod")), ("gateway", ("gateway",))]
)
def test_readers_find_nothing_but_whole_sets_in_their_order(tmp_path, layout, manners):
    sets = {f"{number}": each for number, each in enumerate(material(layout, ROTATIONS + 1))}
    site = Site(tmp_path, layout, sets, {"refresh": {"interval": "2ms"}})
    listed = generations.write(tmp_path / "list", sets.values())
    site.push("0")
    with site.run() as agent, ExitStack() as stack:
        agent.until(lambda: site.found() == sets["0"])
        readers = [
            stack.enter_context(
                started("tests.support.readers", manner, site.output, ROTATIONS, listed)
            )
            for manner in manners
        ]
        for number in range(1, ROTATIONS + 1):
            site.push(str(number))
            agent.until(lambda wanted=sets[str(number)]: site.found() == wanted)
        all_found = [json.loads(reader.communicate(timeout=WITHIN)[0]) for reader in readers]
        assert agent.stop() == 0
    assert len(agent.publications) == ROTATIONS + 1
    for found in all_found:
        assert found["faults"] == []
        assert found["ordered"]
        assert found["last"] == [ROTATIONS]
        assert found["generations"] >= 3
        assert found["overtaken"] < found["reads"] / 2
