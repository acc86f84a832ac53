"""What examples/two-clusters says is true: its scripts bring two clusters under one root."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack

import pytest
import yaml

from tests.support.examples import Page, Shell
from tests.support.istio_charts import container, environment, faults, rendered
from tests.support.openbao import OpenBaoError
from tests.support.process import certagent, published
from tests.support.tokenreview import Cluster

PAGE = Page("two-clusters")
NAMES = ("cluster1", "cluster2")
THIRD = "cluster3"
KUBECTL = """\
#!/bin/sh
# kubectl --context CLUSTER get --raw /openid/v1/jwks
[ "$1 $3 $4 $5" = "--context get --raw /openid/v1/jwks" ] && exec cat "{folder}/$2.json"
"""


@pytest.fixture(scope="module")
def clusters(tls):
    """Clusters, each with an issuer of its own."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(Cluster(tls)) for name in (*NAMES, THIRD)}


@pytest.fixture(scope="module")
def shell(openbao, clusters, tmp_path_factory):
    """The operator's shell, after the whole page: what is tested of it changes nothing."""
    home = tmp_path_factory.mktemp("operator")
    made = Shell(PAGE, home, VAULT_NAMESPACE=openbao.namespace(), VAULT_TOKEN=openbao.token)
    for name, cluster in clusters.items():
        (home / f"{name}.json").write_text(json.dumps(cluster.jwks))
    made.tool("kubectl", KUBECTL.format(folder=home))
    made.tool("helm", f'#!/bin/sh\necho "$@" >> {home}/asked\n')
    walk(made, openbao, "all")
    return made


def walk(shell, openbao, *names):
    """Run blocks of the page, against the test's Vault."""
    text = "\n".join(PAGE.commands[name] for name in names)
    here = text.replace("https://vault.example.com:8200", openbao.address)
    return shell.run(here, {"VAULT_ADDR": openbao.address})


def test_each_cluster_publishes_its_own_ca_under_the_one_root(clusters, shell, tmp_path):
    sets = []
    for name in NAMES:
        values = yaml.safe_load((shell.home / f"out/{name}-values.yaml").read_text())
        deployment = rendered("istiod", values)
        assert faults(deployment) == []
        agent = environment(container(deployment, "certagent"))
        (tmp_path / f"{name}.token").write_text(clusters[name].mint())
        pods = {
            **agent,
            "ROOT_CA_DIR": tmp_path / name,
            "CERTAGENT_VAULT_TOKEN_FILE": tmp_path / f"{name}.token",
        }
        done = certagent("init", **pods)
        assert done.code == 0, done.stderr
        sets.append(published(tmp_path / name))
    one, other = sets
    assert one["root-cert.pem"] == other["root-cert.pem"]
    assert one["ca-cert.pem"] != other["ca-cert.pem"]
    asked = (shell.home.parent / "asked").read_text()
    assert all(f"--kube-context {name} " in asked for name in NAMES)


def test_no_cluster_can_read_anothers_ca(openbao, clusters, shell):
    namespace = shell.environ["VAULT_NAMESPACE"]

    def login(mount, cluster):
        wanted = {"role": "istiod", "jwt": cluster.mint()}
        path = f"auth/kubernetes-{mount}/login"
        answer = openbao.call("POST", path, wanted, token="", namespace=namespace)
        return answer["auth"]["client_token"]

    token = login("cluster1", clusters["cluster1"])
    secret = "kubernetes-cluster2-secrets/data/istiod-service/certs"
    with pytest.raises(OpenBaoError, match="403"):
        openbao.call("GET", secret, token=token, namespace=namespace)
    with pytest.raises(OpenBaoError, match="400"):
        login("cluster2", clusters["cluster1"])


def test_it_can_be_run_again_and_changes_nothing(openbao, shell):
    before = (shell.home / "out/cluster1-values.yaml").read_text()

    again = walk(shell, openbao, "all", "setup")

    assert PAGE.shown["setup"] in again
    assert not re.search(r"^  (made|changed)", again, re.MULTILINE)
    assert (shell.home / "out/cluster1-values.yaml").read_text() == before


def test_a_third_cluster_comes_later_under_the_same_root(openbao, shell):
    root = (shell.home / "out/mesh-ca/root-cert.pem").read_text()

    environ = {"VAULT_ADDR": openbao.address, "IMAGE": "ours:1"}
    shell.run(PAGE.commands["third"], environ)

    assert (shell.home / "out/mesh-ca/root-cert.pem").read_text() == root
    assert (shell.home / f"out/mesh-ca/{THIRD}/root-cert.pem").read_text() == root
    assert (shell.home / f"out/{THIRD}-values.yaml").is_file()


def test_keys_are_for_their_owner_and_not_for_git(shell):
    keys = list(shell.home.glob("out/**/*-key.pem"))
    assert len(keys) >= len(["root", *NAMES])
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    assert "/out/" in (PAGE.home / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("script", ["vault.sh", "ca.sh", "istiod.sh"])
def test_without_a_cluster_a_script_tells_how_it_is_used(shell, script):
    with pytest.raises(AssertionError, match=rf"usage: \./{script} CLUSTER"):
        shell.run(f"./{script}")


def test_every_command_is_run():
    assert PAGE.unmarked == []
