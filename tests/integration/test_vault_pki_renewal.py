"""What a real OpenBao issued is renewed, kept over restarts, and followed from issuer to issuer."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from tests.support.material import make_root
from tests.support.pods import Recorder
from tests.support.process import certagent, running

WINDOWS = {"CERTAGENT_DISTRIBUTE": "6s", "CERTAGENT_RETIRE": "6s", "CERTAGENT_SLACK": "1s"}


class TestRenewal:
    def test_after_two_thirds_of_the_ttl_a_new_one_is_published(self, pods):
        config = pods.config(ttl="9s", more="rotation: {strategy: immediate}\n")
        with running("--config", config, **pods.environ) as agent:
            agent.until(pods.files)
            first, since = pods.certificate(), time.monotonic()
            agent.until(lambda: pods.certificate() != first)
            taken = time.monotonic() - since
            assert agent.stop() == 0

        renewed = pods.certificate()
        assert taken < 9
        assert renewed.public_key() != first.public_key()
        assert renewed.issuer == first.issuer
        assert len(agent.publications) == 2
        roots = {record["roots"] for record in agent.publications}
        assert len(roots) == 1

    def test_one_that_is_refused_leaves_what_is_published(self, pods, openbao):
        config = pods.config(ttl="6s", more="rotation: {strategy: immediate}\n")
        with running("--config", config, **pods.environ) as agent:
            agent.until(pods.files)
            before = pods.files()
            usage = {"issuer_name": "A", "usage": "read-only"}
            openbao.call("POST", f"{pods.mount}/issuer/A", usage)
            agent.until(lambda: agent.logged("requested usage"))

            assert pods.files() == before
            assert agent.stop() == 0

    def test_a_restart_goes_on_with_what_is_there(self, pods):
        with Recorder(pods) as recorder:
            for _ in range(3):
                with running("--config", pods.config(), **pods.environ) as agent:
                    agent.until(lambda: len(recorder.asked) > 1 and pods.files())
                    agent.until(lambda agent=agent: agent.logged("settled"))
                    assert agent.stop() == 0

            assert len(recorder.signed) == 1


class TestRotation:
    def test_a_new_issuer_goes_through_its_phases_for_all_that_are_there_and_are_born(
        self, pods, openbao
    ):
        """A signs, A+B published; B signs, A+B published; A is removed, and kept by who knows."""
        environ = {**pods.environ, **WINDOWS}
        config = pods.config()
        other = {"ROOT_CA_DIR": pods.directory / "born"}
        with running("--config", config, **environ) as agent:
            agent.until(lambda: pods.state() == ("A", "A"))
            # A root that Vault generates says to be 30 s older, which these windows do not cover.
            fresh = make_root(subject="CN=B", not_before=datetime.now(UTC))
            new = openbao.import_issuer(pods.mount, fresh.pem + fresh.key_pem)
            openbao.make_default(pods.mount, new)
            came = time.monotonic()
            agent.until(lambda: pods.state() == ("A", "AB"))
            assert certagent("init", "--config", config, **environ, **other).code == 0
            assert pods.state("born") == ("A", "AB")
            agent.until(lambda: pods.state() == ("B", "AB"))
            switched = time.monotonic() - came
            openbao.remove_issuer(pods.mount, "A")
            agent.until(lambda: agent.logged("switch"))
            assert pods.state() == ("B", "AB"), "kept until d + r after it was superseded"
            agent.until(lambda: pods.state() == ("B", "B"))
            settled = time.monotonic() - came
            assert agent.stop() == 0

        assert 5 < switched < 12
        assert settled > 11
        assert not agent.logged("stored")

    def test_an_issuer_that_is_added_ahead_signs_at_once_when_it_is_made_the_default(
        self, pods, openbao
    ):
        environ = {**pods.environ, **WINDOWS}
        with running("--config", pods.config(), **environ) as agent:
            agent.until(lambda: pods.state() == ("A", "A"))
            new = openbao.issuer(pods.mount, "B")
            agent.until(lambda: pods.state() == ("A", "AB"))
            agent.until(lambda: agent.logged("settled: "))
            deadline = time.monotonic() + 7
            agent.until(lambda: time.monotonic() > deadline)
            openbao.make_default(pods.mount, new)
            agent.until(lambda: pods.state() == ("B", "AB"), within=3)
