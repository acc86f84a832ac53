"""A real Envoy serves what is published for a gateway, through rotations and refusals."""

import errno
import json
import os
from contextlib import ExitStack

import pytest
from msgspec.structs import replace

from certagent.errors import OutputError
from certagent.sinks import Publication
from certagent.sinks.directory import AtomicDirectory
from certagent.sinks.layouts import GATEWAY, KUBELET
from tests.support.envoy import HOST, Client, Envoy, Load
from tests.support.material import NOT_AFTER, NOT_BEFORE, make_root, pem
from tests.support.process import running, until
from tests.support.publishing import FaultyOs, install

ROTATIONS = 50
HANDSHAKES = 20  # at least so many between two rotations


def _leaf(ca):
    return ca.workload_leaf(uri="", dns=(HOST,), not_before=NOT_BEFORE, not_after=NOT_AFTER)


def _publication(leaf, *roots):
    files = {"tls.key": leaf.key_pem, "tls.crt": pem(leaf)}
    if roots:
        files["ca.crt"] = pem(*roots)
    return Publication(files, frozenset({"tls.key"}), {"version": leaf.fingerprint})


@pytest.fixture(scope="module")
def authority():
    """Who signs the servers' certificates."""
    return make_root(subject="CN=Servers")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ingress"


@pytest.fixture
def sink(path):
    opened = AtomicDirectory(path, layout=GATEWAY)
    yield opened
    opened.close()


@pytest.fixture
def client(authority, tmp_path):
    return Client(authority, tmp_path)


def _serves(envoy, client, leaf):
    return client.handshake(envoy.port) == leaf.fingerprint


def test_each_rotation_is_served_and_no_handshake_fails_meanwhile(sink, path, authority, client):
    leaves = [_leaf(authority) for _ in range(ROTATIONS + 1)]
    numbers = {leaf.fingerprint: number for number, leaf in enumerate(leaves)}
    published = 0
    sink.publish(_publication(leaves[0]))
    with Envoy(path) as envoy, Load(client, envoy.port, lambda: published) as load:
        for published in range(1, ROTATIONS + 1):
            leaf = leaves[published]
            sink.publish(_publication(leaf))
            until(lambda leaf=leaf: _serves(envoy, client, leaf))
            load.wait_for(HANDSHAKES)
        assert envoy.is_running
        assert envoy.failed_updates() == 0
    assert load.failures == []
    served = [(before, numbers[shown], after) for before, after, shown in load.done]
    # What was published as a handshake began, or the one before, or one that came during it.
    assert [each for each in served if not each[0] - 1 <= each[1] <= each[2]] == []
    assert len(served) >= ROTATIONS * HANDSHAKES


def test_rotations_that_come_faster_than_they_are_read_end_with_the_last(
    sink, path, authority, client
):
    """Envoy may read a torn pair, which it refuses: what it serves stays, and it reads again."""
    leaves = [_leaf(authority) for _ in range(ROTATIONS + 1)]
    sink.publish(_publication(leaves[0]))
    with Envoy(path) as envoy, Load(client, envoy.port) as load:
        for leaf in leaves[1:]:
            sink.publish(_publication(leaf))
        until(lambda: _serves(envoy, client, leaves[-1]))
        load.wait_for(HANDSHAKES)
        assert envoy.is_running
    assert load.failures == []


def test_a_set_that_cannot_be_published_leaves_the_old_one_served(
    sink, path, authority, client, monkeypatch
):
    first, refused, second = (_leaf(authority) for _ in range(3))
    sink.publish(_publication(first))
    with Envoy(path) as envoy, Load(client, envoy.port) as load:
        for call in ("write", "fchmod", "fsync", "rename"):
            failure = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with monkeypatch.context() as patched:
                install(patched, FaultyOs(1, failure, calls=(call,)))
                with pytest.raises(OutputError):
                    sink.publish(_publication(refused))
            load.wait_for(HANDSHAKES)
        assert {shown for _, _, shown in load.done} == {first.fingerprint}
        sink.publish(_publication(second))
        until(lambda: _serves(envoy, client, second))
        assert envoy.failed_updates() == 0
    assert load.failures == []


