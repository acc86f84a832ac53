"""What examples/azure-aks says is true: its values are printed, its commands store and rotate."""

from __future__ import annotations

import json
import re
import sys

import pytest
import yaml

from certagent.config.clouds import CLOUDS
from certagent.config.decoding import load
from tests.support.azure.operator import SECRETS
from tests.support.azure.pod import Pod
from tests.support.examples import Page, Shell
from tests.support.istio_charts import container, environment, faults, pod, rendered, validate
from tests.support.process import certagent, published

PAGE = Page("azure-aks")
VALUES = yaml.safe_load((PAGE.home / "values.yaml").read_text())

_AZ = """\
#!{python}
import json, sys
from azure.core.credentials import AccessTokenInfo
from azure.keyvault.secrets import SecretClient

class Login:
    def get_token_info(self, *scopes, options=None):
        return AccessTokenInfo({token!r}, 1 << 40)

words = sys.argv[1:]
if words[:2] == ["account", "get-access-token"]:
    told = {{"accessToken": {token!r}, "expires_on": 1 << 40, "tenant": "t", "tokenType": "Bearer"}}
    print(json.dumps(told))
elif words[:3] == ["keyvault", "secret", "set"]:
    given = dict(zip(words[3::2], words[4::2]))
    vault = f"https://{{given['--vault-name']}}.vault.azure.net"
    SecretClient(vault, Login()).set_secret(given["--name"], open(given["--file"]).read())
else:
    sys.exit(f"az {{words}}")
"""


@pytest.fixture
def aks(azure, tmp_path):
    """The pod of the page, with its vault's name."""
    made = Pod(azure, "public", tmp_path)
    made.vault = azure.vault("mesh-ca", made.tenant)
    made.vault.grant(made.app, "get", "list")
    made.environment["CERTAGENT_SOURCE"] = "azure:mesh-ca"
    return made


@pytest.fixture
def shell(aks, tmp_path):
    """The shell of an operator who has logged in with `az`."""
    operator = aks.tenant.application()
    aks.vault.grant(operator, "get", "list", "set")
    token = aks.azure.issued.issue(operator, aks.tenant.cloud.resource).value
    made = Shell(PAGE, tmp_path, **aks.azure.environment)
    made.tool("az", _AZ.format(python=sys.executable, token=token))
    return made


def test_the_values_are_what_is_printed(shell):
    (shell.home / "values.yaml").write_text("")

    shell.run(PAGE.commands["print"])

    assert (shell.home / "values.yaml").read_text() == (PAGE.home / "values.yaml").read_text()


def test_the_pod_works_and_its_token_is_where_the_agent_looks():
    deployment = rendered("istiod", VALUES)

    assert not faults(deployment)
    validate(deployment)
    agent = container(deployment, "certagent")
    config = load(None, environment(agent))
    (mount,) = [each for each in agent["volumeMounts"] if "azure" in each["mountPath"]]
    (volume,) = [each for each in pod(deployment)["volumes"] if each["name"] == mount["name"]]
    (source,) = volume["projected"]["sources"]
    projected = source["serviceAccountToken"]
    assert config.azure.login.token_file == f"{mount['mountPath']}/{projected['path']}"
    assert f"--audiences {projected['audience']}" in PAGE.text


def test_the_commands_of_the_page_store_rotate_and_store_by_hand(shell, aks):
    operator = PAGE.commands["operator"]

    first = shell.run(operator + PAGE.commands["first"])
    assert "is stored, and was read back" in first
    assert aks.init().code == 0
    assert published(aks.directory) == _files(shell.home / "mesh-ca/cluster1")

    second = shell.run(operator + PAGE.commands["rotate"])
    assert second.count("distribute  signer version") == 2, "push and plan say so"
    assert set(aks.vault.live) == set(SECRETS.values())

    shell.run(operator + PAGE.commands["by-hand"])
    done = certagent("plan", "azure:mesh-ca", "--format", "json", **aks.environment)
    history = json.loads(done.stdout)[0]["history"]
    assert history[-1]["good"], "the whole set is the newest"
    assert aks.vault.version("ca-key").tags is None

    one = shell.run(operator + PAGE.commands["one-secret"])
    assert "azure:mesh-ca/cluster1: version" in one
    assert set(json.loads(aks.vault.version("cluster1").value)) >= {"ca_key", "root_cert"}


def _files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_file_of_the_page_is_taken(tmp_path):
    path = tmp_path / "certagent.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", PAGE.text, re.DOTALL)[1])

    config = load(str(path), {})

    assert [bundle.name for bundle in config.bundles] == ["istiod-ca", "shop"]


def test_the_clouds_of_the_page_are_all_there_are():
    told = re.findall(
        r"^\| `(\w+)`[^|]*\| (login\S+) \| `<name>\.(\S+)` \|", PAGE.text, re.MULTILINE
    )

    assert told == [
        (name, cloud.authorities[0], cloud.vault_suffix) for name, cloud in CLOUDS.items()
    ]
