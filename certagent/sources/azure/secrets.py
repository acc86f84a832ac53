"""Key Vault as a source: the sets that its secrets have made, and a poll for a request each."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from certagent.errors import AccessDenied, MaterialRefused, SecretNotFound, SourceUnavailable
from certagent.material.finding import Finding, Severity
from certagent.material.kinds import CA, Kind
from certagent.sources import Revision
from certagent.sources.azure.contents import Content, form_of
from certagent.sources.azure.failures import DISABLED, AzureRefused
from certagent.sources.azure.history import is_by_hand, is_coming, stored_sets
from certagent.sources.azure.shelf import Shelf, malformed, version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from certagent.config.model import AzureKeyVaultSource
    from certagent.errors import CertagentError
    from certagent.material.raw import RawBundle
    from certagent.sources.azure.connection import AzureConnection
    from certagent.sources.azure.history import SecretVersion, StoredSet

    Contents = dict[tuple[str, str], Content]
    """What was read in a pass, by secret and version; nothing outlives it."""

_LOG = logging.getLogger("certagent.azure")
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 401, 403, 404
_LOOKS = 3
"""How often the lists are read while they change: each operator stores one secret after another."""

_MARGIN = timedelta(seconds=10)
"""By how much the clocks of a vault's servers may differ."""

_LIST_AGAIN = 600.0
"""Seconds until it is tried again whether listing is permitted by now."""

_NETWORK = frozenset({"ForbiddenByFirewall", "ForbiddenByConnection"})
_GRANT = (
    "The identity needs the role Key Vault Secrets User on the vault or, with access policies, the"
    " secret permissions Get and List;\na new role takes some minutes to work."
)

_OTHER_TENANT = (
    "It does not take the login's token: is the vault in the tenant of azure.credential, and in"
    " azure.cloud?"
)


