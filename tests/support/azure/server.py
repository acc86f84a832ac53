"""Azure on loopback, for the unmodified SDK: real host names, real TLS, behind a forward proxy.

    with AzureCloud(tls) as azure:              # or the fixture `azure`, which sets the environment
        tenant = azure.tenant()                 # "china", "usGovernment"
        app = tenant.application(secret="...")  # certificate=..., federated=[FederatedCredential()]
        vault = azure.vault("mesh", tenant)
        vault.grant(app, "get", "list")
        vault.set("ca-key", key_pem)
        azure.faults.inject(answers(503), path="/secrets/ca-key")

Names are the proxy's to resolve: it answers a CONNECT to a host that does not exist with 503, as
forward proxies do. What a client without a proxy sees of such a host needs its resolver, and is
shown by `unresolvable`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

from tests.support.azure.clouds import AUTHORITIES, CLOUDS, TLS_NAMES, Clock
from tests.support.azure.entra import EntraID, Tenant
from tests.support.azure.faults import Call, Exchange, Faults
from tests.support.azure.metadata import (
    APP_SERVICE_PATH,
    IMDS_HOST,
    MACHINE_HOST,
    Machine,
    ManagedIdentity,
)
from tests.support.azure.secrets_api import SecretsAPI
from tests.support.azure.tokens import Issued
from tests.support.azure.vault import KeyVault
from tests.support.azure.wire import Proxy, Refused, Reply, Request

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    import pytest

    from tests.support.tls import Certificate, TLSAuthority


class AzureCloud:
    """All three clouds, one machine with its identities, and the way there."""

    def __init__(self, authority: TLSAuthority) -> None:
        self._authority = authority
        self._lock = threading.Lock()
        self._contexts = {"good": authority.showing("good", "azure", TLS_NAMES)}
        self._presented: dict[str, Certificate] = {}
        self._proxy = Proxy(self._respond, self._context)
        self.clock = Clock()
        self.faults = Faults()
        self.exchanges: list[Exchange] = []
        self.issued = Issued(self.clock)
        self.entra = EntraID(self.clock, self.issued)
        self.machine = Machine(self.issued)
        self._services: dict[str, Callable[[Request], Reply]] = {
            **dict.fromkeys(AUTHORITIES, self.entra.reply),
            IMDS_HOST: self.machine.imds,
            MACHINE_HOST: self.machine.app_service,
        }

    def __enter__(self) -> Self:
        self._proxy.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._proxy.__exit__()

    @property
    def environment(self) -> dict[str, str]:
        """What leads a client here; loopback's other servers stay reachable."""
        return {
            "HTTPS_PROXY": self._proxy.address,
            "HTTP_PROXY": self._proxy.address,
            "NO_PROXY": "127.0.0.1,localhost",
            "REQUESTS_CA_BUNDLE": str(self._authority.ca_file),
        }

    @property
    def app_service(self) -> dict[str, str]:
        """What App Service sets in the environment of what it runs."""
        return {
            "IDENTITY_ENDPOINT": self._proxy.address + APP_SERVICE_PATH,
            "IDENTITY_HEADER": self.machine.identity_header,
        }

    @property
    def token_requests(self) -> list[Exchange]:
        """The requests for tokens: of applications, and of the machine's identities."""
        return [exchange for exchange in self.exchanges if exchange.path.endswith("/token")]

    def tenant(self, cloud: str = "public") -> Tenant:
        """Make a directory in a cloud."""
        tenant = Tenant(CLOUDS[cloud])
        self.entra.tenants[tenant.id] = tenant
        return tenant

    def managed_identity(self, tenant: Tenant, client_id: str | None = None) -> ManagedIdentity:
        """Give the machine an identity: the system's own unless it has a client id."""
        return self.machine.assign(tenant, client_id)

    def vault(self, name: str, tenant: Tenant, **how: object) -> KeyVault:
        """Make a vault of a tenant, in that one's cloud; options are those of KeyVault."""
        vault = KeyVault(name, tenant, self.clock, **how)
        self._services[vault.host] = SecretsAPI(vault, self.issued).reply
        return vault

    def requests(self, vault: KeyVault) -> list[tuple[str, str, int | None]]:
        """The requests to a vault: method, path, and status, None where no answer was sent."""
        return [
            (exchange.method, exchange.path, exchange.status)
            for exchange in self.exchanges
            if exchange.host == vault.host and exchange.method != "CONNECT"
        ]

    def revoke_tokens(self) -> None:
        """Let every access token be refused from now on, also those that clients have kept."""
        for token in self.issued.tokens:
            token.revoked = True

    def present(self, host: str, certificate: Certificate) -> None:
        """Show this certificate to the next connections to a host."""
        self._presented[host] = certificate

    def cut(self) -> None:
        """End every connection, so that the next request needs another one."""
        self._proxy.cut()

    @property
    def accepted(self) -> int:
        """How many connections there were."""
        return self._proxy.accepted

    def _context(self, host: str) -> ssl.SSLContext:
        certificate = self._presented.get(host, "good")
        if certificate not in self._contexts:
            self._contexts[certificate] = self._authority.showing(certificate, "azure", TLS_NAMES)
        return self._contexts[certificate]

    def _respond(self, request: Request, connection: socket.socket) -> Reply | None:
        # The SDK ends the path of a newest version with a slash.
        path = request.path.rstrip("/")
        exchange = Exchange(_kind(request.host), request.host, request.method, path)

        def proceed() -> Reply:
            with self._lock:
                reply = self._perform(request)
            exchange.status = reply.status
            return reply

        with self._lock:
            self.exchanges.append(exchange)
            how = self.faults.strike(exchange)
        if how is None:
            return proceed()
        reply = how(Call(connection, proceed, self._proxy.stopping, path))
        if reply is not None:
            exchange.status = reply.status
        return reply

    def _perform(self, request: Request) -> Reply:
        """Do what a request asks for, as the service does that it is sent to."""
        service = self._services.get(request.host, _no_such_host)
        if request.method == "CONNECT" and service is not _no_such_host:
            return Reply(200)
        try:
            reply = service(request)
        except Refused as refused:
            reply = refused.reply
        date = self.clock.utc("%a, %d %b %Y %H:%M:%S GMT")
        return Reply(reply.status, reply.body, {"Date": date, **reply.headers})


def _kind(host: str) -> str:
    if host in AUTHORITIES:
        return "entra"
    if host.endswith(tuple(f".{cloud.vault_suffix}" for cloud in CLOUDS.values())):
        return "vault"
    return {IMDS_HOST: "imds", MACHINE_HOST: "appService"}.get(host, "elsewhere")


def _no_such_host(request: Request) -> Reply:
    text = f"Unable to determine IP address from host name {request.host}".encode()
    return Reply(503, text, {"Content-Type": "text/plain", "X-Squid-Error": "ERR_DNS_FAIL 0"})


@contextlib.contextmanager
def unresolvable(monkeypatch: pytest.MonkeyPatch, host: str) -> Iterator[None]:
    """Let a client in this process go to a host without a proxy, and find no such name."""
    resolve = socket.getaddrinfo

    def getaddrinfo(name: str, *args: Any, **how: Any) -> list[Any]:
        if name == host:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(name, *args, **how)

    with monkeypatch.context() as patch:
        patch.setenv("NO_PROXY", f"{os.environ.get('NO_PROXY', '')},{host}")
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield
