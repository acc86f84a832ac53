"""A root is replaced on a real OpenBao: staged by itself, the same in every agent."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from certagent.material.bundle import KeyCertBundle
from tests.support.material import fields, files, make_root
from tests.support.process import certagent, published, running

WINDOWS = {"CERTAGENT_DISTRIBUTE": "6s", "CERTAGENT_RETIRE": "6s", "CERTAGENT_SLACK": "1s"}


@dataclass
class Mesh:
    """A store with a mesh CA, and agents that publish it into directories of their own."""

    openbao: object
    mount: str
    token: str
    directory: object

    def environ(self, name: str, **more: object) -> dict[str, object]:
        return {
            "VAULT_ADDR": self.openbao.address,
            "VAULT_TOKEN": self.token,
            "ROOT_CA_DIR": self.directory / name,
            "CERTAGENT_SOURCE": f"vault:{self.mount}/ca",
            "CERTAGENT_INTERVAL": "200ms",
            "ISTIO_MULTIROOT_MESH": "true",
            **WINDOWS,
            **more,
        }

    def push(self, ca) -> float:
        """Store a set; return the time (monotonic)."""
        self.openbao.put(self.mount, "ca", fields(ca.raw()))
        return time.monotonic()

    def state(self, name: str = "a") -> tuple[str, ...]:
        """The published signer and roots, by fingerprint: `signer, root, root`."""
        found = published(self.directory / name)
        if not found:
            return ()
        return (_first(found["ca-cert.pem"]), *_all(found["root-cert.pem"]))


def _all(pem: bytes) -> tuple[str, ...]:
    certificates = x509.load_pem_x509_certificates(pem)
    return tuple(each.fingerprint(hashes.SHA256()).hex() for each in certificates)


def _first(pem: bytes) -> str:
    return _all(pem)[0]


@pytest.fixture
def mesh(openbao, tmp_path):
    mount = openbao.kv(2)
    token = openbao.create_token(openbao.policy(f"{mount}/data/ca"))
    return Mesh(openbao, mount, token, tmp_path)


@pytest.fixture(scope="module")
def old():
    return make_root(subject="CN=Old root").intermediate()


@pytest.fixture(scope="module")
def new():
    return make_root(subject="CN=New root").intermediate()


@pytest.fixture
def roots(old, new):
    """The fingerprints of both roots, in the order in which they are published."""
    bundle = KeyCertBundle.decode(old.raw(roots=(old.root, new.root)))
    return tuple(root.fingerprint for root in bundle.roots)


def test_a_new_root_walks_through_its_phases_at_the_right_times(mesh, old, new, roots):
    """A/A, A/A+B, B/A+B, B/B: T .. T+d .. T+d+r, with d = r = 6 s."""
    settled_old = (old.fingerprint, old.root.fingerprint)
    settled_new = (new.fingerprint, new.root.fingerprint)
    mesh.push(old)
    with running(**mesh.environ("a")) as agent:
        agent.until(lambda: mesh.state() == settled_old)
        pushed = mesh.push(new)
        agent.until(lambda: mesh.state() == (old.fingerprint, *roots))
        distributed = time.monotonic() - pushed
        # Agents that are born in the midst of it publish the same bytes.
        assert certagent("init", **mesh.environ("born-while-distributed")).code == 0
        assert published(mesh.directory / "born-while-distributed") == published(
            mesh.directory / "a"
        )
        agent.until(lambda: mesh.state() == (new.fingerprint, *roots))
        switched = time.monotonic() - pushed
        assert certagent("init", **mesh.environ("born-while-switched")).code == 0
        assert published(mesh.directory / "born-while-switched") == published(mesh.directory / "a")
        agent.until(lambda: mesh.state() == settled_new)
        settled = time.monotonic() - pushed
        assert agent.stop() == 0

    assert distributed < 6 <= switched < 12 <= settled
    told = [record["message"].partition(":")[0] for record in agent.log]
    phases = [phase for phase in told if phase in {"distribute", "switch", "settled"}]
    assert phases == ["settled", "distribute", "switch", "settled"]


def test_a_new_intermediate_under_a_known_root_is_used_at_once(mesh, old):
    mesh.push(old)
    with running(**mesh.environ("a", CERTAGENT_DISTRIBUTE="25h", CERTAGENT_RETIRE="25h")) as agent:
        agent.until(mesh.state)
        renewed = old.root.intermediate()
        mesh.push(renewed)
        agent.until(lambda: mesh.state() == (renewed.fingerprint, old.root.fingerprint), within=5)


def test_agents_that_are_killed_and_restarted_change_nothing(mesh, old, new, roots):
    mesh.push(old)
    assert certagent("init", **mesh.environ("a")).code == 0
    pushed = mesh.push(new)
    seen = [mesh.state()]
    while seen[-1] != (new.fingerprint, new.root.fingerprint):
        assert time.monotonic() < pushed + 40
        with running(**mesh.environ("a")) as agent:
            agent.until(lambda: agent.logged("found a good set"))
            agent.process.kill()
            agent.process.wait(10)
        with running(**mesh.environ("a")) as agent:
            agent.until(lambda: mesh.state() != seen[-1])
            agent.process.kill()
            agent.process.wait(10)
        seen.append(mesh.state())

    assert seen == [
        (old.fingerprint, old.root.fingerprint),
        (old.fingerprint, *roots),
        (new.fingerprint, *roots),
        (new.fingerprint, new.root.fingerprint),
    ]


def test_a_boundary_is_crossed_while_the_store_is_down(mesh, old, new, roots):
    mesh.push(old)
    with running(**mesh.environ("a")) as agent:
        agent.until(mesh.state)
        mesh.push(new)
        agent.until(lambda: mesh.state() == (old.fingerprint, *roots))
        mesh.openbao.call("POST", "auth/token/revoke", {"token": mesh.token})
        agent.until(lambda: agent.logged("403"))

        agent.until(lambda: mesh.state() == (new.fingerprint, new.root.fingerprint), within=30)


def test_without_multiroot_a_new_root_is_held_and_said_so(mesh, old, new):
    mesh.push(old)
    with running(**mesh.environ("a", ISTIO_MULTIROOT_MESH=None)) as agent:
        agent.until(mesh.state)
        mesh.push(new)
        agent.until(lambda: agent.logged("istiod would refuse"))

        assert mesh.state() == (old.fingerprint, old.root.fingerprint)


def test_a_roll_back_within_the_window_never_lets_the_new_root_sign(mesh, old, new, roots):
    mesh.push(old)
    with running(**mesh.environ("a")) as agent:
        agent.until(mesh.state)
        mesh.push(new)
        agent.until(lambda: mesh.state() == (old.fingerprint, *roots))
        mesh.push(old)
        agent.until(lambda: mesh.state() == (old.fingerprint, old.root.fingerprint), within=30)

    signers = {record["sha256"] for record in agent.publications}
    assert signers == {old.fingerprint}


def test_a_destroyed_version_is_noticed_while_the_window_is_open(mesh, old, new, roots):
    """C15: a GET of the current version does not tell; the versions of the window are read too."""
    mesh.push(old)
    with running(**mesh.environ("a", CERTAGENT_DISTRIBUTE="25h", CERTAGENT_RETIRE="25h")) as agent:
        agent.until(mesh.state)
        mesh.push(new)
        agent.until(lambda: mesh.state() == (old.fingerprint, *roots))
        mesh.openbao.destroy(mesh.mount, "ca", 1)

        agent.until(lambda: mesh.state() == (new.fingerprint, new.root.fingerprint))


def test_a_root_that_is_not_pinned_is_refused_whoever_stored_it(mesh, old, new, tmp_path):
    config = tmp_path / "certagent.yaml"
    config.write_text(f"trust: {{roots: ['sha256:{old.root.fingerprint}']}}")
    mesh.push(old)
    with running("--config", config, **mesh.environ("a")) as agent:
        agent.until(mesh.state)
        mesh.push(new)
        agent.until(lambda: agent.logged("refused", code="root-not-pinned"))

        assert mesh.state() == (old.fingerprint, old.root.fingerprint)


def test_a_start_without_its_store_falls_back_and_leaves_that_as_soon_as_it_answers(
    mesh, old, new, tmp_path
):
    certs = tmp_path / "cacerts"
    certs.mkdir()
    for name, data in files(old.raw()).items():
        (certs / name).write_bytes(data)
    config = tmp_path / "certagent.yaml"
    config.write_text(
        "bundles:\n"
        "- name: istiod-ca\n"
        f"  source: {{vaultKV: {{mount: {mesh.mount}, path: ca}}}}\n"
        f"  output: {{directory: {tmp_path / 'a'}}}\n"
        f"  fallback: {{files: {{directory: {certs}}}}}\n"
    )
    environ = mesh.environ("a", CERTAGENT_INIT_DEADLINE="2s", CERTAGENT_SOURCE=None)
    token = mesh.token
    with running("--config", config, **{**environ, "VAULT_TOKEN": "not-yet-good"}) as agent:
        agent.until(lambda: agent.logged("the fallback is published"))
        agent.until(lambda: mesh.state() == (old.fingerprint, old.root.fingerprint))
        agent.stop()
    renewed = old.root.intermediate()
    mesh.push(renewed)
    with running("--config", config, **{**environ, "VAULT_TOKEN": token}) as agent:
        agent.until(lambda: mesh.state() == (renewed.fingerprint, old.root.fingerprint))
