"""After a publication: hooks run, and the reader is asked whether it took the set."""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.support.istiod import FakeIstiod
from tests.support.material import fields, make_root
from tests.support.openbao import free_port
from tests.support.process import published, running

pytestmark = pytest.mark.measured


@pytest.fixture
def mount(openbao):
    return openbao.kv(2)


@pytest.fixture
def environ(openbao, mount, tmp_path):
    return {
        "VAULT_ADDR": openbao.address,
        "VAULT_TOKEN": openbao.create_token(openbao.policy(f"{mount}/data/ca")),
        "CERTAGENT_INTERVAL": "200ms",
        "ISTIO_MULTIROOT_MESH": "true",
    }


@pytest.fixture
def configured(mount, tmp_path):
    """Write a configuration with one bundle, and `more` of its keys; return its path."""

    def write(more: dict, **top: object) -> str:
        bundle = {
            "name": "istiod-ca",
            "source": {"vaultKV": {"mount": mount, "path": "ca"}},
            "output": {"directory": str(tmp_path / "ca")},
            **more,
        }
        path = tmp_path / "certagent.yaml"
        path.write_text(json.dumps({"bundles": [bundle], **top}))
        return str(path)

    return write


@pytest.fixture(scope="module")
def root():
    return make_root()


def test_an_exec_hook_is_told_what_changed_and_gets_no_secret(
    openbao, mount, environ, configured, root, tmp_path
):
    told, seen = tmp_path / "told.json", tmp_path / "environment"
    command = ["sh", "-c", f"cat > {told}.new; env > {seen}; mv {told}.new {told}"]
    config = configured({"hooks": [{"kind": "exec", "name": "tell", "command": command}]})
    first, second = root.intermediate(), root.intermediate()
    openbao.put(mount, "ca", fields(first.raw()))
    with running("--config", config, **environ) as agent:
        agent.until(lambda: agent.publications)
        assert not told.exists(), "at the first publication nobody reads yet"
        openbao.put(mount, "ca", fields(second.raw()))
        agent.until(told.exists)
        assert agent.stop() == 0

    event = json.loads(told.read_text())
    assert (event["event"], event["bundle"], event["version"]) == ("published", "istiod-ca", "2")
    assert (event["sha256Before"], event["sha256"]) == (first.fingerprint, second.fingerprint)
    assert set(event["changed"]) == {"private_key", "certificate", "chain"}
    assert environ["VAULT_TOKEN"] not in seen.read_text()


def test_hooks_of_roots_run_for_a_change_of_roots_alone(
    openbao, mount, environ, configured, root, tmp_path
):
    ran = tmp_path / "ran"
    hook = {"kind": "exec", "name": "restart", "on": "roots", "command": ["touch", str(ran)]}
    config = configured({"hooks": [hook]}, rotation={"istiod": "restart"})
    first = root.intermediate()
    openbao.put(mount, "ca", fields(first.raw()))
    with running("--config", config, **{**environ, "ISTIO_MULTIROOT_MESH": None}) as agent:
        agent.until(lambda: agent.publications)
        openbao.put(mount, "ca", fields(root.intermediate().raw()))
        agent.until(lambda: len(agent.publications) == 2)
        openbao.put(mount, "ca", fields(first.raw(roots=(root, make_root()))))
        agent.until(ran.exists)
        assert agent.stop() == 0

    assert len(agent.publications) == 3


@pytest.mark.parametrize("reloads", [True, False], ids=["reloads", "does not reload"])
def test_the_reader_is_asked_whether_it_took_the_set(
    openbao, mount, environ, configured, tmp_path, reloads
):
    root = make_root()
    openbao.put(mount, "ca", fields(root.intermediate().raw()))
    port = free_port()
    with FakeIstiod(tmp_path / "ca", reloads=reloads) as istiod:
        confirm = {"address": istiod.address, "within": "3s"}
        config = configured({"confirm": confirm})
        server = {"CERTAGENT_SERVER_ADDRESS": f"127.0.0.1:{port}"}
        with running("--config", config, **environ, **server) as agent:
            agent.until(lambda: published(tmp_path / "ca"))
            istiod.start()
            openbao.put(mount, "ca", fields(root.intermediate().raw()))
            verdict = "confirmed: " if reloads else "unconfirmed: "
            agent.until(lambda: [r for r in agent.log if r["message"].startswith(verdict)])
            url = f"http://127.0.0.1:{port}/metrics"
            metrics = urllib.request.urlopen(url, timeout=5).read().decode()
            assert agent.stop() == 0

    assert f'certagent_unconfirmed{{bundle="istiod-ca"}} {0.0 if reloads else 1.0}' in metrics


def test_restart_without_a_hook_is_a_wrong_configuration(environ, configured):
    config = configured({}, rotation={"istiod": "restart"})
    with running("--config", config, **environ) as agent:
        assert agent.process.wait(20) == 78


def test_a_restart_that_istiod_is_owed_outlives_the_agent(
    openbao, mount, environ, configured, root, tmp_path
):
    ran, allowed, tried = tmp_path / "ran", tmp_path / "allowed", tmp_path / "tried"
    command = ["sh", "-c", f"touch {tried}; test -e {allowed} && touch {ran}"]
    hook = {"kind": "exec", "name": "restart", "on": "roots", "command": command}
    config = configured({"hooks": [hook]}, rotation={"istiod": "restart"})
    first = root.intermediate()
    openbao.put(mount, "ca", fields(first.raw()))
    with running("--config", config, **environ) as agent:
        agent.until(lambda: agent.publications)
        openbao.put(mount, "ca", fields(first.raw(roots=(root, make_root()))))
        agent.until(tried.exists)
        agent.process.kill()
        agent.process.wait(10)
    allowed.touch()

    with running("--config", config, **environ) as agent:
        agent.until(ran.exists)
        agent.until(lambda: "untold" not in _record(tmp_path))
        assert agent.stop() == 0


def _record(tmp_path) -> str:
    return (tmp_path / "ca" / "..data" / ".certagent.json").read_text()
