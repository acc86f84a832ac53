"""The agent in pods shaped like Istio's: every form of an overlay gives one that works."""

from __future__ import annotations

import pytest
import yaml

from certagent.config.decoding import load
from certagent.errors import ConfigurationError, UsageError
from certagent.kubernetes.istio import GATEWAY, ISTIOD, Version, version
from certagent.kubernetes.options import Options
from certagent.kubernetes.overlay import (
    config_map,
    gateway_values,
    injection_template,
    istiod_values,
    patch,
)
from certagent.kubernetes.volumes import AZURE_TOKEN_FILE
from tests.support.istio_charts import (
    READERS,
    container,
    covering,
    environment,
    faults,
    merged,
    pod,
    rendered,
    validate,
)

ENVIRON = {
    "VAULT_ADDR": "https://vault.example.com:8200",
    "ROOT_CA_DIR": "/etc/istio-ca",
    "CERTAGENT_SOURCE": "vault:kubernetes-cluster1-secrets/istiod-service/certs",
    "CERTAGENT_VAULT_AUTH_MOUNT": "kubernetes-cluster1",
    "CERTAGENT_VAULT_ROLE": "istiod",
    "CERTAGENT_VAULT_TOKEN_FILE": "/var/run/secrets/vault/vault",
}
APPROLE = {
    **ENVIRON,
    "CERTAGENT_VAULT_AUTH_METHOD": "approle",
    "CERTAGENT_VAULT_ROLE": "",
    "CERTAGENT_VAULT_TOKEN_FILE": "",
    "CERTAGENT_VAULT_ROLE_ID_FILE": "/etc/approle/role-id",
    "CERTAGENT_VAULT_SECRET_ID_FILE": "/etc/approle/secret-id",
}
OLD = Version(1, 28)
"""A Kubernetes without native sidecars."""


def istiod_chart(config, environ, options):
    return rendered("istiod", istiod_values(config, environ, options))


def gateway_chart(config, environ, options):
    return rendered("gateway", gateway_values(config, environ, options))


def istiod_patch(config, environ, options):
    where = {"name": "istiod", "namespace": "istio-system"}
    return merged(rendered("istiod", {}), patch(ISTIOD, config, environ, options, **where))


def gateway_patch(config, environ, options):
    where = {"name": "ingress", "namespace": "istio-ingress"}
    return merged(rendered("gateway", {}), patch(GATEWAY, config, environ, options, **where))


def injected(config, environ, options):
    template = injection_template(config, environ, options)
    return merged(rendered("gateway", {}), {"spec": {"template": template}})


FORMS = {
    form.__name__: (form, reader)
    for form, reader in (
        (istiod_chart, "istiod"),
        (istiod_patch, "istiod"),
        (gateway_chart, "gateway"),
        (gateway_patch, "gateway"),
        (injected, "gateway"),
    )
}


CONFIGURATION = """\
vault:
  address: https://vault.example.com:8200
  auth: {method: jwt, role: istiod, tokenFile: /var/run/secrets/vault/vault}
bundles:
- name: istiod-ca
  source: {vaultKV: {mount: secret, path: istiod}}
  output: {directory: /etc/istio-ca}
"""
CERTIFICATES = """\
vault:
  address: https://vault.example.com:8200
  auth: {method: kubernetes, role: ingress, tokenFile: /var/run/secrets/vault/vault}
bundles:
- name: shop
  kind: tls
  source: {vaultKV: {mount: gateways, path: ingress/shop}}
  output: {directory: /etc/certagent/shop}
- name: partners
  kind: tls
  source: {vaultKV: {mount: gateways, path: ingress/partners}}
  output: {directory: /etc/certagent/partners}
"""
DIRECTORIES = {"istiod": "/etc/istio-ca", "gateway": "/etc/certagent/partners"}


@pytest.fixture
def made(tmp_path):
    """Make the Deployment that a form gives: for istiod of the environment, or of a file's text."""

    def made_(form, environ=None, text="", **options):
        environ = {} if environ is None and text else ENVIRON if environ is None else environ
        if FORMS[form][1] == "gateway":
            environ, text = {**environ, **NO_CA}, text or CERTIFICATES
        path = tmp_path / "certagent.yaml"
        path.write_text(text)
        if text:
            options.setdefault("config_map", "ours")
        config = load(str(path) if text else None, environ, here=False)
        return FORMS[form][0](config, environ, Options(**options))

    return made_


