"""Entra ID, Key Vault, IMDS and App Service on loopback: see `server`."""

from tests.support.azure.cli import install_az
from tests.support.azure.entra import Application, FederatedCredential, Tenant
from tests.support.azure.server import AzureCloud, unresolvable
from tests.support.azure.tokens import EXCHANGE, ISTIOD, Issuer
from tests.support.azure.vault import PEM, PKCS12, KeyVault

__all__ = [
    "EXCHANGE",
    "ISTIOD",
    "PEM",
    "PKCS12",
    "Application",
    "AzureCloud",
    "FederatedCredential",
    "Issuer",
    "KeyVault",
    "Tenant",
    "install_az",
    "unresolvable",
]
