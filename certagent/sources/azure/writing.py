"""The same secrets for their operators: a set can be pushed, whole or not at all for its readers.

Key Vault cannot write several secrets at once, nor check before it sets. So each version carries
the revision id of its push, and no reader takes one before all parts have it (`history`). For other
readers, who know of no tags, the private key comes first and the certificate last: in between, they
do not belong together. And who pushed meanwhile is found out afterwards, by the versions' ids.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from certagent.errors import (
    CertagentError,
    ConfigurationError,
    MaterialRefused,
    OutputError,
    SourceUnavailable,
)
from certagent.material.finding import Finding, Severity
from certagent.material.kinds import CA, Kind
from certagent.material.objects import PEM_TYPE, json_fields
from certagent.sources.azure.contents import Content, part_names
from certagent.sources.azure.failures import AzureRefused
from certagent.sources.azure.history import TAG, stored_sets
from certagent.sources.azure.secrets import KeyVaultSource
from certagent.sources.azure.shelf import MAX_VERSIONS
from certagent.sources.writing import Retention, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from certagent.config.model import AzureKeyVaultSource
    from certagent.material.raw import RawBundle
    from certagent.sources.azure.connection import AzureConnection

_LOG = logging.getLogger("certagent.azure")

MAX_VALUE = 25 * 1024
"""Bytes of a secret's value (Key Vault's own limit); told before anything is written."""

LONGEST_WAIT = 60.0
"""Seconds for which a push believes a Retry-After: somebody sits before it."""

_WAITS = (1.0, 2.0, 4.0)
"""Seconds between the attempts to write one secret, unless Key Vault asks for more."""

_LOOK_AGAIN, _LOOKS_BACK = 1.0, 30
"""Seconds between two looks at what was written, and how many looks there are."""

_JSON_TYPE = "application/json"
_DELETED = 409


class KeyVaultStore(KeyVaultSource):
    """Implements `sources.writing.Store` on the secrets of a vault, not on a certificate object.

    `pause` waits that many seconds.
    """

    keeps_history = True
    _grant = (
        "A push needs the role Key Vault Secrets Officer on the vault or, with access policies, the"
        " secret permissions Get, List and Set; a new role takes some minutes."
    )

    def __init__(
        self,
        connection: AzureConnection,
        config: AzureKeyVaultSource,
        kind: Kind = CA,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(connection, config, kind)
        self._kind = kind
        self._parts = part_names(config, kind)
        self._json = config.secret or ""
        self._pause = pause

    def read(self) -> Stored:
        """Return what the newest versions hold; a disabled one holds nothing.

        Raises `AccessDenied` also where the login may not list, and `SourceUnavailable`.
        """
        self._survey()
        for shelf in self._shelves:
            if len(shelf.versions or ()) >= MAX_VERSIONS:
                raise OutputError(
                    f"The secret {shelf.secret!r} of {self.name} has {MAX_VERSIONS} versions: more"
                    " are not read.",
                    hint="Store the set under other names, and let the agents read those.",
                )
        contents = {
            shelf.secret: self._value(shelf.secret)
            for shelf in self._shelves
            if shelf.versions and shelf.versions[-1].enabled
        }
        revision = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}-{secrets.token_hex(4)}"
        return Stored(self._newest_name(), revision, self._fields_in(contents), self._ids())

    def fields(self, raw: RawBundle, before: Stored) -> dict[str, object]:
        """Return the fields with a set's parts among them; those of a JSON that are not ours stay.

        Raises `ConfigurationError` where the set has more parts than there are secrets for them,
        and `MaterialRefused` where one is too large, or a part that is there would have to go.
        """
        names = self._parts.names.values()
        others = {name: value for name, value in before.fields.items() if name not in names}
        ours = {name: pem.decode("ascii") for name, pem in self._parts.give(raw).items()}
        wanted: dict[str, object] = {**others, **ours}
        contents = self._contents(wanted)
        if self._kind.decode(self._form.take(contents)).canonical() != raw:
            raise ConfigurationError(
                f"The secrets of {self.name} cannot hold all parts of this set.",
                hint="Name a secret for each part that it has, in the configuration's"
                " azureKeyVault: {secrets: {roots: …, crls: …}}, and none for two.",
            )
        for secret, content in contents.items():
            if (size := len(content.value.encode())) > MAX_VALUE:
                raise _refused(
                    "part-too-large",
                    f"{secret!r} would have {size} bytes; Key Vault takes {MAX_VALUE}.",
                    "Take out the roots and lists that nobody needs any more.",
                )
        for shelf in self._shelves:
            if shelf.versions and shelf.secret not in contents:
                raise _refused(
                    "part-missing",
                    f"{self.name} has {shelf.secret!r}, and this set has nothing for it.",
                    "Key Vault cannot take one part away: add it to the set (a revocation list may"
                    " be empty), or delete the secret.",
                )
        return wanted

    def write(self, fields: Mapping[str, object], before: Stored) -> str:
        """Write a version of each secret with the push's revision id, and wait until all are seen.

        Raises as `Store.write` does. Where some were written, the error says which.
        """
        contents = self._contents(fields)
        self._survey()
        if self._ids() != before.ids:
            raise self.conflict(self._newest_name())
        written: list[str] = []
        try:
            for secret in sorted(contents, key=self._turn):
                self._set(secret, contents[secret], before.following)
                written.append(secret)
            self._await(frozenset(written), before)
        except CertagentError as error:
            _add(error, written)
            raise
        return before.following

    def load(self, version: str) -> RawBundle:
        """Return the parts of a version; raises `OutputError` where there is no such version."""
        for revision in self.revisions():
            if revision.version == version:
                return revision.load()
        raise OutputError(
            f"{self.name} does not show version {version}.",
            hint="Look at what it holds (`certagent plan`), and push again.",
        )

    def retention(self) -> Retention:
        """Return that Key Vault keeps all versions."""
        return Retention()

    def conflict(self, version: str) -> OutputError:
        """Return the error for a push that another one overtook, before it wrote anything."""
        return OutputError(
            f"Somebody changed {self.name} meanwhile: its newest version is {version} now. Nothing"
            " was stored.",
            hint="Look at what it is (`certagent plan`), and push again if it is still meant.",
        )

    # What is there

    def _survey(self) -> None:
        """Bring the lists of versions up to date; without them nobody can tell who else pushes."""
        try:
            self._look()
        except AzureRefused as refused:
            raise self._explained(refused, "list the versions of") from refused

    def _ids(self) -> frozenset[str]:
        return frozenset(
            f"{version.secret}/{version.id}"
            for shelf in self._shelves
            for version in shelf.versions or ()
        )

    def _newest_name(self) -> str:
        versions = {shelf.secret: shelf.versions or () for shelf in self._shelves}
        newest = next(stored_sets(versions, self._form.optional, self._now()), None)
        return newest.name if newest else ""

    def _value(self, secret: str) -> str:
        read: dict[tuple[str, str], Content] = {}
        self._read(secret, "", read)
        return next((content.value for content in read.values()), "")

    # Fields and contents: a field is a secret, or a member of the one secret that is JSON

    def _fields_in(self, contents: Mapping[str, str]) -> dict[str, object]:
        if not self._json:
            return dict(contents)
        try:
            return json_fields(contents.get(self._json, "{}"), self._json, "")
        except MaterialRefused:
            return {}  # it is replaced whole

    def _contents(self, fields: Mapping[str, object]) -> dict[str, Content]:
        if self._json:
            return {self._json: Content(json.dumps(fields, indent=2), _JSON_TYPE)}
        return {name: Content(str(value), PEM_TYPE) for name, value in fields.items()}

    def _turn(self, secret: str) -> int:
        """Return when it is a secret's turn: the private key first, and the certificate last."""
        if secret in self._form.private:
            return 0
        return 2 if secret == self._parts.names["certificate"] else 1

    # Writing

    def _set(self, secret: str, content: Content, revision: str) -> None:
        """Write one version, and try again where Key Vault cannot take it now.

        One whose answer was lost is written twice, with one revision id: the later one counts.
        """
        self._connection.conceal(content.value)
        waits = iter(_WAITS)
        while True:
            try:
                return self._put(secret, content, revision)
            except SourceUnavailable as error:
                wait = next(waits, None)
                if wait is None or isinstance(error.__cause__, AzureRefused):
                    raise
                seconds = min(max(wait, error.retry_after or 0.0), LONGEST_WAIT)
                _LOG.warning("%s Trying again in %g s.", error.message, seconds)
                self._pause(seconds)

    def _put(self, secret: str, content: Content, revision: str) -> None:
        try:
            self._connection.call(
                lambda client: client.set_secret(
                    secret,
                    content.value,
                    content_type=content.content_type,
                    tags={TAG: revision},
                )
            )
        except AzureRefused as refused:
            raise self._unwritable(refused, secret) from refused

    def _unwritable(self, refused: AzureRefused, secret: str) -> CertagentError:
        if refused.status != _DELETED:
            return self._explained(refused, "write", secret)
        vault = f"--vault-name {self._connection.vault} --name {secret}"
        return OutputError(
            f"Key Vault did not take {secret!r} in {self.name} ({refused.answer}).",
            hint=f"If it was deleted: `az keyvault secret recover {vault}`, then push again.",
        )

    def _await(self, written: frozenset[str], before: Stored) -> None:
        """Wait until all that was written is listed; raises `OutputError` where more is."""
        for _ in range(_LOOKS_BACK):
            self._survey()
            came = [
                version
                for shelf in self._shelves
                for version in shelf.versions or ()
                if f"{version.secret}/{version.id}" not in before.ids
            ]
            theirs = sorted({each.secret for each in came if each.tag != before.following})
            if theirs:
                raise OutputError(
                    f"Somebody else stored {' and '.join(map(repr, theirs))} in {self.name} at the"
                    " same moment."
                )
            if {each.secret for each in came} == written:
                return
            self._pause(_LOOK_AGAIN)
        raise SourceUnavailable(f"{self.name} does not list all that was written.")


def _add(error: CertagentError, written: Sequence[str]) -> None:
    """Add to an error what was written before it, and what that means."""
    if written:
        done = "was" if len(written) == 1 else "were"
        error.message += f" {' and '.join(map(repr, written))} {done} written before."
        cause, _, _ = error.hint.partition("\n")
        safe = "Push again, which is safe: agents keep the last good set until a push is whole."
        error.hint = f"{cause}\n{safe}" if cause else safe


def _refused(code: str, message: str, hint: str) -> MaterialRefused:
    finding = Finding(code, Severity.ERROR, "secret", message, hint)
    return MaterialRefused(message, (finding,), hint=hint)
