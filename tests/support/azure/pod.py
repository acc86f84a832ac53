"""istiod's pod on AKS, whose init container or sidecar certagent is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.support.azure.entra import FederatedCredential
from tests.support.process import certagent, running

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.support.azure.server import AzureCloud
    from tests.support.process import Finished, Running

AGO = timedelta(days=10)


class Pod:
    """What AKS's webhook and a chart's values put into istiod's pod."""

    def __init__(self, azure: AzureCloud, cloud: str, directory: Path) -> None:
        self.azure = azure
        self.tenant = azure.tenant(cloud)
        self.issuer = FederatedCredential().issuer
        self.app = self.tenant.application(federated=[FederatedCredential()])
        self.vault = azure.vault("mesh", self.tenant)
        self.vault.grant(self.app, "get", "list")
        self.token_file = directory / "azure-identity-token"
        self.token_file.write_text(self.issuer.mint())
        self.directory = directory / "istio-ca"
        self.environment = {
            "AZURE_TENANT_ID": self.tenant.id,
            "AZURE_CLIENT_ID": self.app.client_id,
            "AZURE_FEDERATED_TOKEN_FILE": self.token_file,
            "AZURE_AUTHORITY_HOST": f"https://{self.tenant.cloud.authorities[0]}/",
            "CERTAGENT_SOURCE": "azure:mesh",
            "CERTAGENT_AZURE_CLOUD": cloud,
            "ROOT_CA_DIR": self.directory,
            "CERTAGENT_INIT_DEADLINE": "200ms",
        }

    @property
    def start(self) -> datetime:
        """Ten days ago, by the vault's clock."""
        return datetime.fromtimestamp(int(self.azure.clock.now()), UTC) - AGO

    def init(self, **environ: object) -> Finished:
        """Publish once."""
        return certagent("init", **{**self.environment, **environ})

    def run(self, **environ: object) -> AbstractContextManager[Running]:
        """Stay, and poll five times a second."""
        return running(**{**self.environment, "CERTAGENT_INTERVAL": "200ms", **environ})

    @property
    def requests(self) -> list[str]:
        """The paths that the vault was asked for."""
        return [path for _, path, _ in self.azure.requests(self.vault)]
