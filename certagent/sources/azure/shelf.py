"""One secret's versions as the vault lists them: without values, and for one request a look."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from certagent.errors import SourceUnavailable
from certagent.sources.azure.failures import DISABLED, AzureRefused
from certagent.sources.azure.history import TAG, SecretVersion
from certagent.sources.http.failures import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from azure.keyvault.secrets import SecretClient, SecretProperties

    from certagent.sources.azure.connection import AzureConnection

MAX_VERSIONS = 2000
"""More are not read. Key Vault itself keeps any number, and backs up 500 at most."""

PAGE = 25
"""Versions on one page of a list (Key Vault's limit of `maxresults`)."""

_MAX_PAGES = 4 * MAX_VERSIONS // PAGE
"""A page may have fewer versions, or none; a list whose pages never end is broken."""

RELIST = 300.0
"""Seconds for which a list of several pages stands while the newest version stays the same."""

_NOT_FOUND = 404
_LONGEST_TAG = 64


class Shelf:
    """The versions of one secret, oldest first: of the same second, the present one is the last.

    A list of one page is read at every look. A longer one costs a request for each page, so then
    the newest version alone is looked at, and the list is read again when that has changed, and
    every few minutes, for an older version that was disabled.
    """

    def __init__(
        self,
        connection: AzureConnection,
        secret: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.secret = secret
        self.versions: tuple[SecretVersion, ...] | None = None
        self._connection = connection
        self._clock = clock
        self._listed_at = 0.0

    def look(self) -> bool:
        """Bring the versions up to date, and return whether they have changed.

        Raises what `AzureConnection.call` raises; `AzureRefused` where listing is not permitted.
        """
        before = self.versions
        if self._is_unchanged():
            return False
        versions = self._listed()
        newest = [each for each in versions if each.created == versions[-1].created]
        if len(newest) > 1:
            versions = self._settled(versions, before)
        self.versions = tuple(versions)
        return self.versions != before

    def _is_unchanged(self) -> bool:
        """Whether the newest version of a long list is as it was, and the list not too old."""
        if not self.versions or len(self.versions) <= PAGE:
            return False
        if self._clock() - self._listed_at > RELIST:
            return False
        try:
            found = self._connection.call(lambda client: client.get_secret(self.secret))
        except AzureRefused as refused:
            # Or it is gone, or was disabled by now.
            return refused.code == DISABLED and not self.versions[-1].enabled
        return version_of(found.properties) == self.versions[-1]

    def _listed(self) -> list[SecretVersion]:
        def every(client: SecretClient) -> list[SecretVersion]:
            found: list[SecretVersion] = []
            pages = client.list_properties_of_secret_versions(self.secret).by_page()
            for number, page in enumerate(pages, start=1):
                found += map(version_of, page)
                if len(found) > MAX_VERSIONS or number > _MAX_PAGES:
                    raise SourceUnavailable(
                        f"The secret {self.secret!r} has more than {MAX_VERSIONS} versions, or a"
                        " list of them without end.",
                        hint="Store the set under other names, or delete and purge the secret"
                        " (az keyvault secret purge), and store it anew.",
                    )
            return found

        try:
            versions = self._connection.call(every)
        except AzureRefused as refused:
            if refused.status != _NOT_FOUND:
                raise
            versions = []
        self._listed_at = self._clock()
        # The list is in no order of times (that of the ids, perhaps).
        return sorted(versions, key=lambda each: (each.created, each.updated, each.id))

    def _settled(
        self, versions: list[SecretVersion], before: tuple[SecretVersion, ...] | None
    ) -> list[SecretVersion]:
        """Put the present version last, where several are of the same second."""
        if before and {each.id for each in before} == {each.id for each in versions}:
            present = before[-1].id
        else:
            try:
                found = self._connection.call(lambda client: client.get_secret(self.secret))
            except AzureRefused:
                return versions  # it is disabled: nothing tells which one it is
            present = version_of(found.properties).id
        return sorted(versions, key=lambda each: (each.created, each.id == present))


def version_of(properties: SecretProperties) -> SecretVersion:
    """Return what is told of a version; raises `SourceUnavailable` where that is too little."""
    created, updated = properties.created_on, properties.updated_on
    if not properties.name or not properties.version or created is None:
        raise SourceUnavailable(
            "Key Vault's answer has a version without an id or a time of creation.",
            hint="Something else than Key Vault answers there: check azure.vaultUrl.",
        )
    return SecretVersion(
        properties.name,
        properties.version,
        created,
        updated or created,
        not_before=properties.not_before,
        expires=properties.expires_on,
        enabled=properties.enabled is not False,
        tag=_tag(properties.tags),
    )


def _tag(tags: dict[str, str] | None) -> str:
    """Return the revision that a version was pushed with: anybody may set it, so it is cut."""
    return one_line((tags or {}).get(TAG, ""))[:_LONGEST_TAG]
