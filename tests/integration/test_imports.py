"""Start-up imports only what the configuration needs: a module costs time and memory in a pod."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.azure import FederatedCredential
from tests.support.azure.operator import Pusher, store
from tests.support.gateways import Gateways
from tests.support.injector import annotations, values
from tests.support.material import fields, files, make_leaf, make_root
from tests.support.process import environment

PROBE = """
import os, sys

def listed(code, end=os._exit):
    print("\\n".join(sys.modules), file=open({listing!r}, "w"))
    end(code)

os._exit = listed
from certagent.__main__ import command
command()
"""

AZURE = {"azure", "msal", "typing_extensions"}
"""What the SDK is, and needs: msgspec asks for the last, and does without."""
MSALS = {"http.server"}
"""What MSAL loads of it, for logins with a browser."""

FOREIGN_CLIENTS = {"hvac", "requests", "urllib3"}
"""They would add a third to the time of a start; Azure's SDK brings the latter two."""

OPERATORS_ONLY = {
    "watchfiles",
    "prometheus_client",
    "http.server",
    "asyncio",
    "certagent.config.faults",
    "certagent.material.issuing",
    "certagent.sources.writing",
    "certagent.cli.check",
    "certagent.cli.demo",
    "certagent.kubernetes",
}
GATEWAYS_ONLY = {"certagent.material.serving", "certagent.material.endentity"}