class KeyVaultSource:
    """Implements `sources.Source` on the secrets of a vault.

    With the permission to list, a poll is one list for each secret, without any value; a value is
    read once, when its set is judged. Without it, the newest versions are all that is known.
    `clock` is monotonic, `now` the time.
    """

    _grant = _GRANT
    """What to do about a refusal for want of a permission."""

    def __init__(
        self,
        connection: AzureConnection,
        config: AzureKeyVaultSource,
        kind: Kind = CA,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._connection = connection
        self._form = form_of(config, kind)
        self._shelves = [Shelf(connection, name, clock) for name in self._form.secrets]
        own = config.certificate or config.secret
        self._name = f"azure:{connection.vault}" + (f"/{own}" if own else "")
        self._clock = clock
        self._now = now
        self._list_at = -1.0
        self._told: set[str] = set()

    @property
    def name(self) -> str:
        """The vault as operators write it: `azure:<vault name>`; a single secret is named too."""
        return self._name

    def revisions(self) -> Iterator[Revision]:
        """Yield the sets, newest first; only what is in a set that is loaded costs a request more.

        Raises `SecretNotFound`, `AccessDenied` or `SourceUnavailable`. Without the permission to
        list there is one, of the newest versions.
        """
        read: Contents = {}
        if self._may_list():
            yield from self._listed(read)
            return
        newest = self._newest(read)
        # Only now: who may not read either has no role yet, and it will bring both. And once more:
        # what was refused for a moment is permitted, and behind the newest are sets to be known.
        if self._may_list():
            yield from self._listed(read)
            return
        self._tell_once(
            "list",
            f"The login may not list the versions of the secrets in {self.name}: a pod that starts"
            " while a set is being stored waits for its end, older sets are not there to go back"
            " to, and a new root is staged only by agents that run already. The role Key Vault"
            " Secrets User allows it, or the secret permission List.",
        )
        if self._clock() >= self._list_at:
            self._list_at = self._clock() + _LIST_AGAIN
        yield newest

    def _may_list(self) -> bool:
        """Bring all shelves up to date, unless that is not permitted, or was not a while ago."""
        if self._clock() < self._list_at:
            return False
        try:
            self._look()
        except AzureRefused as refused:
            if refused.status != _FORBIDDEN or refused.code in _NETWORK:
                raise self._explained(refused, "list the versions of") from refused
            return False
        return True

    def _look(self) -> None:
        """Bring all shelves up to date, as of one moment.

        That is when the first of them was looked at, where nothing has come since; else they are
        looked at again, until nothing changes in between.
        """
        for _ in range(_LOOKS):
            began = self._clock()
            changed = [shelf.look() for shelf in self._shelves]
            took = timedelta(seconds=self._clock() - began)
            if len(changed) == 1 or not any(changed) or self._is_quiet_for(took):
                return

    def _is_quiet_for(self, time: timedelta) -> bool:
        """Whether no version came or changed in that time, by the vault's own clock."""
        answered_at = self._connection.answered_at
        if answered_at is None:
            return False
        since = answered_at - time - _MARGIN
        return all(each.updated < since for shelf in self._shelves for each in shelf.versions or ())

    def _listed(self, read: Contents) -> Iterator[Revision]:
        now = self._now()
        versions = {shelf.secret: shelf.versions or () for shelf in self._shelves}
        self._require({name for name, each in versions.items() if each})
        coming = [each for every in versions.values() for each in every if is_coming(each, now)]
        for each in coming:
            self._tell_once(
                f"{each.secret}/{each.id}",
                f"The secret {each.secret!r} of {self.name} has a version that is not used before"
                f" {each.not_before:%FT%TZ}, its activation date.",
            )
        is_empty = True
        for stored in stored_sets(versions, self._form.optional, now):
            if is_empty:
                self._tell_of_expiry(stored, now)
            is_empty = False
            yield self._revision(stored, read)
        if is_empty and coming:
            first = min(each.since for each in coming)
            raise SecretNotFound(
                f"{self.name} has no set that may be used before {first:%FT%TZ}, its activation"
                " date.",
                hint="Wait, or set an earlier date (az keyvault secret set-attributes"
                " --not-before).",
            )

    def _newest(self, read: Contents) -> Revision:
        """Read the newest version of each secret, and that is all there is."""
        newest: dict[str, list[SecretVersion]] = {}
        for secret in self._form.secrets:
            version = self._read(secret, "", read)
            if version is not None:
                newest[secret] = [version]
        self._require(newest.keys())
        now = self._now()
        if is_by_hand([each for (each,) in newest.values()]):
            newest = {name: [replace(each, tag="")] for name, (each,) in newest.items()}
        stored = next(stored_sets(newest, self._form.optional, now), None)
        if stored is None:
            late = [each for (each,) in newest.values() if is_coming(each, now)]
            raise SecretNotFound(
                f"The newest version of {late[0].secret!r} in {self.name} is not to be used before"
                f" {late[0].not_before:%FT%TZ}.",
                hint=f"To read the one before, the login must be allowed to list.\n{self._grant}",
            )
        self._tell_of_expiry(stored, now)
        # What was before it cannot be told.
        return self._revision(replace(stored, is_first=False), read)

    def _revision(self, stored: StoredSet, read: Contents) -> Revision:
        return Revision(
            stored.name,
            stored.moment,
            partial(self._load, stored, read),
            withdrawn=stored.withdrawn,
            withdrawn_at=stored.withdrawn_at,
            expires_at=stored.expires,
            is_first=stored.is_first,
            is_mixture=stored.is_mixture,
        )

    def _load(self, stored: StoredSet, read: Contents) -> RawBundle:
        if stored.unfinished:
            raise _unfinished(stored)
        if stored.withdrawn:
            raise SecretNotFound(
                f"Version {stored.name} of {self.name} was {stored.withdrawn}.",
                hint="Enable it (az keyvault secret set-attributes), or store a new set.",
            )
        for name, each in stored.parts.items():
            if (name, each.id) not in read:
                self._read(name, each.id, read)
        contents = {name: read[name, each.id] for name, each in stored.parts.items()}
        return self._form.take(contents)

    def _read(self, secret: str, version: str, read: Contents) -> SecretVersion | None:
        """Read a version, by default the newest; None where an optional secret is not there."""
        try:
            found = self._connection.call(lambda client: client.get_secret(secret, version))
        except AzureRefused as refused:
            if refused.status == _NOT_FOUND and secret in self._form.optional:
                return None
            raise self._explained(refused, "read", secret) from refused
        value = found.value or ""
        if not isinstance(value, str):
            raise malformed()
        if secret in self._form.private:
            self._connection.conceal(value)
        told, content_type = version_of(found.properties), found.properties.content_type or ""
        if version not in ("", told.id) or not isinstance(content_type, str):
            raise malformed()
        read[secret, told.id] = Content(value, content_type)
        return told

    def _require(self, present: Container[str]) -> None:
        """Raise `SecretNotFound` unless all secrets are there that a set cannot do without."""
        missing = [
            repr(secret)
            for secret in self._form.secrets
            if secret not in present and secret not in self._form.optional
        ]
        if missing:
            raise SecretNotFound(
                f"{self.name} has no secret {' and no '.join(missing)}.",
                hint="Check the names in azureKeyVault, and the vault's. A deleted one comes back"
                " with `az keyvault secret recover`.",
            )

    def _explained(self, refused: AzureRefused, doing: str, secret: str = "") -> CertagentError:
        """Return what a refusal means."""
        what = f"{self.name}, secret {secret!r}" if secret else self.name
        if refused.code == DISABLED:
            return SecretNotFound(
                f"The newest version of {secret!r} in {self.name} is disabled.",
                hint="certagent does not go back to an older one by itself. Enable it (az keyvault"
                " secret set-attributes --enabled true),\nor store a new set.",
            )
        if refused.code in _NETWORK:
            return AccessDenied(
                f"The network rules of {self.name} let nobody in from here ({refused.answer}).",
                hint="Allow this cluster's address or subnet in the vault's firewall, or use a"
                " private endpoint.",
            )
        if refused.status in {_UNAUTHORIZED, _FORBIDDEN}:
            hint = self._grant if refused.status == _FORBIDDEN else _OTHER_TENANT
            return AccessDenied(
                f"Key Vault refused to {doing} {what} ({refused.answer}).", hint=hint
            )
        if refused.status == _NOT_FOUND:
            return SecretNotFound(
                f"There is no {secret!r} in {self.name} ({refused.answer}).",
                hint="Check the names in azureKeyVault, and the vault's. A deleted one comes back"
                " with `az keyvault secret recover`.",
            )
        return SourceUnavailable(
            f"Key Vault could not {doing} {what} ({refused.answer}).",
            hint="Its answer tells why; the request is tried again.",
        )

    def _tell_of_expiry(self, newest: StoredSet, now: datetime) -> None:
        if newest.expires is not None and newest.expires <= now:
            self._tell_once(
                f"{newest.name} {newest.expires}",
                f"Version {newest.name} of {self.name} expired at {newest.expires:%FT%TZ}, the"
                " expiration date of its secrets: store a new set, or set a later date (az keyvault"
                " secret set-attributes --expires).",
            )

    def _tell_once(self, about: str, message: str) -> None:
        if about not in self._told:
            self._told.add(about)
            _LOG.warning("%s", message)


def _unfinished(stored: StoredSet) -> MaterialRefused:
    """Return the refusal of a moment in the middle of a push."""
    message = f"A push has not stored all of its parts: {' or '.join(stored.unfinished)}."
    hint = "It may be under way. If it was interrupted, push the set again."
    return MaterialRefused(
        message, (Finding("part-missing", Severity.ERROR, "roots", message, hint),), hint=hint
    )
