"""The templates that other charts include: what they print, and what they refuse."""

from __future__ import annotations

import re

import helm_python
import pytest
import yaml

from certagent.config.decoding import load
from certagent.kubernetes.istio import GATEWAY, ISTIOD
from tests.support import istio_charts
from tests.support.chart import CHART, rendered
from tests.unit.test_readme import block

LISTS = ("nativeSidecar", "initContainer", "sidecar", "readerMounts", "volumes")


@pytest.fixture
def overlay():
    """The README's overlay for istiod."""
    return yaml.safe_load(block("overlay.yaml"))


def environ(container):
    return {each["name"]: each["value"] for each in container["env"]}


@pytest.mark.parametrize("name", LISTS)
def test_each_prints_a_list_at_column_0(including, name):
    below = including.text().split(f"\n{name}:\n")[1]

    assert below.startswith("- ")
    assert yaml.safe_load(including.text())[name]


# The defaults are the README's overlay.


def test_the_native_sidecar_is_that_of_the_readme(including, overlay):
    (ours,), (theirs,) = including.templates()["nativeSidecar"], overlay["initContainers"]
    added = {"name": "certagent-config", "mountPath": "/etc/certagent-config", "readOnly": True}

    # The chart's configuration is a file.
    assert ours.pop("args") == [
        *theirs.pop("args"),
        "--config",
        f"{added['mountPath']}/certagent.yaml",
    ]
    ours["volumeMounts"].remove(added)
    for each in (ours, theirs):
        del each["env"]
    assert ours == theirs


def test_the_configuration_is_that_of_the_readme(including, overlay, tmp_path):
    (ours,), (theirs,) = including.templates()["nativeSidecar"], overlay["initContainers"]
    file = tmp_path / "certagent.yaml"
    file.write_text(rendered()["ConfigMap/certagent"]["data"]["certagent.yaml"])

    assert load(str(file), environ(ours)) == load(None, environ(theirs))
    multiroot = "ISTIO_MULTIROOT_MESH"
    assert environ(ours)[multiroot] == environ(theirs)[multiroot] == overlay["env"][multiroot]


def test_the_volumes_and_the_readers_mounts_are_those_of_the_readme(including, overlay):
    ours = including.templates()
    (config,) = [each for each in ours["volumes"] if each["name"] == "certagent-config"]

    assert config["configMap"] == {"name": "istiod-certagent"}
    assert [each for each in ours["volumes"] if each != config] == overlay["volumes"]
    assert ours["readerMounts"] == overlay["volumeMounts"]


# What each container is


def test_the_native_sidecar_stays_and_the_others_are_plain(including):
    ours = including.templates()

    assert ours["nativeSidecar"][0]["restartPolicy"] == "Always"
    assert all("restartPolicy" not in ours[name][0] for name in ("initContainer", "sidecar"))


def test_the_init_container_publishes_once_without_probes(including):
    (init,) = including.templates()["initContainer"]

    assert init["name"] == "certagent-init"
    assert init["args"][0] == "init"
    assert not [key for key in init if key.endswith("Probe") or key == "ports"]