def test_an_agent_that_starts_anew_goes_on_where_the_one_before_was(sink, path, authority, client):
    first, second = _leaf(authority), _leaf(authority)
    sink.publish(_publication(first))
    sink.close()
    with Envoy(path) as envoy:
        again = AtomicDirectory(path, layout=GATEWAY)
        assert again.read().record["version"] == first.fingerprint
        assert _serves(envoy, client, first)
        again.publish(_publication(second))
        until(lambda: _serves(envoy, client, second))
        again.close()


def test_clients_of_either_ca_are_taken_while_their_root_is_published(
    sink, path, authority, tmp_path
):
    server = _leaf(authority)
    old, new = make_root(subject="CN=Old clients"), make_root(subject="CN=New clients")
    of_old, of_new = (Client(authority, tmp_path, _leaf(root)) for root in (old, new))
    sink.publish(_publication(server, old))
    with Envoy(path, mutual=True) as envoy, ExitStack() as stack:
        assert Client(authority, tmp_path).is_refused(envoy.port)
        assert of_new.is_refused(envoy.port)

        old_load = stack.enter_context(Load(of_old, envoy.port))
        sink.publish(_publication(server, old, new))
        _until_always(lambda: not of_new.is_refused(envoy.port))
        new_load = stack.enter_context(Load(of_new, envoy.port))
        for load in (old_load, new_load):
            load.wait_for(HANDSHAKES)

        old_load.stop()
        sink.publish(_publication(server, new))
        _until_always(lambda: of_old.is_refused(envoy.port))
        new_load.wait_for(HANDSHAKES)

        new_load.stop()
        assert (old_load.failures, new_load.failures) == ([], [])
        assert envoy.is_running
        assert envoy.failed_updates() == 0


def test_an_agent_beside_envoy_brings_each_new_certificate_and_no_bad_one(
    path, authority, client, tmp_path
):
    leaves = [_leaf(authority) for _ in range(ROTATIONS + 1)]
    numbers = {leaf.fingerprint: number for number, leaf in enumerate(leaves)}
    secret = AtomicDirectory(tmp_path / "secret", layout=KUBELET)
    secret.publish(_publication(leaves[0], authority))
    config = tmp_path / "certagent.json"
    config.write_text(json.dumps(_configuration(tmp_path / "secret", path)))
    stored = 0
    with running("--config", config) as agent:
        agent.until(lambda: agent.publications)
        with Envoy(path) as envoy, Load(client, envoy.port, lambda: stored) as load:
            for stored in range(1, ROTATIONS + 1):
                leaf = leaves[stored]
                secret.publish(_publication(leaf, authority))
                agent.until(lambda leaf=leaf: _serves(envoy, client, leaf))

            torn = _publication(_leaf(authority), authority)
            key = {"tls.key": leaves[0].key_pem}
            secret.publish(replace(torn, files={**torn.files, **key}))
            agent.until(lambda: agent.logged("refused"))
            load.wait_for(HANDSHAKES)
            assert _serves(envoy, client, leaves[-1])
            assert envoy.is_running
            assert envoy.failed_updates() == 0
    secret.close()
    assert load.failures == []
    served = [(before, numbers[shown], after) for before, after, shown in load.done]
    assert [each for each in served if not each[0] - 1 <= each[1] <= each[2]] == []


def _configuration(secret, output):
    return {
        "bundles": [
            {
                "name": "ingress",
                "kind": "tls",
                "source": {"files": {"directory": str(secret)}},
                "output": {"directory": str(output), "layout": "gateway"},
            }
        ],
        "refresh": {"interval": "50ms"},
    }


def _until_always(condition):
    """Wait until a condition holds for every worker of Envoy, each of which learns by itself."""
    until(lambda: all(condition() for _ in range(20)))
