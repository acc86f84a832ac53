"""Key Vault's secrets over HTTP, for whoever has a token and the permission."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from tests.support.azure import akv
from tests.support.azure.wire import Refused, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.support.azure.tokens import Issued, Principal
    from tests.support.azure.vault import Deleted, KeyVault, Version
    from tests.support.azure.wire import Request

DAY = 86400
MAX_VALUE = 25 * 1024
"""Bytes of a secret's value, at most."""
MAX_TAGS = 15

_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")
_PATH = re.compile(r"/(?P<kind>secrets|deletedsecrets)(?:/(?P<name>[^/]+)(?:/(?P<version>\w*))?)?")
_ATTRIBUTES = {"enabled": "enabled", "nbf": "not_before", "exp": "expires"}


class SecretsAPI:
    """The data plane of a vault."""

    def __init__(self, vault: KeyVault, issued: Issued) -> None:
        self._vault = vault
        self._issued = issued
        self._operations: dict[tuple[str, str], tuple[str, Callable[..., Reply]]] = {
            ("GET", "/secrets"): ("list", self._list),
            ("GET", "/secrets/name"): ("get", self._get),
            ("GET", "/secrets/name/version"): ("get", self._get),
            ("GET", "/secrets/name/versions"): ("list", self._versions),
            ("PUT", "/secrets/name"): ("set", self._set),
            ("PATCH", "/secrets/name/version"): ("set", self._update),
            ("DELETE", "/secrets/name"): ("delete", self._delete),
            ("GET", "/deletedsecrets/name"): ("get", self._deleted),
        }

    def reply(self, request: Request) -> Reply:
        """Do what is asked; Refused where it is refused."""
        principal = self._authenticated(request)
        if self._vault.firewalled:
            raise akv.firewalled(self._vault, principal)
        self._check_api_version(request.query.get("api-version"))
        match = _PATH.fullmatch(request.path.rstrip("/"))
        if match is None:
            raise Refused(Reply(404))
        kind, name, version = match.group("kind", "name", "version")
        if name is not None and not _NAME.fullmatch(name):
            raise akv.bad_parameter(f"The request URI contains an invalid name: {name}")
        shape = f"/{kind}" + ("/name" if name else "")
        if version:
            shape += "/versions" if version == "versions" else "/version"
        if (request.method, shape) not in self._operations:
            raise Refused(Reply(405))
        permission, operate = self._operations[request.method, shape]
        if not self._vault.allows(principal, permission):
            raise akv.forbidden(self._vault, principal, permission, request.path)
        return operate(request, name, version)

    def _authenticated(self, request: Request) -> Principal:
        """Return whose token it is; ask for a better one."""
        vault = self._vault
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer":
            text = "AKV10000: Request is missing a Bearer or PoP token."
            raise akv.unauthorized(vault, text)
        token = self._issued.find(value)
        if token is None:
            text = "[BearerReadAccessTokenFailed] Error validating token: IDX10223."
            raise akv.unauthorized(vault, text)
        wanted = vault.tenant.cloud.resource
        if token.resource != wanted:
            text = f"AKV10022: Invalid audience. Expected {wanted}, found: {token.resource}."
            raise akv.unauthorized(vault, text)
        if token.principal.tenant != vault.tenant.id:
            expected, found = (
                f"https://sts.windows.net/{tenant}/"
                for tenant in (vault.tenant.id, token.principal.tenant)
            )
            text = f"AKV10032: Invalid issuer. Expected one of {expected}, found {found}."
            raise akv.unauthorized(vault, text)
        return token.principal

    def _check_api_version(self, version: str | None) -> None:
        if version is None:
            raise akv.bad_parameter("api-version must be specified")
        if version not in self._vault.api_versions:
            latest = self._vault.api_versions[-1]
            text = f"The specified version ({version}) is not recognized. Consider using the latest"
            raise akv.bad_parameter(f"{text} supported version ({latest}).")

    def _get(self, _: Request, name: str, version: str | None) -> Reply:
        found = self._vault.version(name, version)
        if not found.enabled:
            raise akv.disabled()
        return Reply(200, self._bundle(name, found))

    def _list(self, request: Request, *_: str) -> Reply:
        newest = {name: self._vault.version(name) for name in self._vault.live}
        items = [self._item(name, version, bare=True) for name, version in newest.items()]
        return self._page(request, items)

    def _versions(self, request: Request, name: str, _: str) -> Reply:
        # By id, which is random: not by date. A secret that is not there has no versions.
        versions = self._vault.live.get(name, {})
        items = [self._item(name, versions[version]) for version in sorted(versions)]
        return self._page(request, items)

    def _page(self, request: Request, items: list[dict[str, object]]) -> Reply:
        size = min(self._vault.page_size, int(request.query.get("maxresults", 25)))
        marker = request.query.get("$skiptoken", "")
        start = int(base64.urlsafe_b64decode(marker) or 0)
        end = start + size
        following = None
        if end < len(items):
            token = base64.urlsafe_b64encode(str(end).encode()).decode()
            query = f"api-version={request.query['api-version']}&$skiptoken={token}"
            # With the port, as the service writes it.
            host = f"https://{self._vault.host}:443"
            following = f"{host}{request.path}?{query}&maxresults={size}"
        return Reply(200, {"value": items[start:end], "nextLink": following})

    def _set(self, request: Request, name: str, _: str | None) -> Reply:
        given = request.json
        value = given.get("value")
        if not isinstance(value, str):
            raise akv.bad_parameter("Property value is required.")
        if len(value.encode()) > MAX_VALUE:
            raise akv.bad_parameter(f"Secret value is longer than {MAX_VALUE} bytes.")
        version = self._vault.set(name, value, **_changes(given))
        return Reply(200, self._bundle(name, self._vault.version(name, version)))

    def _update(self, request: Request, name: str, version: str) -> Reply:
        found = self._vault.version(name, version)
        self._vault.change(found, **_changes(request.json))
        return Reply(200, self._item(name, found))

    def _delete(self, _: Request, name: str, __: str | None) -> Reply:
        return Reply(200, self._remains(name, self._vault.delete(name)))

    def _deleted(self, _: Request, name: str, __: str | None) -> Reply:
        if name not in self._vault.bin:
            raise akv.not_found(name)
        return Reply(200, self._remains(name, self._vault.bin[name]))

    def _remains(self, name: str, deleted: Deleted) -> dict[str, object]:
        newest = max(deleted.versions.values(), key=lambda version: version.created)
        return {
            **self._item(name, newest),
            "recoveryId": f"{self._vault.url}/deletedsecrets/{name}",
            "deletedDate": deleted.at,
            "scheduledPurgeDate": deleted.at + 90 * DAY,
        }

    def _bundle(self, name: str, version: Version) -> dict[str, object]:
        return {"value": version.value, **self._item(name, version)}

    def _item(self, name: str, version: Version, *, bare: bool = False) -> dict[str, object]:
        identifier = f"{self._vault.url}/secrets/{name}" + ("" if bare else f"/{version.id}")
        item: dict[str, object] = {"id": identifier, "attributes": version.attributes}
        if version.content_type is not None:
            item["contentType"] = version.content_type
        if version.tags is not None:
            item["tags"] = version.tags
        if version.certificate:
            item["managed"] = True
            item["kid"] = f"{self._vault.url}/keys/{name}/{version.id}"
        return item


def _changes(given: dict[str, object]) -> dict[str, object]:
    """Return what a request wants set, by our names; what it does not name stays as it is."""
    attributes = given.get("attributes") or {}
    changes = {
        ours: attributes[theirs] for theirs, ours in _ATTRIBUTES.items() if theirs in attributes
    }
    if "contentType" in given:
        changes["content_type"] = given["contentType"]
    if "tags" in given:
        _check_tags(given["tags"].values())
        changes["tags"] = given["tags"]
    return changes


def _check_tags(values: Iterable[str]) -> None:
    values = list(values)
    if len(values) > MAX_TAGS or any(len(value) > 256 for value in values):
        raise akv.bad_parameter(f"A secret has at most {MAX_TAGS} tags of 256 characters.")
