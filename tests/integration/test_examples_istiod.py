"""What examples/istiod says is true: its files are what is printed, and make a pod that works."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import yaml

from tests.support.examples import Page, Shell
from tests.support.istio_charts import container, faults, merged, pod, rendered, validate

PAGE = Page("istiod")
FILES = (
    "values.yaml",
    "values-before-1.29.yaml",
    "kustomize/patch.yaml",
    "kustomize/patch-before-1.29.yaml",
)
KUBECTL = shutil.which("kubectl")


def read(name):
    return (PAGE.home / name).read_text()


def patched(name):
    return merged(rendered("istiod", {}), yaml.safe_load(read(name)))


def by(key, elements):
    """Elements of a list whose order means nothing."""
    return {each[key]: each for each in elements}


@pytest.fixture
def shell(tmp_path):
    """A shell whose `helm` and `kubectl` write down what they are asked."""
    made = Shell(PAGE, tmp_path)
    chart = tmp_path / "istiod.yaml"
    chart.write_text(yaml.safe_dump(rendered("istiod", {})))
    asked = tmp_path / "asked"
    made.tool(
        "helm",
        f'#!/bin/sh\necho "helm $@" >> {asked}\n'
        f'case "$*" in template*) cat {chart} ;; *"-f -"*) cat > {tmp_path}/values ;; esac\n',
    )
    made.tool(
        "kubectl",
        f'#!/bin/sh\necho "kubectl $@" >> {asked}\n'
        f'case "$*" in "apply -f -") cat > {tmp_path}/applied ;; esac\n',
    )
    return made


def test_the_files_are_what_is_printed(shell):
    for name in FILES:
        (shell.home / name).write_text("")

    shell.run(PAGE.commands["print"])

    for name in FILES:
        assert (shell.home / name).read_text() == read(name), name


@pytest.mark.parametrize("name", FILES)
def test_each_makes_a_pod_that_works(name):
    values = yaml.safe_load(read(name))
    deployment = rendered("istiod", values) if name.startswith("values") else patched(name)

    validate(deployment)
    assert faults(deployment) == []
    first = pod(deployment)["initContainers"][0]
    assert first.get("restartPolicy") == (None if "before" in name else "Always")


def test_it_is_installed_from_the_files(shell):
    commands = ("print", "helm", "kustomize")
    shell.run("\n".join(PAGE.commands[name] for name in commands))

    asked = (shell.home.parent / "asked").read_text()
    assert "-f values.yaml" in asked
    assert "apply -k kustomize" in asked
    kustomization = yaml.safe_load(read("kustomize/kustomization.yaml"))
    for named in (*kustomization["resources"], kustomization["patches"][0]["path"]):
        assert (shell.home / "kustomize" / named).is_file()


@pytest.mark.skipif(not KUBECTL, reason="there is no kubectl here, which has kustomize in it")
@pytest.mark.parametrize("name", ["patch.yaml", "patch-before-1.29.yaml"])
def test_kustomize_makes_the_same_of_it_as_the_tests_do(tmp_path, name):
    shutil.copytree(PAGE.home / "kustomize", tmp_path / "it")
    (tmp_path / "it/istiod.yaml").write_text(yaml.safe_dump(rendered("istiod", {})))
    (tmp_path / "it/patch.yaml").write_text(read(f"kustomize/{name}"))

    done = subprocess.run(
        [KUBECTL, "kustomize", tmp_path / "it"],
        env={"KUBECONFIG": "/dev/null", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    deployment = yaml.safe_load(done.stdout)
    ours = patched(f"kustomize/{name}")
    validate(deployment)
    assert faults(deployment) == []
    for each in ("discovery", "certagent"):
        theirs, expected = container(deployment, each), container(ours, each)
        assert by("name", theirs["env"]) == by("name", expected["env"])
        assert by("mountPath", theirs["volumeMounts"]) == by("mountPath", expected["volumeMounts"])


def test_a_configuration_file_and_its_config_map_fit(shell):
    configuration = PAGE.home.parent / "rotation" / "certagent.yaml"
    shutil.copy(configuration, shell.home / "certagent.yaml")

    shell.run(PAGE.commands["file"], {"IMAGE": "ours:1"})

    applied = yaml.safe_load((shell.home.parent / "applied").read_text())
    values = yaml.safe_load((shell.home.parent / "values").read_text())
    deployment = rendered("istiod", values)
    assert applied["data"]["certagent.yaml"] == configuration.read_text()
    assert faults(deployment) == []
    (volume,) = [each for each in pod(deployment)["volumes"] if "configMap" in each][1:]
    assert volume["configMap"]["name"] == applied["metadata"]["name"]


def test_the_other_login_is_printed(shell):
    command = PAGE.commands["print"].partition("certagent overlay")[0] + PAGE.commands["approle"]

    values = yaml.safe_load(shell.run(command))

    secrets = {each["secret"]["secretName"] for each in values["volumes"] if "secret" in each}
    assert secrets == {"vault-login", "vault-ca"}
    assert faults(rendered("istiod", values)) == []


def test_every_command_is_run():
    assert PAGE.unmarked == []
