"""The chart's values: what is refused and where, and what is made of the configuration's types."""

from __future__ import annotations

import json
import re
import shutil

import helm_python
import pytest
import yaml

from certagent import __version__
from certagent.cli.main import main
from certagent.config.decoding import load
from tests.support.chart import (
    CHART,
    README,
    SCHEMA,
    VALUES,
    chart,
    documented,
    rendered,
    schema_text,
    with_table,
)
from tests.support.istio_charts import faults, validate

HOOK = {"kind": "signal", "name": "tell", "process": "pilot-discovery"}


def bundle(**more):
    """The one bundle of a configuration, with something else."""
    source = {"vaultKV": {"mount": "secrets", "path": "certs"}}
    return {"name": "istiod-ca", "source": source, "output": {"directory": "/etc/istio-ca"}, **more}


def configuration(tmp_path, values):
    """What an agent makes of the ConfigMap."""
    path = tmp_path / "certagent.yaml"
    path.write_text(rendered(values)["ConfigMap/certagent"]["data"]["certagent.yaml"])
    return load(str(path), {})


# What is made of something else: `python -m tests.support.chart` renews it.


def test_the_schema_is_that_of_the_configuration_as_it_is_now():
    assert SCHEMA.read_text() == schema_text()


def test_the_readme_has_the_present_table():
    assert README.read_text() == with_table(README.read_text())


def test_every_value_is_explained():
    explained = {path for path, _ in documented()}

    def unexplained(values, path=""):
        for key, value in values.items():
            at = f"{path}.{key}".lstrip(".")
            if at not in explained:
                yield from unexplained(value, at) if isinstance(value, dict) and value else [at]

    assert list(unexplained(yaml.safe_load(VALUES.read_text()))) == []


def test_chart_image_and_package_have_one_version():
    told = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert told["version"] == told["appVersion"] == __version__
    assert chart().values["image"]["tag"] == __version__


# What is taken


def test_the_chart_renders_and_lints_with_its_defaults():
    report = helm_python.lint(CHART, {}, strict=True)

    assert report["errors"] == []
    assert set(rendered()) == {"ConfigMap/certagent"}


def test_the_config_map_is_a_configuration_that_the_agent_takes(tmp_path):
    config = configuration(tmp_path, {})

    assert config.vault.address == "https://vault.example.com:8200"
    assert config.bundles[0].output.directory == "/etc/istio-ca"


def test_null_takes_a_default_out(tmp_path):
    auth = {"method": "cert", "role": None, "tokenFile": None}
    files = {"certFile": str(CHART / "Chart.yaml"), "keyFile": str(CHART / "Chart.yaml")}

    config = configuration(tmp_path, {"config": {"vault": {"auth": {**auth, **files}}}})

    assert config.vault.auth.role == ""


def test_a_hook_says_when_it_runs_with_the_key_in_quotes(tmp_path):
    """Helm reads YAML 1.1, in which a bare `on` is a truth value."""
    text = "config: {bundles: [%s]}"
    quoted = text % json.dumps(bundle(hooks=[{**HOOK, "on": "roots"}]))
    bare = quoted.replace('"on":', "on:")

    config = configuration(tmp_path, helm_python.values_from_yaml(quoted))
    assert config.bundles[0].hooks[0].on == "roots"

    with pytest.raises(helm_python.HelmValuesError, match="/config/bundles/0/hooks/0"):
        rendered(helm_python.values_from_yaml(bare))


@pytest.mark.parametrize("name", ["certagent", "mesh-certagent"])
def test_a_release_whose_name_says_certagent_says_it_once(name):
    assert set(rendered(name=name)) == {f"ConfigMap/{name}"}


def test_another_release_is_named_in_its_resources():
    assert set(rendered(name="mesh")) == {"ConfigMap/mesh-certagent"}


ON = {name: {"enabled": True} for name in ("podMonitor", "prometheusRule", "dashboard")}