@pytest.fixture
def loaded(tmp_path):
    """Run a verb to its end, and return the modules that it had loaded."""

    def loaded_(*words: object, **environ: object) -> set[str]:
        listing = tmp_path / "modules"
        done = subprocess.run(
            [sys.executable, "-c", PROBE.format(listing=str(listing)), *map(str, words)],
            env=environment(environ),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return set(listing.read_text().splitlines())

    return loaded_


@pytest.fixture
def certs(tmp_path):
    directory = tmp_path / "certs"
    directory.mkdir()
    for name, data in files(make_root().intermediate().raw()).items():
        (directory / name).write_bytes(data)
    return directory


def test_init_from_vault_loads_nothing_of_azure_nor_what_operators_use(loaded, openbao, tmp_path):
    mount = openbao.kv(2)
    openbao.put(mount, "ca", fields(make_root().intermediate().raw()))

    modules = loaded(
        "init",
        VAULT_ADDR=openbao.address,
        VAULT_TOKEN=openbao.token,
        CERTAGENT_SOURCE=f"vault:{mount}/ca",
        ROOT_CA_DIR=tmp_path / "ca",
    )

    assert "certagent.sources.vault" in modules
    assert "certagent.sources.vault.pki" not in modules
    assert not modules & (AZURE | OPERATORS_ONLY | GATEWAYS_ONLY | {"certagent.sources.azure"})
    assert not modules & FOREIGN_CLIENTS
    assert "yaml" not in modules, "the environment needs no YAML"


def test_init_from_a_key_vault_loads_nothing_of_vault_nor_what_operators_use(
    loaded, azure, tmp_path
):
    tenant = azure.tenant()
    app = tenant.application(federated=[FederatedCredential()])
    vault = azure.vault("mesh", tenant)
    vault.grant(app, "get", "list")
    store(vault, make_root().intermediate().raw())
    (tmp_path / "token").write_text(FederatedCredential().issuer.mint())

    modules = loaded(
        "init",
        AZURE_TENANT_ID=tenant.id,
        AZURE_CLIENT_ID=app.client_id,
        AZURE_FEDERATED_TOKEN_FILE=tmp_path / "token",
        CERTAGENT_SOURCE="azure:mesh",
        ROOT_CA_DIR=tmp_path / "ca",
    )

    assert "azure.keyvault.secrets" in modules
    assert not modules & (
        {"hvac", "certagent.sources.vault"} | GATEWAYS_ONLY | OPERATORS_ONLY - MSALS
    )
    assert "yaml" not in modules, "the environment needs no YAML"


def test_a_push_to_a_key_vault_loads_nothing_of_vault(loaded, azure, certs, tmp_path):
    pusher = Pusher(azure.vault("mesh", azure.tenant()), tmp_path)

    modules = loaded("push", "azure:mesh", "--from", certs, **pusher.environ)

    assert "certagent.sources.azure.writing" in modules
    assert not modules & {"hvac", "certagent.sources.vault"}


def test_a_push_to_vault_loads_nothing_of_azure(loaded, openbao, certs):
    login = {"VAULT_ADDR": openbao.address, "VAULT_TOKEN": openbao.token}

    modules = loaded("push", f"vault:{openbao.kv(2)}/ca", "--from", certs, **login)

    assert "certagent.sources.vault.writing" in modules
    assert not modules & (AZURE | {"certagent.sources.azure"})


def test_init_from_a_directory_loads_no_client(loaded, certs, tmp_path):
    modules = loaded("init", CERTAGENT_SOURCE=f"file:{certs}", ROOT_CA_DIR=tmp_path / "ca")

    assert not modules & (AZURE | OPERATORS_ONLY | FOREIGN_CLIENTS | {"yaml"})


def test_a_stop_is_not_missed_while_things_are_loaded(certs, tmp_path):
    """PID 1 would never hear of it: nothing large is loaded before stops are blocked."""
    script = """
import signal, sys
block, sets = signal.pthread_sigmask, []
signal.pthread_sigmask = lambda *given: (sets.append(set(sys.modules)), block(*given))[1]
from certagent.__main__ import command
import os
os._exit = lambda code: print(*sorted(sets[0]), code)
command()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, "init"],
        env=environment({"CERTAGENT_SOURCE": f"file:{certs}", "ROOT_CA_DIR": tmp_path / "ca"}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    *modules, code = done.stdout.split()
    assert code == "0"
    assert "argparse" in modules
    assert not set(modules) & {"msgspec", "logging", "http.client", "cryptography"}


def test_init_of_a_gateway_loads_nothing_of_azure_nor_what_operators_use(loaded, openbao, tmp_path):
    gateways = Gateways(openbao, openbao.kv(2), tmp_path)
    gateways.bundle("ingress")
    gateways.put("ingress", make_leaf().raw())

    modules = loaded("init", "--config", gateways.file, **gateways.environ)

    assert modules >= GATEWAYS_ONLY
    assert not modules & (AZURE | OPERATORS_ONLY | FOREIGN_CLIENTS)


def test_doctor_of_a_vault_loads_nothing_of_azure(loaded, openbao, tmp_path):
    mount = openbao.kv(2)
    openbao.put(mount, "ca", fields(make_root().intermediate().raw()))

    modules = loaded(
        "doctor",
        VAULT_ADDR=openbao.address,
        VAULT_TOKEN=openbao.token,
        CERTAGENT_SOURCE=f"vault:{mount}/ca",
        ROOT_CA_DIR=tmp_path / "ca",
        CERTAGENT_SERVER_ADDRESS="127.0.0.1:0",
    )

    assert "hvac" in modules
    assert not modules & (AZURE | {"certagent.sources.azure", "certagent.sources.vault.pki"})


def test_doctor_of_a_directory_loads_no_client(loaded, certs, tmp_path):
    modules = loaded(
        "doctor",
        VAULT_ADDR="http://127.0.0.1:1",
        VAULT_TOKEN="a-token-that-is-not-used",
        CERTAGENT_SOURCE=f"file:{certs}",
        ROOT_CA_DIR=tmp_path / "ca",
        CERTAGENT_SERVER_ADDRESS="127.0.0.1:0",
    )

    assert not modules & (AZURE | {"hvac"})


def test_check_loads_no_client(loaded, certs):
    modules = loaded("check", certs)

    assert not modules & (AZURE | FOREIGN_CLIENTS | {"watchfiles", "yaml"})


def test_overlay_loads_no_client(loaded):
    modules = loaded(
        "overlay",
        "istiod",
        VAULT_ADDR="https://vault.example.com:8200",
        CERTAGENT_VAULT_ROLE="istiod",
        CERTAGENT_SOURCE="vault:secret/istiod",
    )

    assert "certagent.kubernetes.overlay" in modules
    assert not modules & (AZURE | {"hvac", "requests", "yaml"})


def test_vault_setup_that_is_printed_loads_no_client(loaded):
    modules = loaded(
        "vault", "setup", "--cluster", "a", "--kubernetes-host", "https://a.example.com:6443"
    )

    assert not modules & {"hvac", "requests", "certagent.sources.vault"}


def test_migrate_loads_no_client(loaded, tmp_path):
    file = tmp_path / "values.yaml"
    file.write_text(values(annotations()))

    assert not loaded("migrate", file) & (AZURE | {"hvac", "requests", "watchfiles"})


def test_schema_loads_no_cryptography(loaded):
    assert not loaded("schema") & {"cryptography", "hvac", "requests"}


def test_init_from_a_pki_mount_loads_what_issues_and_nothing_of_azure(loaded, openbao, tmp_path):
    mount = openbao.pki()
    openbao.issuer(mount, "A")
    config = tmp_path / "certagent.yaml"
    config.write_text(
        "bundles:\n"
        "- name: istiod-ca\n"
        f"  source: {{vaultPKI: {{mount: {mount}, ttl: 720h, commonName: Mesh CA}}}}\n"
        f"  output: {{directory: {tmp_path / 'ca'}}}\n"
    )

    modules = loaded(
        "init", "--config", config, VAULT_ADDR=openbao.address, VAULT_TOKEN=openbao.token
    )

    assert "certagent.sources.vault.pki" in modules
    assert not modules & (AZURE | FOREIGN_CLIENTS | OPERATORS_ONLY - {"certagent.material.issuing"})
