"""istiod's own switch as far as it can be seen, and the port of the probes."""

from __future__ import annotations

import contextlib
import socket

import pytest

from certagent.cli.diagnosis import surroundings
from certagent.cli.diagnosis.result import About, attempt
from certagent.runtime.health import HealthServer
from certagent.runtime.status import AgentStatus
from tests.support.diagnosis import Report, configured
from tests.support.openbao import free_port
from tests.support.scripted import ScriptedServer, answer

FLAG = "ISTIO_MULTIROOT_MESH"


@pytest.fixture
def config(tmp_path):
    def config(**keys):
        return configured(tmp_path, {"files": {"directory": "/none"}}, **keys)

    return config


class TestIstiod:
    def look(self, config, **environ):
        return Report(surroundings.istiod(config, environ))

    def test_the_flag_lets_new_roots_in(self, config):
        assert self.look(config(), **{FLAG: "true"}).verdicts("istiod") == ["ok"]

    @pytest.mark.parametrize("environ", [{}, {FLAG: "false"}, {FLAG: "yes"}])
    def test_without_it_new_roots_are_held_back(self, config, environ):
        report = self.look(config(), **environ)

        assert report.verdicts("istiod") == ["warning"]
        assert f"{FLAG}=true" in report.the("istiod").fix

    def test_who_says_hot_need_not_show_the_flag(self, config):
        assert self.look(config(rotation={"istiod": "hot"})).verdicts("istiod") == ["ok"]

    def test_who_says_hot_and_shows_the_contrary(self, config):
        report = self.look(config(rotation={"istiod": "hot"}), **{FLAG: "false"})

        assert report.verdicts("istiod") == ["warning"]

    def test_hooks_restart_istiod(self, config):
        hook = {"kind": "exec", "name": "restart", "on": "roots", "command": ["/bin/true"]}
        restart = config(rotation={"istiod": "restart"}, bundle={"hooks": [hook]})

        assert self.look(restart).verdicts("istiod") == ["ok"]

    def test_gateways_have_no_istiod(self, config):
        assert not self.look(config(bundle={"kind": "tls"})).results


class TestProbes:
    def look(self, config):
        return Report(attempt(About("probes"), surroundings.probes(config)))

    @pytest.fixture
    def port(self):
        return free_port()

    @pytest.fixture
    def at(self, config, port):
        return config(server={"address": f"127.0.0.1:{port}"})

    def test_a_port_that_is_free_stays_free(self, at, port):
        report = self.look(at)

        assert "is free" in report.the("probes", "ok").message
        socket.create_server(("127.0.0.1", port)).close()

    def test_a_certagent_that_runs(self, at, port):
        server = HealthServer(
            f"127.0.0.1:{port}", status=lambda: AgentStatus((), 0.0, 0.0), metrics=bytes
        )
        try:
            assert "certagent answers" in self.look(at).the("probes", "ok").message
        finally:
            server.close()

    def test_somebody_else_has_it(self, config):
        with ScriptedServer(lambda *_: answer(200, b"ok", Server="nginx")) as other:
            report = self.look(config(server={"address": f"127.0.0.1:{other.port}"}))

        assert report.failures == [("probes", 78)]
        assert "server.address" in report.the("probes").fix

    def test_somebody_else_has_the_default_port(self, config):
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # somebody else has it: as good
                taken.bind(("0.0.0.0", 9089))
                taken.listen()
                taken.settimeout(0.1)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(surroundings, "_ANSWER_SECONDS", 0.2)
                report = self.look(config())

        assert report.verdicts("probes") == ["warning"]
        assert "without probes" in report.text

    def test_any_port(self, config):
        assert self.look(config(server={"address": "127.0.0.1:0"})).verdicts("probes") == ["ok"]

    def test_they_are_switched_off(self, config):
        assert self.look(config(server={"address": ""})).verdicts("probes") == ["skipped"]

    def test_an_address_that_is_none(self, config):
        assert self.look(config(server={"address": "nowhere"})).failures == [("probes", 78)]
