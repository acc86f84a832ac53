"""The key-value engine as a source: one secret, and its older versions."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from certagent.errors import AccessDenied, SecretNotFound, SourceUnavailable
from certagent.material.kinds import CA, Kind
from certagent.sources import Revision
from certagent.sources.vault.client import VaultRefused, url_of
from certagent.sources.vault.secret import Secret, malformed, member

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from certagent.config.model import VaultKVSource as VaultKVConfig
    from certagent.errors import CertagentError
    from certagent.material.raw import RawBundle
    from certagent.sources.vault.connection import VaultConnection

_NOT_FOUND = 404
_DENIED = frozenset({401, 403})


class VaultKVSource:
    """Implements `sources.Source` on a KV v1 or v2 secret that holds all parts.

    Only the secret's own path is read (`<mount>/data/<path>` with KV v2), so a policy that allows
    this one path is enough; older versions are read by `?version=`, and `metadata/` never.
    """

    def __init__(self, connection: VaultConnection, config: VaultKVConfig, kind: Kind = CA) -> None:
        self._connection = connection
        self._secret = Secret.of(config)
        self._parts = kind.named(config.fields.given())
        self._detected: int | None = None

    @property
    def name(self) -> str:
        """The secret as operators write it: `vault:<mount>/<path>`."""
        return self._secret.name

    def revisions(self) -> Iterator[Revision]:
        """Yield the newest revision, then each older one, for one request each.

        Raises `SecretNotFound`, `AccessDenied` or `SourceUnavailable`. The history ends where
        `max_versions` has cut it off, or at version 1. KV v1 keeps none.
        """
        version = self._version()
        try:
            newest = self._unversioned() if version == 1 else self._versioned()
        except SecretNotFound:
            # The mount may have become one of another version.
            self._detected = None
            raise
        yield newest
        if version == 1:
            return
        for number in range(int(newest.version) - 1, 0, -1):
            try:
                older = self._versioned(number)
            except SecretNotFound:
                return
            yield older

    def _version(self) -> int:
        """Return the engine's version: as configured, or as the server tells, asked once."""
        if self._secret.kv_version is not None:
            return self._secret.kv_version
        if self._detected is None:
            self._detected = self._detect()
        return self._detected

    def _detect(self) -> int:
        """Ask for the mount."""
        url = self._secret.mount_url
        try:
            answer = self._connection.call(lambda client: client.get(url), self.name)
        except VaultRefused as refused:
            raise AccessDenied(
                f"Vault did not tell which KV version {self.name} has ({refused.answer}).",
                hint=f"Check that the mount {self._secret.mount!r} exists and that a policy of the "
                "login allows to read the secret;\nor set kvVersion to 1 or 2, and this is not "
                "asked.",
            ) from refused
        return self._secret.engine(answer)

    def _unversioned(self) -> Revision:
        answer = self._read()
        fields = member(answer, "data", dict)
        # The digest covers a private key. It is shown, and that is safe: nobody can try out keys.
        mapped = {name: fields.get(name) for name in self._parts.names.values()}
        canonical = json.dumps(mapped, sort_keys=True, separators=(",", ":")).encode()
        version = f"sha256:{hashlib.sha256(canonical).hexdigest()[:12]}"
        return Revision(version, None, self._loader(fields))

    def _versioned(self, number: int | None = None) -> Revision:
        """Read one version, by default the newest."""
        answer = self._read(number)
        data = member(answer, "data", dict)
        metadata = member(data, "metadata", dict)
        found = member(metadata, "version", int)
        if found < 1 or number not in (None, found):
            raise malformed("version")
        version = str(found)
        created_at = _moment(member(metadata, "created_time", str))
        if data.get("data") is not None:
            return Revision(
                version,
                created_at,
                self._loader(member(data, "data", dict)),
                is_first=found == 1,
            )
        withdrawn, withdrawn_at = _withdrawn(metadata)
        message = f"Version {version} of {self.name} was withdrawn: {withdrawn}."
        return Revision(
            version, created_at, _nothing(message), withdrawn, withdrawn_at, is_first=found == 1
        )

    def _loader(self, fields: Mapping[str, object]) -> Callable[[], RawBundle]:
        return lambda: self._parts.take(fields)

    def _read(self, number: int | None = None) -> dict[str, Any]:
        """Read the secret, with KV v2 one version of it, by default the newest."""
        path = self._secret.path_of(self._version())
        version = {} if number is None else {"version": number}
        try:
            return self._connection.call(
                lambda client: client.get(url_of(path), **version), self.name
            )
        except VaultRefused as refused:
            raise self._explained(refused, path) from refused

    def _explained(self, refused: VaultRefused, path: str) -> CertagentError:
        """Return what a refusal to read the secret means."""
        if refused.status in _DENIED:
            return AccessDenied(
                f"Vault refused to read {self.name} ({refused.answer}).",
                hint=f'A policy of the login must allow "read" on "{path}".',
            )
        if refused.status == _NOT_FOUND:
            return SecretNotFound(
                f"There is no secret at {self.name} ({refused.answer}).",
                hint=f"{path!r} was read: check the mount, the path, and kvVersion if it is set.",
            )
        return SourceUnavailable(
            f"Vault could not read {self.name} ({refused.answer}).",
            hint="The mount may be upgrading itself to KV version 2, or not be a key-value engine.",
        )


def _nothing(message: str) -> Callable[[], RawBundle]:
    def load() -> RawBundle:
        raise SecretNotFound(message, hint="Undelete it, or store a new version.")

    return load


def _withdrawn(metadata: Mapping[str, object]) -> tuple[str, datetime | None]:
    """Return how a version was taken back, and when; Vault does not tell when it was destroyed."""
    if metadata.get("destroyed") is True:
        return "destroyed", None
    moment = _moment(member(metadata, "deletion_time", str))
    return f"deleted at {moment:%Y-%m-%dT%H:%M:%SZ}", moment


def _moment(text: str) -> datetime:
    """Return a time as Vault writes it: RFC 3339, with nanoseconds."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise malformed("time") from error
