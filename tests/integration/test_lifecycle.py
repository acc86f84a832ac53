"""The agent as a process: probes, signals, logins, requests, restarts."""

from __future__ import annotations

import contextlib
import signal
import socket
import time

import pytest

from tests.support import meddled
from tests.support.material import fields, files, make_root
from tests.support.openbao import OpenBao, free_port
from tests.support.process import certagent, published, running
from tests.support.scraping import get, metric

pytestmark = pytest.mark.measured


@pytest.fixture(scope="module")
def root():
    return make_root()


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def environ(openbao, cluster, tmp_path, port):
    """An agent of cluster 1 with a kubernetes login and a KV v2 secret at `istiod/certs`."""
    mount = openbao.kv(2)
    auth = openbao.kubernetes_auth(cluster)
    policy = openbao.policy(f"{mount}/data/istiod/*")
    openbao.kubernetes_role(auth, "istiod", policy)
    (tmp_path / "token").write_text(cluster.mint())
    return {
        "VAULT_ADDR": openbao.address,
        "ROOT_CA_DIR": tmp_path / "ca",
        "CERTAGENT_SOURCE": f"vault:{mount}/istiod/certs",
        "CERTAGENT_VAULT_AUTH_MOUNT": auth,
        "CERTAGENT_VAULT_ROLE": "istiod",
        "CERTAGENT_VAULT_TOKEN_FILE": tmp_path / "token",
        "CERTAGENT_INTERVAL": "50ms",
        "CERTAGENT_SERVER_ADDRESS": f"127.0.0.1:{port}",
    }


def store(openbao, environ, raw, path="istiod/certs") -> None:
    mount = environ["CERTAGENT_SOURCE"].removeprefix("vault:").partition("/")[0]
    openbao.put(mount, path, fields(raw))


def requests(port: int) -> float:
    return metric(port, 'certagent_source_requests_total{outcome="ok",source="vault"}')


class TestProbes:
    def test_ready_means_published_and_live_means_the_loop_turns(
        self, openbao, environ, port, root
    ):
        with running(**environ) as agent:
            agent.until(lambda: get(port, "/livez")[0] == 200)
            assert get(port, "/readyz")[0] == 503
            store(openbao, environ, root.intermediate().raw())
            agent.until(lambda: get(port, "/readyz")[0] == 200)

    def test_a_restart_with_the_store_down_is_ready_with_the_set_on_the_volume(
        self, openbao, environ, port, root
    ):
        raw = root.intermediate().raw()
        store(openbao, environ, raw)
        assert certagent("init", **environ).code == 0

        with running(**{**environ, "VAULT_ADDR": "http://127.0.0.1:1"}) as agent:
            agent.until(lambda: get(port, "/readyz")[0] == 200)
            agent.until(lambda: agent.logged("127.0.0.1:1"))
            assert published(environ["ROOT_CA_DIR"]) == files(raw)

    def test_a_taken_address_that_was_asked_for_is_an_error(self, openbao, environ, root):
        store(openbao, environ, root.intermediate().raw())
        with running(**environ) as first:
            first.until(lambda: first.publications)

            second = certagent("run", **{**environ, "ROOT_CA_DIR": environ["ROOT_CA_DIR"] / "b"})

        assert second.code == 78
        assert environ["CERTAGENT_SERVER_ADDRESS"] in second.stderr

    def test_an_empty_address_switches_the_server_off(self, openbao, environ, root, tmp_path):
        store(openbao, environ, root.intermediate().raw())
        (tmp_path / "certagent.yaml").write_text('server: {address: ""}')
        environ = {**environ, "CERTAGENT_SERVER_ADDRESS": None}

        with running("--config", tmp_path / "certagent.yaml", **environ) as agent:
            agent.until(lambda: agent.publications)
            assert agent.stop() == 0

    def test_the_default_address_that_is_taken_only_costs_the_probes(self, openbao, environ, root):
        store(openbao, environ, root.intermediate().raw())
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # somebody else has it: as good
                taken.bind(("0.0.0.0", 9089))
                taken.listen()
            with running(**{**environ, "CERTAGENT_SERVER_ADDRESS": None}) as agent:
                agent.until(lambda: agent.logged("no probes and no metrics"))
                agent.until(lambda: agent.publications)
                assert agent.stop() == 0


