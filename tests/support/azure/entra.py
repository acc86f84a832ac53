"""Entra ID: tenants, their applications, and the token endpoint that believes what it verifies."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes

from tests.support.azure.aadsts import Directory
from tests.support.azure.clouds import AUTHORITIES, CLOUDS, Cloud
from tests.support.azure.tokens import EXCHANGE, ISTIOD, Assertion, Issuer, Principal, decode
from tests.support.azure.wire import Refused, Reply

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.x509 import Certificate

    from tests.support.azure.clouds import Clock
    from tests.support.azure.tokens import Issued
    from tests.support.azure.wire import Request


@dataclass(frozen=True)
class FederatedCredential:
    """Whose tokens an application trusts: one subject's, of one issuer."""

    issuer: Issuer = field(default_factory=Issuer)
    subject: str = ISTIOD
    audience: str = EXCHANGE


@dataclass(eq=False)
class Application(Principal):
    """An application; what proves that somebody is it may be changed at any time."""

    secrets: set[str] = field(default_factory=set, repr=False)
    expired_secrets: set[str] = field(default_factory=set, repr=False)
    certificates: list[Certificate] = field(default_factory=list)
    federated: list[FederatedCredential] = field(default_factory=list)


@dataclass
class Tenant:
    """A directory, of one cloud."""

    cloud: Cloud
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    applications: dict[str, Application] = field(default_factory=dict)

    @property
    def authority(self) -> str:
        """Where its tokens are asked for."""
        return f"https://{self.cloud.authorities[0]}/{self.id}"

    def application(
        self,
        client_id: str | None = None,
        *,
        secret: str | None = None,
        certificate: Certificate | None = None,
        federated: Iterable[FederatedCredential] = (),
    ) -> Application:
        """Register an application."""
        app = Application(self.id, client_id or str(uuid.uuid4()))
        app.secrets |= {secret} if secret else set()
        app.certificates += [certificate] if certificate else []
        app.federated += federated
        self.applications[app.client_id] = app
        return app


class EntraID:
    """What the login hosts of the three clouds answer."""

    def __init__(self, clock: Clock, issued: Issued) -> None:
        self._clock = clock
        self._issued = issued
        self._say = Directory(clock)
        self.tenants: dict[str, Tenant] = {}

    def reply(self, request: Request) -> Reply:
        """Answer discovery and token requests; Refused where they are refused."""
        if request.path == "/common/discovery/instance":
            return _instance_discovery(AUTHORITIES[request.host])
        name, _, rest = request.path.lstrip("/").partition("/")
        tenant = self.tenants.get(name)
        if tenant is None or request.host not in tenant.cloud.authorities:
            raise self._say.no_tenant(name)
        if rest == "v2.0/.well-known/openid-configuration":
            return _openid_configuration(request.host, tenant)
        if (request.method, rest) == ("POST", "oauth2/v2.0/token"):
            return self._token(tenant, request)
        raise Refused(Reply(404))

    def _token(self, tenant: Tenant, request: Request) -> Reply:
        form = request.form
        app = tenant.applications.get(form["client_id"])
        if app is None:
            raise self._say.no_application(form["client_id"], tenant)
        if "client_assertion" in form:
            self._believe(app, form["client_assertion"], request)
        else:
            self._check_secret(app, form["client_secret"])
        return self._grant(tenant, app, form["scope"])

    def _grant(self, tenant: Tenant, app: Application, scope: str) -> Reply:
        resource = scope.removesuffix("/.default")
        if resource == scope:
            raise self._say.no_default_scope(scope)
        if resource != tenant.cloud.resource:
            raise self._say.no_resource(resource, tenant)
        token = self._issued.issue(app, resource)
        lifetime = int(token.expires_at - self._clock.now())
        body = {"token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime}
        return Reply(200, {**body, "access_token": token.value})

    def _check_secret(self, app: Application, secret: str) -> None:
        if secret in app.expired_secrets:
            raise self._say.secret_expired(app.client_id)
        if secret not in app.secrets:
            raise self._say.wrong_secret(app.client_id)

    def _believe(self, app: Application, text: str, request: Request) -> None:
        try:
            assertion = Assertion.read(text)
        except ValueError:
            raise self._say.no_assertion() from None
        if assertion.claims.get("iss") == app.client_id:
            self._check_certificate(app, assertion, f"https://{request.host}{request.path}")
        else:
            self._check_federation(app, assertion)

    def _check_certificate(self, app: Application, assertion: Assertion, token_url: str) -> None:
        """Check an assertion that the application has signed itself."""
        thumbprint, certificate = _certificate_of(app, assertion.header)
        if certificate is None:
            raise self._say.bad_signature(thumbprint, "The key was not found.")
        if certificate.not_valid_after_utc < datetime.fromtimestamp(self._clock.now(), UTC):
            raise self._say.bad_signature(thumbprint, "The key used is expired.")
        if not assertion.signed_by(certificate.public_key()):
            raise self._say.bad_signature(
                thumbprint, "The provided signature value did not match the expected signature."
            )
        if token_url not in assertion.audiences:
            raise self._say.wrong_realm(assertion.audiences)
        self._check_times(assertion)

    def _check_federation(self, app: Application, assertion: Assertion) -> None:
        """Check a token of somebody whom the application trusts."""
        records, claims = app.federated, assertion.claims
        if not records:
            raise self._say.no_federation(app.client_id)
        records = [record for record in records if record.issuer.url == claims["iss"]]
        if not records:
            raise self._say.no_match("issuer", claims["iss"])
        records = [record for record in records if record.subject == claims["sub"]]
        if not records:
            raise self._say.no_match("subject", claims["sub"])
        records = [record for record in records if record.audience in assertion.audiences]
        if not records:
            raise self._say.no_match("audience", ",".join(assertion.audiences))
        if not any(assertion.signed_by(record.issuer.key.public_key()) for record in records):
            raise self._say.forged()
        self._check_times(assertion)

    def _check_times(self, assertion: Assertion) -> None:
        claims = assertion.claims
        start, end = claims.get("nbf", claims.get("iat")), claims["exp"]
        if not start <= self._clock.now() < end:
            raise self._say.not_its_time(start, end)


def _certificate_of(app: Application, header: dict[str, str]) -> tuple[str, Certificate | None]:
    """Return the thumbprint that an assertion names, and the certificate that is registered."""
    kind, algorithm = (
        ("x5t#S256", hashes.SHA256()) if "x5t#S256" in header else ("x5t", hashes.SHA1())
    )
    thumbprint = decode(header.get(kind, ""))
    known = {certificate.fingerprint(algorithm): certificate for certificate in app.certificates}
    return thumbprint.hex().upper(), known.get(thumbprint)


def _instance_discovery(cloud: Cloud) -> Reply:
    host = cloud.authorities[0]
    names = [
        {
            "preferred_network": other.authorities[0],
            "preferred_cache": other.authorities[0],
            "aliases": list(other.authorities),
        }
        for other in CLOUDS.values()
    ]
    endpoint = f"https://{host}/common/v2.0/.well-known/openid-configuration"
    return Reply(
        200, {"tenant_discovery_endpoint": endpoint, "api-version": "1.1", "metadata": names}
    )


def _openid_configuration(host: str, tenant: Tenant) -> Reply:
    base = f"https://{host}/{tenant.id}"
    return Reply(
        200,
        {
            "issuer": f"{base}/v2.0",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            "jwks_uri": f"{base}/discovery/v2.0/keys",
        },
    )
