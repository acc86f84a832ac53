"""One secret's versions as the vault lists them: without values, and for one request a look."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from certagent.errors import SourceUnavailable
from certagent.sources.azure.failures import DISABLED, AzureRefused
from certagent.sources.azure.history import TAG, SecretVersion
from certagent.sources.azure.login import STRANGE
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
            if not found:
                self._connection.require("value")
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
    try:
        created, tag = properties.created_on, _tag(properties.tags)
        times = created, properties.updated_on, properties.not_before, properties.expires_on
    except STRANGE:
        raise malformed() from None
    # The SDK passes on as it is what it cannot make a time of.
    are_times = all(each is None or isinstance(each, datetime) for each in times)
    if not (properties.name and properties.version and created and are_times):
        raise malformed()
    _, updated, not_before, expires = times
    return SecretVersion(
        properties.name,
        properties.version,
        created,
        updated or created,
        not_before=not_before,
        expires=expires,
        enabled=properties.enabled is not False,
        tag=tag,
    )


def malformed() -> SourceUnavailable:
    """Return the error for what is JSON, and not the version of a secret that was asked for."""
    return SourceUnavailable(
        "Key Vault's answer has a version without an id or a time of creation, or another one.",
        hint="Something else than Key Vault answers there: check azure.vaultUrl.",
    )


def _tag(tags: dict[str, str] | None) -> str:
    """Return the revision that a version was pushed with: anybody may set it, so it is cut."""
    return one_line((tags or {}).get(TAG, ""))[:_LONGEST_TAG]
