"""How Key Vault refuses, in its words: each function returns the refusal to raise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.azure.wire import Refused, Reply

if TYPE_CHECKING:
    from tests.support.azure.tokens import Principal
    from tests.support.azure.vault import KeyVault

_ACTIONS = {
    "get": "getSecret/action",
    "list": "readMetadata/action",
    "set": "setSecret/action",
    "delete": "delete",
}
_CHANGED_RECENTLY = (
    "If role assignments, deny assignments or role definitions were changed recently"
)
_VAULTS = "/subscriptions/5d7f/resourcegroups/mesh/providers/microsoft.keyvault/vaults"


def error(code: str, message: str, inner: str | None = None) -> dict[str, object]:
    """Return the body of a refusal."""
    body: dict[str, object] = {"code": code, "message": message}
    return {"error": {**body, "innererror": {"code": inner}} if inner else body}


def throttled() -> dict[str, object]:
    """Return the body of a 429."""
    reason = "Reason: VaultRequestTypeLimitReached"
    text = f"Request was not processed because too many requests were received. {reason}"
    return error("Throttled", text)


def unauthorized(vault: KeyVault, message: str) -> Refused:
    """Ask for a token, and say where one is to be had (the challenge)."""
    challenge = (
        f'Bearer authorization="{vault.tenant.authority}", resource="{vault.tenant.cloud.resource}"'
    )
    body = error("Unauthorized", message)
    return Refused(Reply(401, body, {"WWW-Authenticate": challenge}))


def bad_parameter(message: str) -> Refused:
    return Refused(Reply(400, error("BadParameter", message)))


def not_found(name: str) -> Refused:
    text = (
        f"A secret with (name/id) {name} was not found in this key vault. If you recently deleted "
        "this secret you may be able to recover it using the correct recovery command. For help "
        "resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125182"
    )
    return Refused(Reply(404, error("SecretNotFound", text)))


def conflict(name: str) -> Refused:
    text = (
        f"Secret {name} is currently in a deleted but recoverable state, and its name cannot be "
        "reused; in this state, the secret can only be recovered or purged."
    )
    return Refused(Reply(409, error("Conflict", text, "ObjectIsDeletedButRecoverable")))


def disabled() -> Refused:
    text = "Operation get is not allowed on a disabled secret."
    return Refused(Reply(403, error("Forbidden", text, "SecretDisabled")))


def firewalled(vault: KeyVault, principal: Principal) -> Refused:
    text = (
        "Client address is not authorized and caller is not a trusted service.\r\n"
        f"Client address: 203.0.113.7\r\nCaller: {principal.caller}\r\n{_location(vault)}"
    )
    return Refused(Reply(403, error("Forbidden", text, "ForbiddenByFirewall")))


def forbidden(vault: KeyVault, principal: Principal, permission: str, path: str) -> Refused:
    """Refuse for want of a role, or of an access policy's permission."""
    if vault.authorization == "policies":
        text = (
            f"The user, group or application '{principal.caller}' does not have secrets "
            f"{permission} permission on key vault '{vault.name};location=westeurope'. For help "
            "resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125287"
        )
        return Refused(Reply(403, error("Forbidden", text, "AccessDenied")))
    lines = (
        "Caller is not authorized to perform action on resource.",
        f"{_CHANGED_RECENTLY}, please observe propagation time.",
        f"Caller: {principal.caller}",
        f"Action: 'Microsoft.KeyVault/vaults/secrets/{_ACTIONS[permission]}'",
        f"Resource: '{_VAULTS}/{vault.name}{path}'",
        "Assignment: (not found)",
        "DenyAssignmentId: null",
        "DecisionReason: null ",
        f"{_location(vault)}\r\n",
    )
    return Refused(Reply(403, error("Forbidden", "\r\n".join(lines), "ForbiddenByRbac")))


def _location(vault: KeyVault) -> str:
    return f"Vault: {vault.name};location=westeurope"
