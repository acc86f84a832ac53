"""The main job, end to end: a real server, a real process, a real directory."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.material import fields, files, make_root
from tests.support.openbao import OpenBao
from tests.support.process import Finished, certagent, published, running

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAMES = {"ca-key.pem", "ca-cert.pem", "cert-chain.pem", "root-cert.pem"}


@dataclass
class Pod:
    """An istiod pod: its projected token, its volume, its place in Vault."""

    openbao: object
    mount: str
    auth: str
    token: Path
    directory: Path
    version: int
    path: str = "istiod-service/certs"

    @property
    def environ(self) -> dict[str, object]:
        return {
            "VAULT_ADDR": self.openbao.address,
            "ROOT_CA_DIR": self.directory,
            "CERTAGENT_SOURCE": f"vault:{self.mount}/{self.path}",
            "CERTAGENT_VAULT_AUTH_MOUNT": self.auth,
            "CERTAGENT_VAULT_ROLE": "istiod",
            "CERTAGENT_VAULT_TOKEN_FILE": self.token,
            "CERTAGENT_INTERVAL": "200ms",
            "CERTAGENT_INIT_DEADLINE": "1s",
        }

    def store(self, raw) -> None:
        values = raw if isinstance(raw, dict) else fields(raw)
        if self.version == 1:
            self.openbao.put_v1(self.mount, self.path, values)
        else:
            self.openbao.put(self.mount, self.path, values)


@pytest.fixture(params=[1, 2], ids=["kv1", "kv2"])
def kv_version(request):
    return request.param


@pytest.fixture
def pod(openbao, cluster, tmp_path, kv_version):
    mount = openbao.kv(kv_version)
    path = f"{mount}/data" if kv_version == 2 else mount
    policy = openbao.policy(f"{path}/istiod-service/certs")
    auth = openbao.kubernetes_auth(cluster)
    openbao.kubernetes_role(auth, "istiod", policy)
    token = tmp_path / "token"
    token.write_text(cluster.mint())
    return Pod(openbao, mount, auth, token, tmp_path / "ca", kv_version)


@pytest.fixture(scope="module")
def root():
    return make_root()


def test_init_publishes_what_the_store_holds(pod, root):
    raw = root.intermediate().raw()
    pod.store(raw)

    done = certagent("init", **pod.environ)

    assert done.code == 0, done.stderr
    assert published(pod.directory) == files(raw)
    assert {p.name for p in pod.directory.iterdir() if p.name[:2] != ".."} == FILE_NAMES
    assert (pod.directory / "ca-key.pem").stat().st_mode & 0o777 == 0o600
    assert (pod.directory / "ca-cert.pem").stat().st_mode & 0o777 == 0o644


def test_run_publishes_a_change_within_a_poll(pod, root):
    first, second = root.intermediate().raw(), root.intermediate().raw()
    pod.store(first)

    with running(**pod.environ) as agent:
        agent.until(lambda: published(pod.directory) == files(first))
        pod.store(second)
        agent.until(lambda: published(pod.directory) == files(second))
        assert agent.stop() == 0

    lines = agent.publications
    assert len(lines) == 2
    assert lines[1]["changed"] == "ca-cert.pem ca-key.pem cert-chain.pem"


def test_one_publication_is_one_line_that_says_all(pod, root):
    ca = root.intermediate()
    pod.store(ca.raw())

    done = certagent("init", CERTAGENT_LOG_FORMAT="json", **pod.environ)

    (line,) = [record for record in done.log if record["message"] == "published"]
    assert line["subject"] == "L=cluster1,CN=Intermediate CA,O=Istio"
    assert line["issuer"] == "CN=Root CA,O=Istio"
    assert line["sha256"] == ca.fingerprint
    assert line["not_after"].startswith("2040-01-01T00:00:00")
    assert line["serial"].replace(":", "").lower() == f"{ca.certificate.serial_number:x}".zfill(
        len(line["serial"].replace(":", ""))
    )
    assert line["version"] == "1" if pod.version == 2 else line["version"].startswith("sha256:")
    assert line["changed"]


def test_a_bad_push_leaves_the_published_set(pod, root):
    good = root.intermediate().raw()
    pod.store(good)

    with running(**pod.environ) as agent:
        agent.until(lambda: published(pod.directory) == files(good))
        pod.store(root.intermediate().raw(private_key=root.intermediate().key_pem))
        agent.until(lambda: agent.logged("refused", code="key-mismatch"))
        better = root.intermediate().raw()
        pod.store(better)
        agent.until(lambda: published(pod.directory) == files(better))
        assert agent.stop() == 0

    refused = agent.logged("refused", code="key-mismatch")
    assert len(refused) == 1, "a version is refused once, not at every poll"


def test_sighup_polls_at_once(pod, root):
    first, second = root.intermediate().raw(), root.intermediate().raw()
    pod.store(first)

    with running(**{**pod.environ, "CERTAGENT_INTERVAL": "1h"}) as agent:
        agent.until(lambda: agent.publications)
        pod.store(second)
        agent.signal(signal.SIGHUP)
        agent.until(lambda: published(pod.directory) == files(second))


def test_the_walk_through_of_two_clusters_works_with_the_agent_in_vault_agents_place(
    cluster, tmp_path, root
):
    """KV v1 mounts, auth mounts, role and policy as in Tetrate's article on external CAs."""
    token = tmp_path / "token"
    token.write_text(cluster.mint())
    with OpenBao() as vault:
        sets = {}
        for name in ("cluster1", "cluster2"):
            vault.kv(1, f"kubernetes-{name}-secrets")
            sets[name] = root.intermediate(name).raw()
            vault.put_v1(f"kubernetes-{name}-secrets", "istiod-service/certs", fields(sets[name]))
            policy = vault.policy(f"kubernetes-{name}-secrets/istiod-service/certs")
            vault.kubernetes_auth(cluster, f"kubernetes-{name}")
            vault.kubernetes_role(f"kubernetes-{name}", "istiod", policy)

        def init(secrets_of: str, login_of: str, directory: Path) -> Finished:
            return certagent(
                "init",
                VAULT_ADDR=vault.address,
                ROOT_CA_DIR=directory,
                CERTAGENT_SOURCE=f"vault:kubernetes-{secrets_of}-secrets/istiod-service/certs",
                CERTAGENT_VAULT_AUTH_MOUNT=f"kubernetes-{login_of}",
                CERTAGENT_VAULT_ROLE="istiod",
                CERTAGENT_VAULT_TOKEN_FILE=token,
                CERTAGENT_INIT_DEADLINE="100ms",
            )

        for name, raw in sets.items():
            done = init(name, name, tmp_path / name)
            assert done.code == 0, done.stderr
            assert published(tmp_path / name) == files(raw)
        assert init("cluster2", "cluster1", tmp_path / "crossed").code == 77
    assert not published(tmp_path / "crossed")
