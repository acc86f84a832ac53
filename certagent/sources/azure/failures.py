"""What Azure's refusals mean: its words, made fit to be shown, and what to do about them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from certagent.errors import AccessDenied, SourceUnavailable
from certagent.sources.http.answers import retry_delay
from certagent.sources.http.failures import Advice, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from certagent.errors import CertagentError
    from certagent.sources.azure.session import Answer

_ELSEWHERE = "Something else than Azure answers there: check proxies, and azure.vaultUrl."
VAULT = Advice(
    service="Key Vault",
    reach="Is there a vault of that name (azure.vaultUrl, CERTAGENT_SOURCE) in this cloud? Check"
    " private endpoints, DNS and network policies.",
    trust="Something between here and Azure ends TLS: set REQUESTS_CA_BUNDLE to its CA, or let the"
    " vault's host pass.",
    proxy="Is there a vault of that name (azure.vaultUrl, CERTAGENT_SOURCE)? Then check HTTPS_PROXY"
    " and NO_PROXY.",
    redirect="Set azure.vaultUrl to the vault's own URL.",
    elsewhere=_ELSEWHERE,
    slow="Check firewalls and proxies; azure.requestTimeout says how long to wait.",
    files="Check the file that REQUESTS_CA_BUNDLE names.",
    tls="Check proxies and what else captures traffic here, and REQUESTS_CA_BUNDLE.",
)
LOGIN = Advice(
    service="Entra ID",
    reach="The login needs Entra ID's host: check egress rules, DNS, HTTPS_PROXY and azure.cloud.",
    trust="Something between here and Azure ends TLS: set REQUESTS_CA_BUNDLE to its CA, or let the"
    " login's host pass.",
    proxy="The login needs Entra ID's host: check HTTPS_PROXY and NO_PROXY, and azure.cloud.",
    redirect="Something else than Entra ID answers there: check proxies.",
    elsewhere=_ELSEWHERE,
    slow="Check firewalls and proxies; azure.requestTimeout says how long to wait.",
    files="Check the file that REQUESTS_CA_BUNDLE names.",
    tls="Check proxies and what else captures traffic here, and REQUESTS_CA_BUNDLE.",
)
_NO_MACHINE = (
    "A managed identity is that of the machine: does this pod run on Azure, is the metadata service"
    " open to it,\nand is its address in NO_PROXY? On AKS, workloadIdentity is what is usual."
)
MACHINE = Advice(
    service="The metadata service",
    elsewhere=_ELSEWHERE,
    **dict.fromkeys(("reach", "trust", "proxy", "redirect", "slow", "files", "tls"), _NO_MACHINE),
)

TOO_MANY = 429
DISABLED = "SecretDisabled"
"""The code of a 403 for the version itself, whoever asks."""

_OUTCOMES = {400: "denied", 401: "denied", 403: "denied", 404: "missing", TOO_MANY: "limited"}
_REFUSED = frozenset({400, 401, 403})
_TRANSIENT = frozenset({"temporarily_unavailable", "server_error"})

_CLOCK = (
    "The clock of this machine is off, or the token's file is stale: compare `date -u` with the"
    " times above. kubelet renews a projected token,\nbut not a copy of one, nor one mounted by"
    " subPath."
)
_FEDERATION = (
    "The identity's federated credential must name the cluster's OIDC issuer, the pod's"
    " system:serviceaccount:<namespace>:<name>\nand the audience api://AzureADTokenExchange; a new"
    " one works after some minutes."
)
_HINTS = {
    "90002": "Correct azure.credential.tenantId (AZURE_TENANT_ID); is azure.cloud the tenant's?",
    "900023": "azure.credential.tenantId (AZURE_TENANT_ID) must be the tenant's id or domain.",
    "700016": "Correct azure.credential.clientId (AZURE_CLIENT_ID) and tenantId: the application"
    " is not in this tenant.",
    "7000215": "Put the secret's value, not its id, into azure.credential.secretFile.",
    "7000222": "The client secret has expired: make a new one, and put it into"
    " azure.credential.secretFile.",
    "700027": "Register the certificate with the application (or renew it), or correct"
    " azure.credential.certificateFile.",
    "70021": _FEDERATION,
    "70025": _FEDERATION,
    "700211": _FEDERATION,
    "700212": _FEDERATION,
    "700213": _FEDERATION,
    "700024": _CLOCK,
    "700021": _FEDERATION,
    "500011": "The tenant knows no Key Vault of this cloud: check azure.cloud and tenantId.",
}
_NO_IDENTITY = (
    "Has the machine (node pool, virtual machine) this identity? azure.credential.clientId chooses"
    " a user-assigned one.\nOn AKS, workloadIdentity is the usual credential."
)
_TELLING = ("Caller:", "Action:", "Client address:")
"""How those lines begin that tell more than the first one, in the text of a 403."""

_ASK = "Look the AADSTS code up (https://login.microsoftonline.com/error), and the sign-in logs."


class AzureRefused(Exception):
    """Key Vault understood the request and said no; `reason` is its own text, safe to show."""

    def __init__(self, status: int, code: str, reason: str) -> None:
        super().__init__(status, code, reason)
        self.status = status
        self.code = code
        self.reason = reason

    @property
    def answer(self) -> str:
        """What Key Vault answered, as messages quote it: `403 ForbiddenByRbac: Caller is not …`."""
        told = f"{self.status} {self.code}".rstrip()
        return f"{told}: {self.reason}" if self.reason else told


def outcome(answer: Answer | None) -> str:
    """Return what a request came to, as metrics count it; to be asked for a token is no refusal."""
    if answer is None:
        return "unavailable"
    if answer.challenged or not answer.refuses:
        return "ok"
    return _OUTCOMES.get(answer.status, "unavailable")


def vault_failure(answer: Answer, address: str) -> Exception:
    """Return what an answer of Key Vault's other than success means.

    `AzureRefused` where it said no, `SourceUnavailable` where it could not say.
    """
    error = _member(_object(answer.body), "error")
    inner = _member(error, "innererror")
    code = one_line(_text(inner, "code") or _text(error, "code"))
    reason = _first_words(_text(error, "message"))
    if 400 <= answer.status < 500 and answer.status not in {408, TOO_MANY}:  # noqa: PLR2004
        return AzureRefused(answer.status, code, reason)
    shown = f"{answer.status} {code}".rstrip()
    hint = "Azure's status page tells more; the request is tried again."
    if answer.status == TOO_MANY:
        hint = (
            "Key Vault takes 4000 requests for secrets in 10 s, of all clients of a vault; the"
            " next attempt waits as long as it asks."
        )
    return SourceUnavailable(
        f"Key Vault at {address} cannot answer now ({shown}).",
        hint=hint,
        retry_after=retry_delay(answer.retry_after),
    )


def login_failure(answers: Sequence[Answer], error: Exception, who: str) -> CertagentError:
    """Return why there is no token for `who`: by the login's refusal, or by the SDK's words.

    The first refusal counts: MSAL asks other things after it.
    """
    if not answers:
        return AccessDenied(
            f"There is no token for {who}: {one_line(str(error))}.",
            hint="Check azure.credential.",
        )
    answer = next((each for each in answers if each.refuses), None)
    if answer is None:
        # Without the SDK's words: they quote the answer, and it may well be a token.
        return SourceUnavailable(
            f"{answers[-1].host} answered the login of {who} with what cannot be understood.",
            hint="Something else than Azure answers there: check proxies, and azure.cloud.",
        )
    told = _object(answer.body)
    kind, description = _text(told, "error"), _text(told, "error_description")
    # App Service has a message where Entra ID and the metadata service have a description.
    text = _without_ids(description) or one_line(_text(told, "message") or kind)
    if answer.status not in _REFUSED or kind in _TRANSIENT:
        return SourceUnavailable(
            f"The login of {who} at {answer.host} failed ({answer.status}: {text}).",
            hint="Azure's status page tells more; the login is tried again.",
            retry_after=retry_delay(answer.retry_after),
        )
    code = re.match(r"AADSTS(\d+)", text)
    hint = _HINTS.get(code[1], _ASK) if code else _NO_IDENTITY
    return AccessDenied(f"{answer.host} refused the login of {who}: {text}", hint=hint)


def _without_ids(text: str) -> str:
    """Return Entra's text without the trace at its end: three ids, and a time that is the log's."""
    return one_line(re.split(r"\s*Trace ID:", text, maxsplit=1)[0])


def _first_words(text: str) -> str:
    """Return the first line of Key Vault's text, and the caller and the action of a refusal."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines[1:] if line.startswith(_TELLING)]
    return one_line(" ".join([*lines[:1], *told]))


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _member(answer: dict[str, Any], key: str) -> dict[str, Any]:
    found = answer.get(key)
    return found if isinstance(found, dict) else {}


def _text(answer: dict[str, Any], key: str) -> str:
    found = answer.get(key)
    return found if isinstance(found, str) else ""
