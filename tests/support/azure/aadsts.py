"""How Entra ID refuses, in its words: JSON with an AADSTS number, and ids for its support."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from tests.support.azure.wire import Refused, Reply

if TYPE_CHECKING:
    from tests.support.azure.clouds import Clock
    from tests.support.azure.entra import Tenant

_CHECK_RECORD = (
    "Check your federated identity credential Subject, Audience and Issuer against the presented "
    "assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
)
_WRONG_TENANT = (
    "This can happen if the application has not been installed by the administrator of the tenant "
    "or consented to by any user in the tenant. You may have sent your authentication request to "
    "the wrong tenant."
)
_NO_MATCH = {"issuer": 700211, "audience": 700212, "subject": 700213}


class Directory:
    """Each method returns the refusal to raise."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def no_tenant(self, name: str) -> Refused:
        text = (
            f"Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are "
            "signing into the correct cloud. Check with your subscription administrator, this may "
            "happen if there are no active subscriptions for the tenant."
        )
        return self._refusal(400, "invalid_request", 90002, text)

    def no_application(self, client_id: str, tenant: Tenant) -> Refused:
        text = (
            f"Application with identifier '{client_id}' was not found in the directory "
            f"'{tenant.id}'. {_WRONG_TENANT}"
        )
        return self._refusal(400, "unauthorized_client", 700016, text)

    def no_resource(self, resource: str, tenant: Tenant) -> Refused:
        text = (
            f"The resource principal named {resource} was not found in the tenant named "
            f"{tenant.id}. {_WRONG_TENANT}"
        )
        return self._refusal(400, "invalid_resource", 500011, text)

    def no_default_scope(self, scope: str) -> Refused:
        text = (
            f"The provided value for scope {scope} is not valid. Client credential flows must have "
            "a scope value with /.default suffixed to the resource identifier (application ID URI)."
        )
        return self._refusal(400, "invalid_scope", 1002012, text)

    def wrong_secret(self, client_id: str) -> Refused:
        text = (
            "Invalid client secret provided. Ensure the secret being sent in the request is the "
            "client secret value, not the client secret ID, for a secret added to app "
            f"'{client_id}'."
        )
        return self._refusal(401, "invalid_client", 7000215, text)

    def secret_expired(self, client_id: str) -> Refused:
        text = (
            f"The provided client secret keys for app '{client_id}' are expired. Visit the Azure "
            "portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider "
            "using certificate credentials for added security: https://aka.ms/certCreds."
        )
        return self._refusal(401, "invalid_client", 7000222, text)

    def no_assertion(self) -> Refused:
        text = "Invalid JWT token. Token format not valid."
        return self._refusal(400, "invalid_request", 50027, text)

    def bad_signature(self, thumbprint: str, reason: str) -> Refused:
        text = (
            f"Client assertion failed signature validation. [Reason - {reason}, Thumbprint of key "
            f"used by client: '{thumbprint}', Please visit the Azure Portal, Graph Explorer or "
            "directly use MS Graph to see configured keys for app.]"
        )
        return self._refusal(401, "invalid_client", 700027, text)

    def wrong_realm(self, audiences: list[str]) -> Refused:
        text = (
            "Client assertion audience claim does not match Realm issuer. Review the documentation "
            f"at https://learn.microsoft.com/entra/identity-platform. Audience: {audiences}."
        )
        return self._refusal(401, "invalid_client", 700023, text)

    def not_its_time(self, start: float, end: float) -> Refused:
        form = "%Y-%m-%dT%H:%M:%S.0000000Z"
        now, start, end = (self._clock.utc(form, at) for at in (None, start, end))
        text = (
            f"Client assertion is not within its valid time range. Current time: {now}, assertion "
            f"valid from {start}, expiry time of assertion {end}. Review the documentation at "
            "https://learn.microsoft.com/entra/identity-platform/certificate-credentials ."
        )
        return self._refusal(401, "invalid_client", 700024, text)

    def no_federation(self, client_id: str) -> Refused:
        text = (
            f"The client '{client_id}'(app) has no configured federated identity credentials. "
            "https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
        )
        return self._refusal(401, "invalid_client", 70025, text)

    def no_match(self, claim: str, value: str) -> Refused:
        text = (
            "No matching federated identity record found for presented assertion "
            f"{claim} '{value}'. {_CHECK_RECORD}"
        )
        return self._refusal(401, "invalid_client", _NO_MATCH[claim], text)

    def forged(self) -> Refused:
        text = "Assertion failed signature validation. [Reason - The key was not found.]"
        return self._refusal(401, "invalid_client", 50013, text)

    def _refusal(self, status: int, error: str, number: int, text: str) -> Refused:
        trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
        at = self._clock.utc()
        ids = f"Trace ID: {trace} Correlation ID: {correlation} Timestamp: {at}"
        body = {
            "error": error,
            "error_description": f"AADSTS{number}: {text} {ids}",
            "error_codes": [number],
            "timestamp": at,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"https://login.microsoftonline.com/error?code={number}",
        }
        return Refused(Reply(status, body))
