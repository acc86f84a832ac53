"""The requests that are made to a PKI engine, three of them, and what its refusals mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from certagent.errors import SourceUnavailable
from certagent.sources.vault.client import VaultRefused, url_of
from certagent.sources.vault.pki import refusals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from certagent.errors import CertagentError
    from certagent.sources.vault.connection import VaultConnection

_NOT_FOUND = 404


class Engine:
    """One mount; `name` is how operators know the source that asks.

    All methods raise `SecretNotFound`, `AccessDenied` or `SourceUnavailable`.
    """

    def __init__(self, connection: VaultConnection, mount: str, name: str) -> None:
        self._connection = connection
        self.mount = mount.strip("/")
        self._name = name

    def issuers(self) -> dict[str, Mapping[str, Any]]:
        """Return what is told of each issuer, by its id: issuer_name, key_id, is_default."""
        url = url_of(self.mount, "issuers")
        try:
            answer = self._connection.call(lambda client: client.request("LIST", url), self._name)
        except VaultRefused as refused:
            if refused.status == _NOT_FOUND and not refused.reason:
                raise self._empty() from refused
            raise refusals.of_reading(refused, self.mount, "issuers", "list") from refused
        told = _data(answer).get("key_info")
        if not isinstance(told, dict) or not all(isinstance(each, dict) for each in told.values()):
            raise refusals.malformed("key_info")
        return told

    def issuer(self, id_: str) -> Mapping[str, Any]:
        """Return an issuer's `certificate` and its `ca_chain`."""
        url = url_of(self.mount, "issuer", id_, "json")
        try:
            answer = self._connection.call(lambda client: client.get(url), self._name)
        except VaultRefused as refused:
            path = "issuer/+/json"
            raise refusals.of_reading(refused, self.mount, path, "read") from refused
        return _data(answer)

    def sign(self, path: str, body: Mapping[str, object]) -> Mapping[str, Any]:
        """Have a request signed; `path` is that below the mount."""
        url = url_of(self.mount, path)
        try:
            answer = self._connection.call(lambda client: client.post(url, body), self._name)
        except (VaultRefused, SourceUnavailable) as error:
            raise refusals.of_signing(error, self.mount, path) from error
        return _data(answer)

    def _empty(self) -> CertagentError:
        """Say why there is no list: other engines answer as a PKI engine without issuers does."""
        url = url_of("sys/internal/ui/mounts", self.mount)
        try:
            answer = self._connection.call(lambda client: client.get(url), self._name)
            engine = str(_data(answer).get("type"))
        except (VaultRefused, SourceUnavailable):
            engine = "pki"  # it may not be asked: the likelier of the two
        if engine != "pki":
            return refusals.another_engine(self.mount, engine)
        return refusals.no_issuer(self.mount, "default")


def _data(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    data = answer.get("data")
    if not isinstance(data, dict):
        raise refusals.malformed("data")
    return data
