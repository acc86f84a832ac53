"""What the gateways' examples say is true: printed files, pods that work, paths that exist."""

from __future__ import annotations

import re

import pytest
import yaml

from certagent.config.decoding import load
from tests.support.examples import Page, Shell
from tests.support.istio_charts import faults, rendered, validate

EXAMPLES = {
    "ingress-gateway": ("values.yaml", "injection-template.yaml"),
    "egress-gateway": ("values.yaml",),
}
OBJECTS = {"ingress-gateway": "gateway.yaml", "egress-gateway": "destinationrule.yaml"}


@pytest.fixture(params=EXAMPLES)
def page(request):
    return Page(request.param)


def test_the_files_are_what_is_printed(page, tmp_path):
    shell = Shell(page, tmp_path)
    names = EXAMPLES[page.home.name]
    for name in names:
        (shell.home / name).write_text("")

    shell.run(page.commands["print"])

    for name in names:
        assert (shell.home / name).read_text() == (page.home / name).read_text()


def test_the_pod_works(page):
    deployment = rendered("gateway", yaml.safe_load((page.home / "values.yaml").read_text()))

    assert not faults(deployment)
    validate(deployment)


def test_the_objects_name_what_is_published(page):
    config = load(str(page.home / "certagent.yaml"), {})
    published = {f"{bundle.output.directory}/current/" for bundle in config.bundles}
    text = (page.home / OBJECTS[page.home.name]).read_text()
    paths = re.findall(
        r"(?:serverCertificate|clientCertificate|privateKey|caCertificates): (\S+)", text
    )

    named = {path.rpartition("/")[0] + "/" for path in paths}

    assert named == published
    assert {path.rpartition("/")[2] for path in paths} == {"tls.crt", "tls.key", "ca.crt"}


def test_the_policy_of_the_page_allows_what_the_agent_reads():
    page = Page("ingress-gateway")
    config = load(str(page.home / "certagent.yaml"), {})
    stored = [bundle.source.vault_kv for bundle in config.bundles if bundle.source.vault_kv]
    issued = [bundle.source.vault_pki for bundle in config.bundles if bundle.source.vault_pki]

    wanted = {f"{kv.mount}/data/{kv.path}" for kv in stored}
    for pki in issued:
        wanted |= {f"{pki.mount}/sign/{pki.role}", f"{pki.mount}/issuers"}
        wanted.add(f"{pki.mount}/issuer/+/json")

    assert set(re.findall(r'^path "([^"]+)"', page.text, re.MULTILINE)) == wanted
