"""Two agents by mistake on one directory: one wins, the other says so, and takes over later."""

from __future__ import annotations

import signal

import pytest

from tests.support.sites import LAYOUTS, Site

TAKEN = "Another certagent publishes to"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_second_waits_says_so_and_takes_over_when_the_first_ends(tmp_path, layout, end):
    site = Site(tmp_path, layout)
    site.push("first")
    with site.oracle() as oracle, site.run() as winner:
        oracle.until("first")
        with site.run() as other:
            told = other.until(lambda: other.logged(TAKEN))[0]
            assert told["level"] == "error"
            assert "an output directory of its own" in told["hint"]
            site.push("second")
            oracle.until("second")
            winner.until(lambda: len(winner.publications) == 2)
            assert other.publications == []
            assert winner.logged("", level="error") == []

            winner.signal(end)
            winner.process.wait(10)
            site.push("third")
            oracle.until("third")
            other.until(lambda: other.logged("recovered"))
            assert other.stop() == 0
    assert oracle.found == ["first", "second", "third"]


def test_one_that_is_frozen_still_holds_its_directory(tmp_path):
    site = Site(tmp_path, "istiod")
    site.push("first")
    with site.oracle() as oracle, site.run() as winner:
        oracle.until("first")
        winner.signal(signal.SIGSTOP)
        site.push("second")
        refused = site.init()
        assert refused.code == 73
        assert TAKEN in refused.stderr
        assert oracle.found == ["first"]
        winner.signal(signal.SIGCONT)
        oracle.until("second")
    assert oracle.found == ["first", "second"]
