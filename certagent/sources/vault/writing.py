"""The same secret for its operators: it can be written, and its versions destroyed.

Nothing of this is imported by an agent, whose policy allows to read and no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from certagent.errors import AccessDenied, OutputError, SecretNotFound, SourceUnavailable
from certagent.sources.vault.client import VaultRefused
from certagent.sources.vault.kv import VaultKVSource
from certagent.sources.writing import NEW, Retention, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import hvac

    from certagent.errors import CertagentError
    from certagent.material.raw import RawBundle

DEFAULT_MAX_VERSIONS = 10
"""How many versions KV v2 keeps where neither the mount nor the secret says another number."""

_NOT_FOUND = 404
_DENIED = frozenset({401, 403})
_NEVER = frozenset({"", "0s"})


class VaultKVStore(VaultKVSource):
    """Implements `sources.writing.Store` on a KV v1 or v2 secret."""

    @property
    def keeps_history(self) -> bool:
        """Whether it is of KV v2; raises what `revisions` raises."""
        return self._version() != 1

    def read(self) -> Stored:
        """Return the secret as it is now; raises `AccessDenied` or `SourceUnavailable`.

        Raises `SecretNotFound` only where the mount is no key-value engine.
        """
        keeps_history = self.keeps_history
        try:
            answer = self._read()
        except SecretNotFound:
            return Stored(following="1" if keeps_history else NEW)
        if not keeps_history:
            return Stored(fields=answer.get("data") or {})
        found = answer["data"]
        version = int(found["metadata"]["version"])
        return Stored(str(version), str(version + 1), found.get("data") or {})

    def fields(self, raw: RawBundle, before: Stored) -> dict[str, object]:
        """Return the secret with a set's parts in it; fields that are not ours stay.

        Raises `MaterialRefused` where a field is asked for that the set has nothing for.
        """
        names = self._parts.names
        others = {
            name: value for name, value in before.fields.items() if name not in names.values()
        }
        ours = {name: pem.decode("ascii") for name, pem in self._parts.give(raw).items()}
        self._parts.take(ours)
        return others | ours

    def write(self, fields: Mapping[str, object], before: Stored) -> str:
        """Store these fields, and return the version: with KV v2 as the one after `before`.

        KV v2 checks and sets: raises `OutputError` where somebody stored another version meanwhile.
        KV v1 cannot, and its version is empty. Raises `AccessDenied` or `SourceUnavailable`; after
        the latter the set may be there, and to push it again does no harm.
        """
        wanted = dict(fields)
        if not self.keeps_history:
            self._change(
                lambda api: api.secrets.kv.v1.create_or_update_secret(
                    self._secret.path, wanted, method="POST", mount_point=self._secret.mount
                ),
                ("write", '"create" and "update"', self._secret.path),
            )
            return ""
        answer = self._change(
            lambda api: api.secrets.kv.v2.create_or_update_secret(
                self._secret.path,
                wanted,
                cas=int(before.version or 0),
                mount_point=self._secret.mount,
            ),
            ("write", '"create" and "update"', f"data/{self._secret.path}"),
        )
        return str(answer["data"]["version"])

    def destroy(self, versions: Sequence[int]) -> None:
        """Destroy the material of versions for ever; raises as `write` does."""
        self._change(
            lambda api: api.secrets.kv.v2.destroy_secret_versions(
                self._secret.path, list(versions), mount_point=self._secret.mount
            ),
            ("destroy versions of", '"update"', f"destroy/{self._secret.path}"),
        )

    def retention(self) -> Retention | None:
        """Return how long versions are kept, or None where the login may not look.

        The larger number of the secret's and the mount's counts (Vault's `AddVersion`, KV v2).
        KV v1 keeps none, and nothing is looked up. Raises `SourceUnavailable`.
        """
        if not self.keeps_history:
            return None
        mount = self._told(lambda api: api.secrets.kv.v2.read_configuration(self._secret.mount))
        secret = self._told(
            lambda api: api.secrets.kv.v2.read_secret_metadata(
                self._secret.path, self._secret.mount
            )
        )
        if mount is None or secret is None:
            return None
        told = [mount, secret]
        most = max(int(each.get("max_versions") or 0) for each in told)
        ages = [str(each.get("delete_version_after") or "") for each in told]
        age = next((each for each in reversed(ages) if each not in _NEVER), "")
        return Retention(most or DEFAULT_MAX_VERSIONS, age)

    def conflict(self, version: str) -> OutputError:
        """Return the error for a push that another one overtook: this version is the newest."""
        return OutputError(
            f"Somebody changed {self.name} meanwhile: its newest version is {version} now. Nothing"
            " was stored.",
            hint="Look at what it is (`certagent plan`), and push again if it is still meant.",
        )

    def load(self, version: str) -> RawBundle:
        """Return the parts of a version, or with KV v1 (an empty one) of what is there now.

        Raises what `revisions` and `Revision.load` raise.
        """
        revision = self._versioned(int(version)) if version else self._unversioned()
        return revision.load()

    def _told(self, operation: Callable[[hvac.Client], Any]) -> dict[str, Any] | None:
        try:
            answer = self._connection.call(lambda client: operation(client.api))
        except VaultRefused as refused:
            return {} if refused.status == _NOT_FOUND else None  # 404: nothing is stored yet
        found = answer.get("data")
        return found if isinstance(found, dict) else {}

    def _change(
        self, operation: Callable[[hvac.Client], Any], means: tuple[str, str, str]
    ) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._connection.call(lambda client: operation(client.api))
        except VaultRefused as refused:
            raise self._why(refused, *means) from refused
        return answer

    def _why(
        self, refused: VaultRefused, doing: str, capabilities: str, path: str
    ) -> CertagentError:
        if refused.status in _DENIED:
            return AccessDenied(
                f"Vault refused to {doing} {self.name} ({refused.answer}).",
                hint=f"A policy of the login must allow {capabilities} on "
                f'"{self._secret.mount}/{path}".',
            )
        if "check-and-set" in refused.reason:
            return self.conflict(self.read().version)
        return SourceUnavailable(
            f"Vault could not {doing} {self.name} ({refused.answer}).",
            hint="The mount may be upgrading itself to KV version 2; the secret may be too large.",
        )