NO_CA = {"CERTAGENT_SOURCE": "", "ROOT_CA_DIR": ""}
"""A gateway has none, and the environment describes nothing else."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kubernetes", ["1.28", "1.29"])
class TestEveryForm:
    def test_the_pod_is_valid_and_nothing_clashes(self, made, form, kubernetes):
        deployment = made(form, kubernetes=version(kubernetes))

        validate(deployment)
        assert faults(deployment) == []

    def test_it_starts_first_and_the_reader_may_only_read(self, made, form, kubernetes):
        deployment = made(form, kubernetes=version(kubernetes))

        agent = pod(deployment)["initContainers"][0]
        reader = container(deployment, READERS[FORMS[form][1]])
        directory = DIRECTORIES[FORMS[form][1]]
        ours, theirs = (covering(each, directory) for each in (agent, reader))
        assert agent["name"].startswith("certagent")
        assert ours["name"] == theirs["name"]
        assert (ours.get("readOnly", False), theirs["readOnly"]) == (False, True)

    def test_the_token_is_projected_where_it_is_looked_for(self, made, form, kubernetes):
        deployment = made(form, kubernetes=version(kubernetes))

        agent = pod(deployment)["initContainers"][0]
        mount = covering(agent, ENVIRON["CERTAGENT_VAULT_TOKEN_FILE"])
        (volume,) = [each for each in pod(deployment)["volumes"] if each["name"] == mount["name"]]
        (source,) = volume["projected"]["sources"]
        assert (mount["mountPath"], mount["readOnly"]) == ("/var/run/secrets/vault", True)
        assert source["serviceAccountToken"] == {
            "path": "vault",
            "audience": "vault",
            "expirationSeconds": 3600,
        }

    def test_it_may_do_nothing_that_it_need_not(self, made, form, kubernetes):
        agent = pod(made(form, kubernetes=version(kubernetes)))["initContainers"][0]

        assert agent["securityContext"] == {
            "runAsUser": 1337,
            "runAsGroup": 1337,
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }

    def test_on_openshift_the_namespace_says_who_it_is(self, made, form, kubernetes):
        agent = pod(made(form, kubernetes=version(kubernetes), openshift=True))["initContainers"][0]

        assert not {"runAsUser", "runAsGroup"} & agent["securityContext"].keys()
        assert agent["securityContext"]["runAsNonRoot"] is True

    def test_a_configuration_file_is_mounted_and_named(self, made, form, kubernetes):
        text = CONFIGURATION if FORMS[form][1] == "istiod" else CERTIFICATES
        deployment = made(form, None, text, kubernetes=version(kubernetes))

        validate(deployment)
        agent = pod(deployment)["initContainers"][0]
        flag, where = agent["args"][1:]
        mount = covering(agent, where)
        (volume,) = [each for each in pod(deployment)["volumes"] if each["name"] == mount["name"]]
        assert (flag, volume["configMap"], mount["readOnly"]) == (
            "--config",
            {"name": "ours"},
            True,
        )
        resource = config_map(text, name="ours", namespace="istio-system")
        validate(resource)
        assert where == f"{mount['mountPath']}/{next(iter(resource['data']))}"
        assert faults(deployment) == []


@pytest.mark.parametrize("form", FORMS)
class TestTheSidecar:
    def test_it_is_native_and_its_reader_waits_for_the_first_set(self, made, form):
        agent = container(made(form), "certagent")

        assert (agent["args"][0], agent["restartPolicy"]) == ("run", "Always")
        assert agent["startupProbe"]["httpGet"] == {"path": "/readyz", "port": 9089}
        assert agent["livenessProbe"]["httpGet"] == {"path": "/livez", "port": 9089}

    def test_the_probes_follow_the_server_and_the_deadline(self, made, form):
        environ = {"CERTAGENT_SERVER_ADDRESS": ":9999", "CERTAGENT_INIT_DEADLINE": "90s"}

        agent = container(made(form, {**ENVIRON, **environ}), "certagent")

        assert agent["ports"] == [{"name": "certagent", "containerPort": 9999, "protocol": "TCP"}]
        assert agent["startupProbe"]["httpGet"]["port"] == 9999
        assert agent["startupProbe"]["failureThreshold"] == 90
        assert agent["livenessProbe"]["httpGet"]["port"] == 9999


class TestBeforeNativeSidecars:
    def test_istiods_chart_has_an_init_container_alone(self, made):
        deployment = made("istiod_chart", kubernetes=OLD)

        agent = container(deployment, "certagent")
        assert agent["args"] == ["init"]
        assert not {"restartPolicy", "startupProbe", "livenessProbe"} & agent.keys()

    @pytest.mark.parametrize("form", sorted(FORMS.keys() - {"istiod_chart"}))
    def test_elsewhere_a_second_container_stays(self, made, form):
        deployment = made(form, kubernetes=OLD)

        assert container(deployment, "certagent-init")["args"][0] == "init"
        sidecar = container(deployment, "certagent")
        assert (sidecar["args"][0], "restartPolicy" in sidecar) == ("run", False)
        assert sidecar in pod(deployment)["containers"]


class TestIstiod:
    @pytest.mark.parametrize("form", ["istiod_chart", "istiod_patch"])
    @pytest.mark.parametrize("environ", [ENVIRON, APPROLE])
    def test_the_agent_of_its_pod_has_the_configuration_that_was_meant(self, made, form, environ):
        deployment = made(form, environ, secrets={"/etc/approle": "vault-approle"})

        agent = container(deployment, "certagent")
        assert load(None, environment(agent)) == load(None, environ)

    def test_it_reads_where_the_agent_publishes(self, made):
        deployment = made("istiod_chart", {**ENVIRON, "ROOT_CA_DIR": "/srv/ca/"})

        reader = container(deployment, "discovery")
        assert environment(reader)["ROOT_CA_DIR"] == "/srv/ca"
        assert covering(reader, "/srv/ca")["mountPath"] == "/srv/ca"

    @pytest.mark.parametrize(
        ("environ", "told"),
        [
            ({}, True),
            ({"ISTIO_MULTIROOT_MESH": "true"}, True),
            ({"ISTIO_MULTIROOT_MESH": "false"}, False),
            ({"ISTIO_MULTIROOT_MESH": "false", "CERTAGENT_ISTIOD": "hot"}, True),
            ({"CERTAGENT_ISTIOD": "hold"}, False),
        ],
    )
    def test_it_and_the_agent_are_told_the_same_of_new_roots(self, made, environ, told):
        deployment = made("istiod_chart", {**ENVIRON, **environ})

        for name in ("discovery", "certagent"):
            found = environment(container(deployment, name)).get("ISTIO_MULTIROOT_MESH")
            assert found == ("true" if told else None)

    def test_its_own_secret_can_be_the_fallback(self, made):
        fallback = "  fallback: {files: {directory: /etc/cacerts}}\n"

        deployment = made("istiod_chart", None, CONFIGURATION + fallback)

        mount = covering(container(deployment, "certagent"), "/etc/cacerts/ca-key.pem")
        (volume,) = [each for each in pod(deployment)["volumes"] if each["name"] == mount["name"]]
        assert volume["secret"] == {"secretName": "cacerts", "optional": True}
        assert faults(deployment) == []


class TestGateway:
    def test_it_is_told_nothing_of_istiods(self, made):
        for form in ("gateway_chart", "gateway_patch", "injected"):
            names = environment(container(made(form), "istio-proxy"))
            assert not {"ROOT_CA_DIR", "ISTIO_MULTIROOT_MESH"} & names.keys()

    @pytest.mark.parametrize(
        ("directories", "mounted"),
        [
            (["/etc/certagent/a", "/etc/certagent/b"], ["/etc/certagent"]),
            (["/etc/certagent/a"], ["/etc/certagent/a"]),
            (["/etc/a", "/etc/b"], ["/etc/a", "/etc/b"]),
        ],
    )
    def test_directories_that_lie_together_share_a_volume(self, made, directories, mounted):
        bundle = (
            "- {name: b%d, kind: tls, source: {vaultKV: {mount: m, path: p}},"
            " output: {directory: %s}}\n"
        )
        vault = "vault: {address: 'https://v', auth: {method: jwt, role: r}}\nbundles:\n"
        text = vault + "".join(bundle % each for each in enumerate(directories))

        deployment = made("gateway_chart", None, text)

        reader = container(deployment, "istio-proxy")
        names = [f"gateway-tls{suffix}" for suffix in ("", "-2")[: len(mounted)]]
        ours = [each for each in reader["volumeMounts"] if each["name"] in names]
        assert [each["mountPath"] for each in ours] == mounted
        assert faults(deployment) == []


class TestLogins:
    def test_the_pods_own_token_is_replaced_by_one_for_vault_alone(self, made):
        environ = {**ENVIRON, "CERTAGENT_VAULT_TOKEN_FILE": ""}

        agent = container(made("istiod_chart", environ), "certagent")

        where = environment(agent)["CERTAGENT_VAULT_TOKEN_FILE"]
        assert covering(agent, where)["name"] == "vault-token"

    def test_without_an_audience_it_is_the_pods_own_token(self, made):
        environ = {**ENVIRON, "CERTAGENT_VAULT_TOKEN_FILE": ""}

        deployment = made("istiod_chart", environ, audience="")

        agent = container(deployment, "certagent")
        assert "CERTAGENT_VAULT_TOKEN_FILE" not in environment(agent)
        assert "vault-token" not in {each["name"] for each in pod(deployment)["volumes"]}

    def test_elsewhere_it_is_a_token_for_the_api_server(self, made):
        deployment = made("istiod_chart", audience="")

        (volume,) = [each for each in pod(deployment)["volumes"] if each["name"] == "vault-token"]
        assert volume["projected"]["sources"] == [
            {"serviceAccountToken": {"path": "vault", "expirationSeconds": 3600}}
        ]

    def test_files_of_a_login_come_from_the_secret_that_is_named(self, made):
        deployment = made("istiod_chart", APPROLE, secrets={"/etc/approle": "vault-approle"})

        validate(deployment)
        mount = covering(container(deployment, "certagent"), "/etc/approle/secret-id")
        (volume,) = [each for each in pod(deployment)["volumes"] if each["name"] == mount["name"]]
        assert volume["secret"] == {"secretName": "vault-approle"}
        assert mount["readOnly"] is True
        assert faults(deployment) == []

    def test_each_directory_has_its_secret(self, made):
        environ = {**APPROLE, "VAULT_CACERT": "/etc/vault-ca/ca.pem"}
        secrets = {"/etc/approle/": "one", "/etc/vault-ca": "two"}

        deployment = made("istiod_chart", environ, secrets=secrets)

        volumes = {each["name"]: each for each in pod(deployment)["volumes"]}
        assert volumes["certagent-files"]["secret"] == {"secretName": "one"}
        assert volumes["certagent-files-2"]["secret"] == {"secretName": "two"}


class TestAzure:
    IDENTITY = "00000000-0000-0000-0000-000000000000"

    @pytest.fixture
    def environ(self):
        return {
            "CERTAGENT_SOURCE": "azure:mesh-ca",
            "ROOT_CA_DIR": "/etc/istio-ca",
            "AZURE_TENANT_ID": self.IDENTITY,
            "AZURE_CLIENT_ID": self.IDENTITY,
            "AZURE_FEDERATED_TOKEN_FILE": AZURE_TOKEN_FILE,
        }

    def test_a_workload_identitys_token_is_projected_without_akss_webhook(self, made, environ):
        deployment = made("istiod_chart", environ)

        validate(deployment)
        agent = container(deployment, "certagent")
        mount = covering(agent, environment(agent)["AZURE_FEDERATED_TOKEN_FILE"])
        (volume,) = [each for each in pod(deployment)["volumes"] if each["name"] == mount["name"]]
        (source,) = volume["projected"]["sources"]
        assert source["serviceAccountToken"]["audience"] == "api://AzureADTokenExchange"
        assert environment(agent) == {**environ, "ISTIO_MULTIROOT_MESH": "true"}
        assert faults(deployment) == []

    def test_a_machines_identity_needs_no_file(self, made, environ):
        deployment = made(
            "istiod_chart", {**environ, "CERTAGENT_AZURE_CREDENTIAL": "managedIdentity"}
        )

        names = {each["name"] for each in container(deployment, "certagent")["volumeMounts"]}
        assert names == {"istio-ca"}

    def test_an_applications_secret_comes_from_the_secret_that_is_named(self, made, environ):
        login = {
            "CERTAGENT_AZURE_CREDENTIAL": "clientSecret",
            "CERTAGENT_AZURE_TENANT_ID": self.IDENTITY,
            "CERTAGENT_AZURE_CLIENT_ID": self.IDENTITY,
            "CERTAGENT_AZURE_SECRET_FILE": "/etc/azure/secret",
        }

        deployment = made("istiod_chart", environ | login, secrets={"/etc/azure": "azure-login"})

        mount = covering(container(deployment, "certagent"), "/etc/azure/secret")
        (volume,) = [each for each in pod(deployment)["volumes"] if each["name"] == mount["name"]]
        assert volume["secret"] == {"secretName": "azure-login"}


class TestRefused:
    @pytest.mark.parametrize(
        ("form", "istio", "instead"),
        [
            ("istiod_chart", "1.23", "--kustomize"),
            ("gateway_chart", "1.26", "--injection-template"),
            ("istiod_patch", "1.19", "Update Istio"),
            ("injected", "1.19", "Update Istio"),
        ],
    )
    def test_a_version_that_cannot_do_it_and_what_can(self, made, form, istio, instead):
        with pytest.raises(UsageError, match=istio) as refused:
            made(form, istio=version(istio))

        assert instead in refused.value.hint

    @pytest.mark.parametrize(
        "environ",
        [
            {"ROOT_CA_DIR": "/etc/cacerts"},
            {"ROOT_CA_DIR": "/var/run/secrets/tokens/ca"},
            {"ROOT_CA_DIR": "/var/run"},
            {"ROOT_CA_DIR": "ca"},
            {"ROOT_CA_DIR": "/"},
            {"ROOT_CA_DIR": "/var/run/secrets/vault"},
            {"ROOT_CA_DIR": "/var/run/secrets/kubernetes.io/serviceaccount"},
            {"ROOT_CA_DIR": "/etc/istio:ca"},
            {"VAULT_CACERT": "/etc/vault/ca.pem"},
            {"CERTAGENT_SOURCE": "file:/somewhere"},
            {"CERTAGENT_SERVER_ADDRESS": ":15014"},
            {"CERTAGENT_SERVER_ADDRESS": "127.0.0.1:9089"},
            {"CERTAGENT_SERVER_ADDRESS": "[::1]:9089"},
        ],
    )
    def test_what_does_not_fit_into_istiods_pod(self, made, environ):
        with pytest.raises(ConfigurationError) as refused:
            made("istiod_chart", {**ENVIRON, **environ})

        assert len(refused.value.faults) == 1

    def test_a_server_that_is_switched_off(self, made):
        with pytest.raises(ConfigurationError, match="switched off"):
            made("istiod_chart", None, CONFIGURATION + "server: {address: ''}\n")

    def test_the_key_of_a_mesh_in_a_gateways_pod(self, made):
        with pytest.raises(ConfigurationError, match="must not be in a gateway's pod"):
            made("gateway_chart", None, CONFIGURATION)

    def test_two_cas_for_one_istiod(self, made):
        text = yaml.safe_load(CONFIGURATION)
        (bundle,) = text["bundles"]
        text["bundles"].append({**bundle, "name": "other", "output": {"directory": "/srv/ca"}})

        with pytest.raises(ConfigurationError, match="2 are of kind ca"):
            made("istiod_chart", None, yaml.safe_dump(text))

    def test_all_faults_are_told_at_once(self, made):
        environ = {**APPROLE, "ROOT_CA_DIR": "/etc/cacerts", "CERTAGENT_SERVER_ADDRESS": ":8080"}

        with pytest.raises(ConfigurationError, match="4 faults") as refused:
            made("istiod_chart", environ)

        assert "vault.auth.roleIdFile: name the Secret" in str(refused.value)
        assert "--secret /etc/approle=NAME" in str(refused.value)

    @pytest.mark.parametrize("form", ["istiod_chart", "gateway_chart"])
    def test_a_hook_that_signals_needs_what_a_chart_cannot_give(self, made, form):
        hook = "  hooks: [{kind: signal, name: tell, process: pilot-discovery}]\n"
        text = (CONFIGURATION if form == "istiod_chart" else CERTIFICATES) + hook

        with pytest.raises(UsageError, match="share the pod's processes"):
            made(form, None, text)

        patched = made(form.replace("chart", "patch"), None, text)
        assert pod(patched)["shareProcessNamespace"] is True
        validate(patched)

    @pytest.mark.parametrize("form", ["istiod_chart", "injected"])
    def test_what_istio_would_take_for_a_template(self, made, form):
        with pytest.raises(UsageError, match=r"CERTAGENT_VAULT_ROLE contains \{\{"):
            made(form, {**ENVIRON, "CERTAGENT_VAULT_ROLE": "{{ .Release.Name }}"})
        with pytest.raises(UsageError, match=r"--audience contains \{\{"):
            made(form, audience="{{ .Values.audience }}")


class TestVersions:
    @pytest.mark.parametrize("text", ["1.29", "v1.29", "1.29.3", "v1.29.3-gke.1", "1.29.3+k3s1"])
    def test_versions_are_read_as_people_write_them(self, text):
        assert version(text) == (1, 29)
        assert str(version(text)) == "1.29"

    @pytest.mark.parametrize("text", ["", "1", "1.x", "one", "1.29.", "latest"])
    def test_what_is_none(self, text):
        with pytest.raises(ValueError, match=r"such as 1\.29"):
            version(text)
