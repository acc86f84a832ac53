"""`certagent overlay`: what is printed, and what is not."""

from __future__ import annotations

import pytest
import yaml

from certagent.cli.main import main
from tests.support.istio_charts import container, environment, faults, merged, rendered, validate

SOURCE = "vault:kubernetes-cluster1-secrets/istiod-service/certs"
FILE = """\
# what the mesh has
vault: {address: "https://vault.example.com:8200", auth: {method: jwt, role: ingress}}
bundles:
- name: shop
  kind: tls
  source: {vaultKV: {mount: gateways, path: ingress/shop}}
  output: {directory: /etc/certagent/shop}
"""


@pytest.fixture(autouse=True)
def environ(monkeypatch):
    """The environment of an operator, who has a token of their own."""
    monkeypatch.setenv("VAULT_ADDR", "https://vault.example.com:8200")
    monkeypatch.setenv("VAULT_TOKEN", "hvs.the-operators-own")
    monkeypatch.setenv("CERTAGENT_VAULT_ROLE", "istiod")
    monkeypatch.setenv("CERTAGENT_SOURCE", SOURCE)
    return monkeypatch


@pytest.fixture
def file(tmp_path, environ):
    """A configuration for a gateway."""
    environ.delenv("CERTAGENT_SOURCE")
    path = tmp_path / "certagent.yaml"
    path.write_text(FILE)
    return str(path)


@pytest.fixture
def printed(capsys):
    """Run the verb, and return what it printed, as text and as data."""

    def printed_(*words):
        assert main(["overlay", *words]) == 0
        text = capsys.readouterr().out
        return text, yaml.safe_load(text)

    return printed_


def test_the_environment_is_enough_for_istiod(printed):
    text, values = printed("istiod")

    deployment = rendered("istiod", values)
    assert text.startswith("# For Istio's `istiod` chart 1.24 or newer, on Kubernetes 1.29")
    assert faults(deployment) == []
    assert environment(container(deployment, "discovery"))["ROOT_CA_DIR"] == "/etc/istio-ca"


def test_a_flag_wins_over_the_environment(printed):
    _, values = printed("istiod", "--source", "vault:a/b", "--directory", "/srv/ca")

    assert values["env"]["ROOT_CA_DIR"] == "/srv/ca"
    assert environment(values["initContainers"][0])["CERTAGENT_SOURCE"] == "vault:a/b"


def test_the_operators_own_token_is_in_nothing_that_is_printed(printed, environ):
    environ.delenv("CERTAGENT_VAULT_ROLE")
    environ.setenv("CERTAGENT_VAULT_AUTH_METHOD", "approle")
    environ.setenv("CERTAGENT_VAULT_ROLE_ID_FILE", "/login/role")
    environ.setenv("CERTAGENT_VAULT_SECRET_ID_FILE", "/login/secret")

    text, _ = printed("istiod", "--secret", "/login=vault-login")

    assert "VAULT_TOKEN" not in text
    assert "hvs." not in text


def test_a_token_alone_is_no_login_for_a_pod(environ, capsys):
    environ.setenv("CERTAGENT_VAULT_AUTH_METHOD", "token")
    environ.delenv("CERTAGENT_VAULT_ROLE")

    assert main(["overlay", "istiod"]) == 78

    assert "method token needs tokenFile" in capsys.readouterr().err


def test_an_image_that_nobody_has_is_told(capsys):
    main(["overlay", "istiod"])
    assert "name your image with --image" in capsys.readouterr().err

    main(["overlay", "istiod", "--image", "ours:1"])
    assert capsys.readouterr().err == ""


def test_a_file_comes_as_a_config_map_of_its_own(printed, file):
    text, values = printed("gateway", "--config", file)
    _, resource = printed("gateway", "--config", file, "--config-map", "--namespace", "edge")

    (volume,) = [each for each in values["volumes"] if "configMap" in each]
    assert volume["configMap"]["name"] == resource["metadata"]["name"]
    assert resource["metadata"]["namespace"] == "edge"
    assert resource["data"] == {"certagent.yaml": FILE}
    assert "with --config-map prints its ConfigMap, certagent-istio-ingressgateway" in text
    validate(resource)


def test_a_config_map_needs_a_file(capsys):
    assert main(["overlay", "istiod", "--config-map"]) == 64

    assert "Give it with --config" in capsys.readouterr().err


def test_a_patch_names_the_deployment(printed):
    text, document = printed("istiod", "--kustomize", "--name", "istiod-1-30", "--namespace", "m")

    assert "Deployment istiod-1-30" in text.splitlines()[0]
    assert document["metadata"] == {"name": "istiod-1-30", "namespace": "m"}


def test_a_template_is_taken_by_its_name(printed, file):
    text, values = printed("gateway", "--config", file, "--injection-template", "--istio", "1.24")

    ((name, template),) = values["sidecarInjectorWebhook"]["templates"].items()
    assert f'inject.istio.io/templates: "gateway,{name}"' in text
    deployment = merged(rendered("gateway", {}), {"spec": {"template": yaml.safe_load(template)}})
    assert faults(deployment) == []


def test_istiod_itself_is_not_injected(capsys):
    assert main(["overlay", "istiod", "--injection-template"]) == 64

    assert "--kustomize" in capsys.readouterr().err


def test_a_cluster_without_native_sidecars_is_told_what_it_misses(printed):
    text, _ = printed("istiod", "--kubernetes", "1.28")

    assert "It publishes once. --kustomize prints a patch with a sidecar" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--istio", "new"], "--istio: expected a version such as 1.29, got 'new'"),
        (["--secret", "login=name"], "--secret: expected DIR=NAME"),
        (["--secret", "/login=Name"], "--secret: expected DIR=NAME"),
        (["--namespace", "../x"], "--namespace: '../x' cannot be a resource's name"),
        (["--image", ""], "--image: expected an image such as"),
        (["--image", "a b"], "--image: expected an image such as"),
        (["--istio", "1.23"], "1.24"),
    ],
)
def test_what_cannot_be_meant(words, told, capsys):
    assert main(["overlay", "istiod", *words]) == 64

    said = capsys.readouterr()
    assert told in said.err
    assert said.out == ""


def test_what_does_not_fit_prints_nothing(environ, capsys):
    environ.setenv("ROOT_CA_DIR", "/etc/cacerts")

    assert main(["overlay", "istiod"]) == 78

    said = capsys.readouterr()
    assert "meets Istio's own /etc/cacerts" in said.err
    assert said.out == ""
