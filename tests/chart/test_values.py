"""The chart's values: what is refused and where, and what is made of the configuration's types."""

from __future__ import annotations

import json
import re

import helm_python
import pytest
import yaml

from certagent import __version__
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


def test_every_template_that_the_readme_names_exists():
    text = "".join(path.read_text() for path in (CHART / "templates").glob("*.tpl"))
    defined = set(re.findall(r'define "(certagent\.\w+)"', text))
    named = set(re.findall(r"`?(certagent\.[a-z]\w+)`?", README.read_text())) - {"certagent.yaml"}

    wanted = {"nativeSidecar", "initContainer", "sidecar", "readerMounts", "volumes"}
    assert {f"certagent.{each}" for each in wanted} <= named
    assert {each for each in named if each.split(".")[1] not in chart().values} <= defined


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", README.read_text()):
        assert (CHART / target).exists(), target