@pytest.mark.parametrize("name", ["123", "true"])
def test_a_release_may_have_any_name(name):
    """Labels, names and namespaces are text, whatever YAML takes them for."""
    for made in rendered({**ON, "fullnameOverride": name}, name=name).values():
        told = made["metadata"]
        assert told["name"].startswith(name)
        assert told["labels"]["app.kubernetes.io/instance"] == name


def test_an_operators_label_stands_for_the_charts_own():
    """Once: readers of YAML refuse a key that is there twice."""
    label = "app.kubernetes.io/instance"
    values = {name: {**each, "labels": {label: "prometheus"}} for name, each in ON.items()}

    for name, text in chart().render(values, name="mesh", namespace="istio-system").items():
        if "configmap" not in name:
            assert text.count(label) == 1
            assert yaml.safe_load(text)["metadata"]["labels"][label] == "prometheus"


def test_a_release_named_as_the_readme_says_brings_the_config_map_that_the_overlay_mounts(
    tmp_path, capsys
):
    path = tmp_path / "certagent.yaml"
    path.write_text(rendered()["ConfigMap/certagent"]["data"]["certagent.yaml"])
    assert main(["overlay", "istiod", "--config", str(path)]) == 0

    volumes = yaml.safe_load(capsys.readouterr().out)["volumes"]
    (name,) = [each["configMap"]["name"] for each in volumes if "configMap" in each]
    assert set(rendered(name=name)) == {f"ConfigMap/{name}"}
    assert f"`{name}`" in README.read_text()


# What is refused, with its path

WRONG = [
    ({"config": {"vault": {"adress": "https://vault"}}}, "at '/config/vault'", "adress"),
    ({"config": {"refresh": {"interval": "30"}}}, "at '/config/refresh/interval'", "pattern"),
    ({"config": {"rotation": {"istiod": "maybe"}}}, "at '/config/rotation/istiod'", "hot"),
    ({"config": {"bundles": []}}, "at '/config/bundles'", "minItems"),
    (
        {"config": {"bundles": [bundle(name="Istiod")]}},
        "at '/config/bundles/0/name'",
        "pattern",
    ),
    ({"config": {"vault": {"auth": {"method": "ldap"}}}}, "at '/config/vault/auth/method'", "jwt"),
    ({"config": {"log": {"level": 3}}}, "at '/config/log/level'", "warning"),
    ({"config": None}, "at ''", "config"),
    ({"images": {}}, "at ''", "images"),
    ({"image": {"digest": "sha256:abc"}}, "at '/image/digest'", "pattern"),
    ({"outputs": []}, "at '/outputs'", "minItems"),
    (
        {"outputs": [{"name": "a", "mountPath": "etc", "sizeLimit": "1Mi"}]},
        "at '/outputs/0/mountPath'",
        "pattern",
    ),
    (
        {"tokens": [{"name": "t", "mountPath": "/t", "path": "t", "audience": "vault"}]},
        "at '/tokens/0'",
        "expirationSeconds",
    ),
    (
        {"startupProbe": {"exec": {"command": ["true"]}}},
        "at '/startupProbe/exec'",
        "false schema",
    ),
    ({"podMonitor": {"enabled": "yes"}}, "at '/podMonitor/enabled'", "boolean"),
    ({"podMonitor": {"matchLabels": {"app": None}}}, "at '/podMonitor/matchLabels'", "minProp"),
    ({"podMonitor": {"matchLabels": None}}, "at '/podMonitor'", "matchLabels"),
    ({"podMonitor": {"interval": None}}, "at '/podMonitor'", "interval"),
    ({"prometheusRule": {"clusterLabel": None}}, "at '/prometheusRule'", "clusterLabel"),
    ({"env": [{"name": "A", "value": True}]}, "at '/env/0/value'", "got boolean, want string"),
    (
        {"prometheusRule": {"expiry": [{"days": 0, "severity": "info"}]}},
        "at '/prometheusRule/expiry/0/days'",
        "minimum",
    ),
]