def test_a_plain_sidecar_is_ready_when_a_set_is_published(including):
    (sidecar,) = including.templates()["sidecar"]

    assert sidecar["args"][0] == "run"
    assert sidecar["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert sidecar["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_all_containers_are_equally_locked(including):
    ours = including.templates()
    (first, *others) = [ours[name][0]["securityContext"] for name in LISTS[:3]]

    assert first["readOnlyRootFilesystem"] is True
    assert first["capabilities"] == {"drop": ["ALL"]}
    assert first["seccompProfile"] == {"type": "RuntimeDefault"}
    assert others == [first, first]


def test_another_configuration_makes_new_pods(including):
    def digest(**values):
        return environ(including.templates(**values)["nativeSidecar"][0])["CONFIG_SHA256"]

    assert digest() == digest(image={"tag": "0.2.0"})
    assert digest() != digest(config={"refresh": {"interval": "1m"}})


def test_a_digest_wins_over_the_tag(including):
    digest = "sha256:" + "0" * 64

    (container,) = including.templates(image={"digest": digest})["nativeSidecar"]

    assert container["image"] == f"registry.example.com/certagent@{digest}"


def test_on_openshift_the_cluster_chooses_the_user(including):
    none = {"runAsUser": None, "runAsGroup": None}

    (container,) = including.templates(securityContext=none)["nativeSidecar"]

    assert not {"runAsUser", "runAsGroup"} & container["securityContext"].keys()
    assert container["securityContext"]["runAsNonRoot"] is True


def test_probes_ask_at_the_port_that_the_configuration_names(including):
    (container,) = including.templates(config={"server": {"address": ":9443"}})["nativeSidecar"]

    assert container["startupProbe"]["httpGet"] == {"path": "/readyz", "port": 9443}
    assert container["livenessProbe"]["httpGet"]["port"] == 9443
    assert container["ports"][0]["containerPort"] == 9443


def test_further_volumes_are_mounted(including):
    ca = {"name": "vault-ca", "configMap": {"name": "vault-ca"}}
    mount = {"name": "vault-ca", "mountPath": "/etc/vault-ca", "readOnly": True}

    ours = including.templates(extraVolumes=[ca], extraVolumeMounts=[mount])

    assert ca in ours["volumes"]
    assert mount in ours["nativeSidecar"][0]["volumeMounts"]
    assert mount not in ours["readerMounts"]


def test_tokens_are_for_one_audience_and_expire(including):
    token = {"name": "azure-token", "mountPath": "/var/run/secrets/azure/tokens", "path": "token"}
    vault = {"address": "https://vault:8200", "auth": {"tokenFile": f"{token['mountPath']}/token"}}

    ours = including.templates(
        tokens=[{**token, "audience": "api://AzureADTokenExchange", "expirationSeconds": 3600}],
        config={"vault": vault},
    )

    (source,) = ours["volumes"][-1]["projected"]["sources"]
    assert source["serviceAccountToken"] == {
        "path": "token",
        "audience": "api://AzureADTokenExchange",
        "expirationSeconds": 3600,
    }


# What would not work in a pod

AZURE = {
    "name": "a",
    "source": {"azureKeyVault": {}},
    "output": {"directory": "/etc/istio-ca"},
}
BUNDLE = {"name": "a", "source": {"files": {"directory": "/etc/cacerts"}}}
OUTPUT = {"name": "istio-ca", "mountPath": "/etc/istio-ca", "sizeLimit": "1Mi"}
REFUSED = [
    (
        {"config": {"bundles": [{**BUNDLE, "output": {"directory": "/etc/istio-ca2"}}]}},
        r"certagent\.config\.bundles\[0\]\.output\.directory: /etc/istio-ca2 lies on none",
    ),
    (
        {"config": {"vault": {"auth": {"tokenFile": "/tokens/vault"}}}},
        r"certagent\.config\.vault\.auth\.tokenFile: /tokens/vault lies on none",
    ),
    (
        {
            "config": {
                "bundles": [AZURE],
                "azure": {
                    "vaultUrl": "https://mesh-ca.vault.azure.net",
                    "credential": {"method": "workloadIdentity", "tokenFile": "/tokens/azure"},
                },
            }
        },
        r"certagent\.config\.azure\.credential\.tokenFile: /tokens/azure lies on none",
    ),
    (
        {"outputs": [{**OUTPUT, "name": "istio-token"}]},
        r"certagent\.outputs\[0\]\.name: istio-token is a volume of Istio's own",
    ),
    (
        {"outputs": [{**OUTPUT, "name": "vault-token"}]},
        r"certagent\.tokens\[0\]\.name: there is a volume vault-token already",
    ),
    (
        {"extraVolumes": [{"name": "certagent-config", "emptyDir": {}}]},
        r"certagent\.extraVolumes\[0\]\.name: there is a volume certagent-config already",
    ),
    (
        {"extraVolumeMounts": [{"name": "more", "mountPath": "/etc/istio-ca/"}]},
        r"certagent\.extraVolumeMounts\[0\]\.mountPath: something is mounted at /etc/istio-ca",
    ),
    ({"config": {"server": {"address": ""}}}, r"certagent\.config\.server\.address: .*off"),
    (
        {"config": {"server": {"address": "127.0.0.1:9089"}}},
        r"certagent\.config\.server\.address: .*loopback",
    ),
    (
        {"config": {"server": {"address": ":15012"}}},
        r"certagent\.config\.server\.address: Istio's own pods listen at ports such as 15012",
    ),
    *(
        (
            {"config": {"server": {"address": address}}},
            rf"certagent\.config\.server\.address: expected HOST:PORT or :PORT, got {address}",
        )
        for address in ("9089", ":0", ":65536")
    ),
    (
        {"outputs": [{**OUTPUT, "mountPath": "/etc/cacerts"}]},
        r"certagent\.outputs\[0\]\.mountPath: /etc/cacerts meets Istio's own /etc/cacerts",
    ),
    (
        {"outputs": [{**OUTPUT, "mountPath": "/var/run/secrets/istiod"}]},
        r"certagent\.outputs\[0\]\.mountPath: .* meets Istio's own /var/run/secrets/istiod/ca",
    ),
    *(({"image": {"tag": tag}}, r"certagent\.image\.tag: name a tag") for tag in ("", None)),
    ({"tokens": None}, r"certagent\.config\.vault\.auth\.tokenFile: .* lies on none"),
]


@pytest.mark.parametrize(("values", "reason"), REFUSED)
def test_what_would_not_work_in_a_pod_is_refused_with_its_key(including, values, reason):
    with pytest.raises(helm_python.HelmRenderError, match=reason):
        including.text(**values)


def test_a_directory_below_an_output_is_on_its_volume(including):
    bundle = {**BUNDLE, "output": {"directory": "/etc/istio-ca/first"}}

    assert including.templates(config={"bundles": [bundle]})


def test_the_token_of_the_pod_itself_needs_no_volume(including):
    token = "/var/run/secrets/kubernetes.io/serviceaccount/token"

    ours = including.templates(tokens=[], config={"vault": {"auth": {"tokenFile": token}}})

    assert len(ours["volumes"]) == 2


def test_the_token_of_a_login_that_no_bundle_needs_is_not_asked_for(including):
    azure = {"vaultUrl": "https://mesh-ca.vault.azure.net", "credential": "managedIdentity"}

    ours = including.templates(tokens=[], config={"bundles": [AZURE], "azure": azure})

    assert len(ours["volumes"]) == 2


def test_the_names_that_are_refused_are_those_of_istios_volumes():
    (line,) = re.findall(
        r"\$istios := list (\"[a-z].*) -", (CHART / "templates/_helpers.tpl").read_text()
    )

    pods = [istio_charts.pod(istio_charts.rendered(chart, {})) for chart in ("istiod", "gateway")]
    theirs = {volume["name"] for each in pods for volume in each["volumes"]}
    assert set(re.findall(r'"([^"]+)"', line)) == theirs


def test_the_paths_that_are_refused_are_those_of_istios_pods():
    (line,) = re.findall(
        r"\$istios := list (\"/.*) -", (CHART / "templates/_helpers.tpl").read_text()
    )

    assert set(re.findall(r'"([^"]+)"', line)) == ISTIOD.paths | GATEWAY.paths


@pytest.mark.parametrize("name", ["on", "123", "1e3"])
def test_a_name_is_text_whatever_yaml_takes_it_for(including, name):
    token = {
        "name": f"{name}-token",
        "mountPath": "/run/a b #c",
        "path": name,
        "audience": "vault",
        "expirationSeconds": 3600,
    }
    vault = {"auth": {"tokenFile": f"{token['mountPath']}/{name}"}}

    ours = including.templates(
        outputs=[{**OUTPUT, "name": name}],
        tokens=[token],
        config={"vault": vault},
        fullnameOverride=name,
    )

    config, output, projected = ours["volumes"]
    (source,) = projected["projected"]["sources"]
    (container,) = ours["nativeSidecar"]
    mounts = [container["volumeMounts"][0], *ours["readerMounts"]]
    assert [output["name"], *(mount["name"] for mount in mounts)] == [name] * 3
    assert config["configMap"]["name"] == source["serviceAccountToken"]["path"] == name
    assert container["volumeMounts"][-1]["mountPath"] == token["mountPath"]


def test_what_is_optional_may_be_null(including):
    values = {"extraVolumes": None, "extraVolumeMounts": None, "env": None, "resources": None}

    assert including.templates(**values)["nativeSidecar"]


def test_native_sidecars_are_refused_before_kubernetes_1_29(including, capfd):
    """Only Helm's linter can be told another version than its own; it logs what fails."""

    def logged(version):
        helm_python.lint(including.path, kube_version=version)
        return capfd.readouterr().err

    assert "certagent.nativeSidecar needs Kubernetes 1.29 (this is v1.28.9)" in logged("v1.28.9")
    assert "nativeSidecar" not in logged("v1.29.0")


def test_a_chart_without_the_dependency_is_told_so(tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: alone, version: 0.0.0}")
    for path in (CHART / "templates").glob("*.tpl"):
        (tmp_path / "templates" / path.name).write_text(path.read_text())
    (tmp_path / "templates" / "all.yaml").write_text('{{ include "certagent.sidecar" . }}')

    with pytest.raises(helm_python.HelmRenderError, match=r"There is no \.Values\.certagent"):
        helm_python.Chart.load(tmp_path).render({})
