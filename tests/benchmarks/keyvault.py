"""certagent at Azure Key Vault, in a pod that knows no other store, beside one at Vault."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks.agents import PATH, certagent, run, vault
from tests.benchmarks.interleaving import interleave
from tests.benchmarks.start import start
from tests.benchmarks.staying import Store, stay
from tests.benchmarks.table import side_by_side
from tests.benchmarks.world import LIFETIME, World
from tests.support.azure import AzureCloud, FederatedCredential, Issuer
from tests.support.material import fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.benchmarks.interleaving import Rounds
    from tests.support.azure import KeyVault

NAME = "mesh"


def measure(world: World, rounds: Rounds) -> str:
    """Return the table of `certagent init` and `run` at Key Vault, and at Vault.

    Key Vault and Entra ID are Python here, and behind a proxy, on the machine that is measured:
    their share of the time is larger than OpenBao's; of CPU and memory they have none.
    """
    access, ca = world.access(PATH), fields(world.new_set())
    world.put(access, ca)
    with AzureCloud(world.authority) as azure:
        key_vault, pod = _pod(world, azure, ca)
        # A poll lists the versions of each secret, and reads none that it has read.
        listed = [f"/secrets/{_name(field)}/versions" for field in ca]

        def asked() -> Counter[str]:
            return Counter(path for _, path, _ in azure.requests(key_vault))

        stores = {
            "at Key Vault": (pod, Store(asked, listed)),
            "at Vault": (vault(access), Store(world.asked, [access.asked])),
        }
        contenders = {
            name: partial(_costs, world, environ, store, rounds)
            for name, (environ, store) in stores.items()
        }
        return side_by_side("certagent", interleave(contenders, rounds.at_most(3)))


def _costs(
    world: World, environ: Mapping[str, str], store: Store, rounds: Rounds
) -> dict[str, float]:
    once = start(partial(certagent, world, environ, "init"))
    job = partial(certagent, world, environ, *run(rounds.every))
    return {**once, **stay(job, store, rounds.interval)}


def _pod(world: World, azure: AzureCloud, ca: Mapping[str, str]) -> tuple[KeyVault, dict[str, str]]:
    """Fill a vault that a workload identity may read; return it, and the pod's environment."""
    tenant, issuer = azure.tenant(), Issuer()
    application = tenant.application(federated=[FederatedCredential(issuer)])
    key_vault = azure.vault(NAME, tenant)
    key_vault.grant(application, "get", "list")
    for field, text in ca.items():
        key_vault.set(_name(field), text)
    token_file = world.directory / "federated-token"
    token_file.write_text(issuer.mint(expires_in=LIFETIME))
    return key_vault, {
        **azure.environment,
        "CERTAGENT_SOURCE": f"azure:{NAME}",
        "AZURE_TENANT_ID": tenant.id,
        "AZURE_CLIENT_ID": application.client_id,
        "AZURE_FEDERATED_TOKEN_FILE": str(token_file),
    }


def _name(field: str) -> str:
    """Return the name in Key Vault of what is this field in Vault."""
    return field.replace("_", "-")