@pytest.mark.parametrize(("values", "path", "reason"), WRONG, ids=[path for _, path, _ in WRONG])
def test_a_wrong_value_is_refused_with_its_path(values, path, reason):
    with pytest.raises(helm_python.HelmValuesError) as refused:
        rendered(values)

    assert path in str(refused.value)
    assert reason in str(refused.value)


def test_values_of_an_including_chart_are_held_to_the_same_schema(including):
    with pytest.raises(helm_python.HelmValuesError, match=r"at '/config/vault'.*adress"):
        including.text(config={"vault": {"adress": "x"}})


# What the README says


def blocks(tmp_path):
    """The README's example as a chart, with certagent's in it."""
    for name, text in re.findall(r"```yaml\n# (\S+)\n(.*?)```", README.read_text(), re.DOTALL):
        path = tmp_path / "ingress" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    shutil.copytree(CHART, tmp_path / "ingress" / "charts" / "certagent")
    return helm_python.Chart.load(tmp_path / "ingress")


def test_the_example_is_a_chart_whose_pods_would_work(tmp_path):
    texts = blocks(tmp_path).render({}, name="ingress", namespace="ingress")
    deployment = yaml.safe_load(texts["ingress/templates/deployment.yaml"])

    assert faults(deployment) == []
    validate(deployment)


def test_the_example_is_a_configuration_that_the_agent_takes(tmp_path):
    texts = blocks(tmp_path).render({}, name="ingress", namespace="ingress")
    (text,) = [
        text for path, text in texts.items() if path.endswith("certagent/templates/configmap.yaml")
    ]
    path = tmp_path / "certagent.yaml"
    path.write_text(yaml.safe_load(text)["data"]["certagent.yaml"])

    (bundle,) = load(str(path), {}).bundles

    assert bundle.kind == "tls"
    assert f"{bundle.output.directory}/current/tls.crt" in README.read_text()


def test_the_example_of_azure_is_taken_by_the_agent_and_by_istiods_pod(tmp_path, including):
    (text,) = re.findall(r"```yaml\n# azure.yaml\n(.*?)```", README.read_text(), re.DOTALL)
    values = yaml.safe_load(text)["certagent"]

    config = configuration(tmp_path, values)
    ours = including.templates(**values)

    assert config.azure.vault_url == "https://mesh-ca.vault.azure.net"
    (token,) = [each for each in ours["volumes"] if each["name"] == "azure-token"]
    mounted = [each["name"] for each in ours["nativeSidecar"][0]["volumeMounts"]]
    assert token["name"] in mounted
    assert "vault-token" not in mounted


def test_every_template_is_told():
    text = "".join(path.read_text() for path in (CHART / "templates").glob("*.tpl"))
    defined = set(re.findall(r'define "(certagent\.\w+)"', text))
    told = set(re.findall(r"^\| `(certagent\.\w+)` \|", README.read_text(), re.MULTILINE))

    wanted = {"nativeSidecar", "initContainer", "sidecar", "readerMounts", "volumes"}
    assert told == {f"certagent.{each}" for each in wanted} <= defined


def test_every_alert_is_told_with_its_severity():
    rows = re.findall(
        r"^\| (`Certagent.*?) \| .* \| ([\w, ]+) \|$", README.read_text(), re.MULTILINE
    )
    told = {
        (name, severity)
        for names, severities in rows
        for name, severity in zip(
            re.findall(r"`(\w+)`", names), severities.split(", "), strict=True
        )
    }
    issued = bundle(source={"vaultPKI": {"mount": "pki", "commonName": "CA", "ttl": "48h"}})
    values = {"prometheusRule": {"enabled": True}, "config": {"bundles": [issued]}}
    (group,) = rendered(values)["PrometheusRule/certagent"]["spec"]["groups"]

    assert told == {(rule["alert"], rule["labels"]["severity"]) for rule in group["rules"]}


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", README.read_text()):
        assert (CHART / target).exists(), target
