"""Where material comes from.

A source yields revisions, newest first and lazily: reading one more costs a request, so the caller
stops as soon as it has seen enough. A store without history (KV v1, a directory) yields one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from certagent.values import shown

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from certagent.material.raw import RawBundle


class Revision(Struct, frozen=True):
    """One version of a set in its store.

    `version` names it within its source for ever: the number of a KV v2 version, or
    `sha256:<12 hex digits>` of the content where the store counts nothing. `created_at` is the
    store's own time (aware, UTC) where it tells one. `withdrawn` is empty, or says how the version
    was taken back (`deleted at …`, `destroyed`): such a revision has no material; `withdrawn_at` is
    when, where the store says.
    """

    version: str
    created_at: datetime | None
    load: Callable[[], RawBundle]
    """The parts as the store holds them. Raises what `Source.revisions` raises, and
    `MaterialRefused` where a part is missing, empty, too large or not text."""
    withdrawn: str = ""
    withdrawn_at: datetime | None = None
    expires_at: datetime | None = None
    """From when the store's own attributes forbid its use, as if its certificates ended then."""
    is_first: bool = False
    """Nothing was stored before it, so that a history that ends here is complete."""
    is_mixture: bool = False
    """Its parts are versioned one by one, and were not all stored at the same time: an operator may
    have been in the middle of storing them. That it does not verify is then to be expected."""
    renewable_until: datetime | None = None
    """Set where the certificate was issued on request, and will be again: until when its issuer
    can. When each agent had its own made is no part of the history, and neither is its end."""

    def __repr__(self) -> str:
        """Show what is neither secret nor long."""
        return shown(self, "version", "created_at", "withdrawn", "withdrawn_at")


class Source(Protocol):
    """A store that holds one set.

    `name` is how operators write it: `vault:<mount>/<path>`, `file:<directory>`.
    """

    @property
    def name(self) -> str:
        """How operators write it."""
        ...

    def revisions(self) -> Iterator[Revision]:
        """Yield the revisions, newest first, each read from the store when it is asked for.

        Raises `SecretNotFound`, `AccessDenied` or `SourceUnavailable`.
        """
        ...


class Connection(Protocol):
    """What the sources of one store share: its login, and the count of what was asked of it."""

    requests: Counter[str]
    """By outcome: `ok`, `denied`, `missing`, `unavailable`, `limited`."""
    logins: Counter[str]
    """By outcome, the same words."""

    def close(self) -> None:
        """Give back what was taken: revoke a token that was obtained by a login. Never raises."""
        ...