class TestRequests:
    def test_an_unchanged_poll_is_one_request_and_all_polls_share_one_login(
        self, openbao, environ, port, root
    ):
        store(openbao, environ, root.intermediate().raw())

        with running(**environ) as agent:
            agent.until(lambda: get(port, "/readyz")[0] == 200)
            inode = (environ["ROOT_CA_DIR"] / "..data").lstat().st_ino
            successes = set()
            before = requests(port)

            def polls() -> int:
                name = 'certagent_last_success_timestamp_seconds{bundle="istiod-ca"}'
                successes.add(metric(port, name))
                return len(successes)

            agent.until(lambda: polls() > 100, within=60)
            after = requests(port)
            logins = metric(port, 'certagent_logins_total{outcome="ok",source="vault"}')

        assert logins == 1
        assert after - before >= 100, "every poll asks"
        # A poll between two looks is in the count of requests and not in that of successes.
        assert after - before < 400
        assert len(agent.publications) == 1
        assert (environ["ROOT_CA_DIR"] / "..data").lstat().st_ino == inode

    def test_one_login_serves_all_bundles(self, openbao, environ, port, root, tmp_path):
        mount = environ["CERTAGENT_SOURCE"].removeprefix("vault:").partition("/")[0]
        bundles = []
        for name in ("one", "two", "three"):
            openbao.put(mount, f"istiod/{name}", fields(root.intermediate(name).raw()))
            bundles.append(
                f"- name: {name}\n"
                f"  source: {{vaultKV: {{mount: {mount}, path: istiod/{name}}}}}\n"
                f"  output: {{directory: {tmp_path / name}}}\n"
            )
        (tmp_path / "certagent.yaml").write_text("bundles:\n" + "".join(bundles))
        environ = {**environ, "ROOT_CA_DIR": None, "CERTAGENT_SOURCE": None}

        with running("--config", tmp_path / "certagent.yaml", **environ) as agent:
            agent.until(lambda: get(port, "/readyz")[0] == 200)
            logins = metric(port, 'certagent_logins_total{outcome="ok",source="vault"}')

        assert logins == 1
        assert len(agent.publications) == 3


class TestSignals:
    def test_an_idle_agent_stops_within_a_second_with_0(self, openbao, environ, root):
        store(openbao, environ, root.intermediate().raw())
        with running(**{**environ, "CERTAGENT_INTERVAL": "1h"}) as agent:
            agent.until(lambda: agent.publications)

            started = time.monotonic()
            assert agent.stop() == 0
            assert time.monotonic() - started < 5, "an hour's wait was ended"

    def test_a_stop_gives_the_login_back(self, openbao, environ, root):
        store(openbao, environ, root.intermediate().raw())
        before = _accessors(openbao)
        unhurried = {meddled.HURRY: "20"}
        with running(command=meddled.COMMAND, **environ, **unhurried) as agent:
            agent.until(lambda: agent.publications)
            (accessor,) = _accessors(openbao) - before
            agent.stop()

        assert accessor not in _accessors(openbao)

    def test_init_that_is_stopped_is_no_success(self, environ):
        with running(verb="init", **environ) as agent:
            agent.until(lambda: agent.logged("There is no secret"))

            assert agent.stop() == 128 + signal.SIGTERM

    def test_a_killed_agent_leaves_the_set_and_its_successor_goes_on(self, openbao, environ, root):
        first, second = root.intermediate().raw(), root.intermediate().raw()
        store(openbao, environ, first)
        with running(**environ) as agent:
            agent.until(lambda: agent.publications)
            agent.signal(signal.SIGKILL)
            agent.process.wait(10)
        assert published(environ["ROOT_CA_DIR"]) == files(first)
        store(openbao, environ, second)

        with running(**environ) as agent:
            agent.until(lambda: published(environ["ROOT_CA_DIR"]) == files(second))


