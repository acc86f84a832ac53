"""A vault, an application that may read it, and sources over the unmodified SDK."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from certagent.config.model import AzureConfig, AzureKeyVaultSource, ClientSecret
from certagent.sources.azure import AzureConnection, KeyVaultSource
from tests.support.azure.operator import SECRET


@pytest.fixture
def tenant(azure):
    return azure.tenant()


@pytest.fixture
def app(tenant):
    return tenant.application(secret=SECRET)


@pytest.fixture
def vault(azure, tenant, app):
    vault = azure.vault("mesh", tenant)
    vault.grant(app, "get", "list")
    return vault


@pytest.fixture
def secret_file(tmp_path):
    path = tmp_path / "client-secret"
    path.write_text(f"{SECRET}\n")
    return path


@pytest.fixture
def config(vault, tenant, app, secret_file):
    login = ClientSecret(tenant_id=tenant.id, client_id=app.client_id, secret_file=str(secret_file))
    return AzureConfig(
        vault_url=vault.url, cloud=tenant.cloud.name, credential=login, request_timeout="20s"
    )


@pytest.fixture
def connect(config):
    """Make a connection, by default the configured one; it is closed at the end."""
    with ExitStack() as opened:

        def connect_(given: AzureConfig = config, **how: object) -> AzureConnection:
            connection = AzureConnection(given, **how)
            opened.callback(connection.close)
            return connection

        yield connect_


@pytest.fixture
def source(connect):
    """Make a source, of the four secrets unless told."""

    def source_(*kind: object, connection: AzureConnection | None = None, **how: object):
        clocks = {name: how.pop(name) for name in ("clock", "now") if name in how}
        given = AzureKeyVaultSource(**how)
        return KeyVaultSource(connection or connect(), given, *kind, **clocks)

    return source_
