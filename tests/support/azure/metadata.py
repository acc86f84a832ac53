"""Where a machine asks for its own identity's tokens: IMDS, and App Service's endpoint."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.azure.tokens import LIFETIME, AccessToken, Principal
from tests.support.azure.wire import Refused, Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.azure.entra import Tenant
    from tests.support.azure.tokens import Issued
    from tests.support.azure.wire import Request

IMDS_HOST = "169.254.169.254"
IMDS_PATH = "/metadata/identity/oauth2/token"
MACHINE_HOST = "127.0.0.1"
APP_SERVICE_PATH = "/msi/token"


@dataclass(eq=False)
class ManagedIdentity(Principal):
    """An identity of the machine; the system's own, or one that a user has assigned."""

    resource: str = ""
    system: bool = False


class Machine:
    """The identities of the one machine that all tests run on, and who gives out their tokens."""

    def __init__(self, issued: Issued) -> None:
        self._issued = issued
        self.identities: list[ManagedIdentity] = []
        self.identity_header = secrets.token_hex(16)
        """What App Service wants to be shown, as IDENTITY_HEADER."""

    def assign(self, tenant: Tenant, client_id: str | None) -> ManagedIdentity:
        """Give the machine an identity: the system's own unless it has a client id."""
        identity = ManagedIdentity(
            tenant.id,
            client_id or str(uuid.uuid4()),
            resource=tenant.cloud.resource,
            system=client_id is None,
        )
        self.identities.append(identity)
        return identity

    def imds(self, request: Request) -> Reply:
        """Answer as IMDS does (api-version 2018-02-01)."""
        if request.path != IMDS_PATH or "api-version" not in request.query:
            raise _refused_by_imds(404 if request.path != IMDS_PATH else 400, "bad_request_102")
        if request.headers.get("metadata") != "true":
            raise _refused_by_imds(400, "invalid_request", "Required metadata header not specified")
        identity = self._asked_for(request.query)
        if isinstance(identity, str):
            raise _refused_by_imds(400, "invalid_request", identity)
        if request.query["resource"] != identity.resource:
            text = f"AADSTS500011: The resource principal named {request.query['resource']} was not"
            raise _refused_by_imds(400, "invalid_resource", f"{text} found in the tenant.")
        token = self._issued.issue(identity, identity.resource)
        return Reply(200, {**_described(token), "expires_in": str(LIFETIME)})

    def app_service(self, request: Request) -> Reply:
        """Answer as App Service does (api-version 2019-08-01)."""
        if request.headers.get("x-identity-header") != self.identity_header:
            raise Refused(Reply(403, {"statusCode": 403, "message": "Forbidden"}))
        identity = self._asked_for(request.query)
        if isinstance(identity, str) or request.query["resource"] != identity.resource:
            text = "No User Assigned or Delegated Managed Identity found for specified ClientId"
            raise Refused(Reply(400, {"statusCode": 400, "message": text}))
        return Reply(200, _described(self._issued.issue(identity, identity.resource)))

    def _asked_for(self, query: Mapping[str, str]) -> ManagedIdentity | str:
        """Return the identity, or why there is none."""
        if "client_id" in query:
            asked = query["client_id"]
            found = [identity for identity in self.identities if identity.client_id == asked]
        else:
            # Without the system's own, a single assigned one is taken as meant.
            found = [identity for identity in self.identities if identity.system]
            found = found or self.identities
        if len(found) > 1:
            return (
                "Multiple user assigned identities exist, please specify the clientId / resourceId "
                "of the identity in the token request"
            )
        return found[0] if found else "Identity not found"


def _described(token: AccessToken) -> dict[str, str]:
    return {
        "access_token": token.value,
        "client_id": token.principal.client_id,
        "expires_on": str(int(token.expires_at)),
        "resource": token.resource,
        "token_type": "Bearer",
    }


def _refused_by_imds(status: int, error: str, text: str = "Bad request") -> Refused:
    return Refused(Reply(status, {"error": error, "error_description": text}))