class TestOutage:
    def test_the_last_good_set_stays_and_the_newest_follows_when_the_store_is_back(
        self, openbao, cluster, environ, port, root
    ):
        first, second = root.intermediate().raw(), root.intermediate().raw()
        store(openbao, environ, first)
        token = environ["CERTAGENT_VAULT_TOKEN_FILE"]
        with running(**{**environ, "CERTAGENT_INTERVAL": "200ms"}) as agent:
            agent.until(lambda: agent.publications)
            token.write_text(cluster.mint(service_account="somebody-else"))
            _revoke_logins(openbao, environ)
            agent.until(lambda: agent.logged("Vault refused the login"))
            store(openbao, environ, second)
            assert published(environ["ROOT_CA_DIR"]) == files(first)
            assert get(port, "/readyz")[0] == 200
            token.write_text(cluster.mint())
            agent.until(lambda: published(environ["ROOT_CA_DIR"]) == files(second))
            agent.until(lambda: agent.logged("recovered"))

    def test_two_agents_on_one_directory_do_not_mix(self, openbao, environ, root):
        store(openbao, environ, root.intermediate().raw())
        with running(**environ) as first:
            first.until(lambda: first.publications)
            other = {**environ, "CERTAGENT_INIT_DEADLINE": "100ms"}

            done = certagent("init", **other)

        assert done.code == 73
        assert "another certagent" in done.stderr.lower()

    def test_a_server_that_freezes_holds_a_stop_up_no_longer_than_a_request(
        self, root, port, tmp_path
    ):
        with OpenBao() as server:
            mount = server.kv(2)
            server.put(mount, "ca", fields(root.intermediate().raw()))
            environ = {
                "VAULT_ADDR": server.address,
                "VAULT_TOKEN": server.token,
                "ROOT_CA_DIR": tmp_path / "ca",
                "CERTAGENT_SOURCE": f"vault:{mount}/ca",
                "CERTAGENT_INTERVAL": "50ms",
                "CERTAGENT_SERVER_ADDRESS": f"127.0.0.1:{port}",
            }
            with running(**environ) as agent:
                agent.until(lambda: agent.publications)
                server.freeze()
                agent.until(lambda: _stands_still(port))
                assert agent.stop(within=20) == 0


class TestDirectorySource:
    def test_a_change_is_published_at_once(self, tmp_path, root):
        certs = tmp_path / "certs"
        certs.mkdir()
        first, second = root.intermediate().raw(), root.intermediate().raw()
        _write(certs, first)
        with running(
            "--source", f"file:{certs}", "--directory", tmp_path / "ca", "--interval", "1h"
        ) as agent:
            agent.until(lambda: published(tmp_path / "ca") == files(first))
            _write(certs, second)
            agent.until(lambda: published(tmp_path / "ca") == files(second))
            assert agent.stop() == 0

    def test_a_set_that_is_half_written_is_not_published(self, tmp_path, root):
        certs = tmp_path / "certs"
        certs.mkdir()
        first, second = root.intermediate().raw(), root.intermediate().raw()
        _write(certs, first)
        with running(
            "--source", f"file:{certs}", "--directory", tmp_path / "ca", "--interval", "100ms"
        ) as agent:
            agent.until(lambda: published(tmp_path / "ca") == files(first))
            (certs / "ca-key.pem").write_bytes(second.private_key)
            agent.until(lambda: agent.logged("refused", code="key-mismatch"))
            assert published(tmp_path / "ca") == files(first)
            _write(certs, second)
            agent.until(lambda: published(tmp_path / "ca") == files(second))


def _write(directory, raw) -> None:
    for name, data in files(raw).items():
        (directory / name).write_bytes(data)


def _accessors(openbao) -> set[str]:
    answer = openbao.call("LIST", "auth/token/accessors")
    return set(answer["data"]["keys"])


def _revoke_logins(openbao, environ) -> None:
    openbao.call("POST", f"sys/leases/revoke-prefix/auth/{environ['CERTAGENT_VAULT_AUTH_MOUNT']}")


def _stands_still(port: int) -> bool:
    """Whether no poll ends for ten intervals: one has been sent, and nothing comes back."""
    asked, until_then = requests(port), time.monotonic() + 0.5
    while time.monotonic() < until_then:
        if requests(port) != asked:
            return False
    return True
