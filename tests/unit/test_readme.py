"""What the README says is true: blocks parse, tables are complete, names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from certagent.cli.main import VERBS
from certagent.cli.run import DEFAULT_ADDRESS
from certagent.config.decoding import load
from certagent.config.settings import SETTINGS
from certagent.runtime.metrics import FAMILIES
from tests.support.process import certagent

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(marker: str) -> str:
    """The code block whose first line is `# marker`."""
    match = re.search(rf"```yaml\n# {re.escape(marker)}\n(.*?)```", README, re.DOTALL)
    assert match, marker
    return match[1]


def test_the_sample_configuration_is_taken(tmp_path):
    path = tmp_path / "certagent.yaml"
    path.write_text(block("certagent.yaml"))

    config = load(str(path), {})

    assert config.bundles[0].output.directory == "/etc/istio-ca"


@pytest.mark.parametrize("sample", ["gateway.yaml", "istiod-pki.yaml", "azure.yaml"])
def test_the_other_samples_are_taken_too(tmp_path, sample):
    path = tmp_path / sample
    path.write_text(block(sample))

    assert load(str(path), {}).bundles


def test_the_overlay_configures_the_agent_and_mounts_what_it_names():
    overlay = yaml.safe_load(block("overlay.yaml"))
    (agent,) = overlay["initContainers"]
    environ = {each["name"]: each["value"] for each in agent["env"]}

    config = load(None, environ)

    directory = config.bundles[0].output.directory
    assert directory == overlay["env"]["ROOT_CA_DIR"] == overlay["volumeMounts"][0]["mountPath"]
    volumes = {volume["name"] for volume in overlay["volumes"]}
    assert {mount["name"] for mount in agent["volumeMounts"]} == volumes
    assert agent["startupProbe"]["httpGet"]["port"] == int(DEFAULT_ADDRESS.lstrip(":"))
    token = config.vault.auth.token_file
    (mount,) = [each for each in agent["volumeMounts"] if each["name"] == "vault-token"]
    (source,) = overlay["volumes"][1]["projected"]["sources"]
    assert token == f"{mount['mountPath']}/{source['serviceAccountToken']['path']}"
    assert overlay["volumeMounts"][0]["readOnly"] is True


def test_the_overlay_is_what_certagent_overlay_prints():
    overlay = block("overlay.yaml")
    (agent,) = yaml.safe_load(overlay)["initContainers"]
    environ = {each["name"]: each["value"] for each in agent["env"]}

    printed = certagent("overlay", "istiod", "--image", agent["image"], **environ).stdout

    assert printed.split("\n", 1)[1] == overlay


def test_every_setting_is_in_the_table_and_none_that_does_not_exist():
    told = set(re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE))

    assert told == {each.variable for each in SETTINGS} | {"VAULT_TOKEN", "CERTAGENT_CONFIG"}


def test_every_flag_of_a_setting_is_told():
    for setting in SETTINGS:
        if setting.flag:
            (row,) = re.findall(rf"^\| `{setting.variable}` .*$", README, re.MULTILINE)
            assert setting.flag in row


def test_every_metric_is_told_with_its_labels():
    told = set(re.findall(r"^\| `(certagent_\w+\{[\w,]+\})`", README, re.MULTILINE))

    assert told == {f"{each.name}{{{','.join(each.labels)}}}" for each in FAMILIES}


def test_every_exit_code_is_told():
    told = set(re.findall(r"^\| (\d+) \|", README, re.MULTILINE))

    assert told == set(re.findall(r"\b(\d\d)\b", certagent("--help").stdout)) - {"00"}


@pytest.mark.parametrize("command", re.findall(r"`?certagent ((?:\w+ ?)+(?:--[\w-]+ ?)*)", README))
def test_every_verb_and_flag_that_is_named_exists(command):
    verb, *rest = command.split()
    if verb not in VERBS:
        pytest.skip("prose")
    forms = {"root", "intermediate", "istiod", "gateway", "setup"}
    words = [verb, *[word for word in rest if word in forms]]
    shown = certagent(*words, "--help").stdout
    for flag in (word for word in rest if word.startswith("--")):
        assert flag in shown


def test_links_lead_to_files():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (Path(__file__).parents[2] / target).exists(), target


def test_every_verb_is_told():
    for verb in VERBS:
        assert f"certagent {verb}" in README, verb
