"""Which sets a vault has held: several secrets, each with versions and times of its own.

A set is read *as of* a moment: of each secret the version that was the newest then. A moment is
when some version came, so the moment of a whole set is when its last part did. An operator who
stores the parts one by one leaves sets in between; they are told as such (`is_mixture`) and, unless
they verify, are nobody's. A push that tags its versions with one revision id needs no such guess:
a tagged version belongs to the set of its tag and to no other, unless versions without a tag were
stored over the whole of that set.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

TAG = "certagent-revision"
"""The tag that says which versions were pushed together."""

APART = timedelta(minutes=10)
"""Parts that were stored within this time are taken for one hand's work, and told loudly when they
do not verify; four `az keyvault secret set` take a minute."""

_MOST_AT_ONCE = 16
"""Sets of one moment that are told: of four parts with two versions each there are as many."""


@dataclass(frozen=True, slots=True)
class SecretVersion:
    """One version of one secret; times are Key Vault's, in whole seconds (aware, UTC).

    `since` is when it came to be used: it was created, and its not-before time had come.
    """

    secret: str
    id: str
    created: datetime
    updated: datetime
    not_before: datetime | None = None
    expires: datetime | None = None
    enabled: bool = True
    tag: str = ""

    @property
    def since(self) -> datetime:
        """When it came to be used."""
        return max(self.created, self.not_before or self.created)


Parts = dict[str, SecretVersion]
"""The version of each secret, by the secret's name."""


@dataclass(frozen=True, slots=True)
class StoredSet:
    """The versions of a moment; `tag` is theirs where they were pushed together.

    `unfinished` names pushes that were not completed: then it is no set, and never will be one.
    """

    parts: Parts
    tag: str = ""
    unfinished: tuple[str, ...] = ()
    is_first: bool = False

    @property
    def moment(self) -> datetime:
        """When it became whole: when the last of its parts came to be used."""
        return max(each.since for each in self.parts.values())

    @property
    def name(self) -> str:
        """What it is called for ever: its tag, or its moment and a digest of its versions' ids."""
        if self.tag:
            return self.tag
        ids = sorted(f"{each.secret}/{each.id}" for each in self.parts.values())
        digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
        return f"{self.moment:%Y-%m-%dT%H:%M:%SZ}-{digest[:8]}"

    @property
    def is_mixture(self) -> bool:
        """Whether somebody may have been in the middle of storing it."""
        first = min(each.since for each in self.parts.values())
        return bool(self.unfinished) or (not self.tag and self.moment - first > APART)

    @property
    def withdrawn(self) -> str:
        """How it was taken back; empty where it was not, or never was a set."""
        if not self._away:
            return ""
        first = min(self._away, key=lambda each: each.updated)
        return f"disabled at {first.updated:%Y-%m-%dT%H:%M:%SZ} ({first.secret}/{first.id[:8]})"

    @property
    def withdrawn_at(self) -> datetime | None:
        """When it was taken back: Key Vault tells when a version was changed last."""
        return min((each.updated for each in self._away), default=None)

    @property
    def _away(self) -> list[SecretVersion]:
        return [each for each in self.parts.values() if not each.enabled and not self.unfinished]

    @property
    def expires(self) -> datetime | None:
        """From when nobody is to use it any more, where its versions say so."""
        return min((each.expires for each in self.parts.values() if each.expires), default=None)


def stored_sets(
    secrets: Mapping[str, Sequence[SecretVersion]], optional: frozenset[str], now: datetime
) -> Iterator[StoredSet]:
    """Yield the sets that the secrets have made, newest first; the last one was the first of all.

    `secrets` maps each secret to its versions, oldest first: where times are equal, that order says
    which is the later one. Versions whose not-before time is ahead of `now` are as good as not
    stored. A set may lack `optional` secrets.
    """
    begun = {
        name: [each for each in versions if not is_coming(each, now)]
        for name, versions in secrets.items()
    }
    held: StoredSet | None = None
    for each in _History(begun, frozenset(secrets.keys() - optional)).sets():
        if held is not None:
            yield held
        held = each
    if held is not None:
        yield replace(held, is_first=True)


def is_coming(version: SecretVersion, now: datetime) -> bool:
    """Tell whether a version is not to be used yet."""
    return version.not_before is not None and version.not_before > now


def is_by_hand(newest: Sequence[SecretVersion]) -> bool:
    """Tell whether parts were stored over a push, where nothing older can be looked at.

    Then what has no tag is newer than what has one; in the middle of a push it is older.
    """
    pushed = [each.since for each in newest if each.tag]
    others = [each.since for each in newest if not each.tag]
    one_push = len({each.tag for each in newest if each.tag}) == 1
    return one_push and bool(others) and min(others) > max(pushed)


class _History:
    """The versions of all secrets, and the pushes among them, by their tags."""

    def __init__(
        self, secrets: Mapping[str, Sequence[SecretVersion]], required: frozenset[str]
    ) -> None:
        self._secrets = secrets
        self._required = required
        self._pushes = self._whole_pushes()

    def sets(self) -> Iterator[StoredSet]:
        """Yield the sets, newest first."""
        pushed_at: dict[datetime, list[StoredSet]] = {}
        for push in self._pushes.values():
            pushed_at.setdefault(push.moment, []).append(push)
        is_newest = True
        for moment in self._moments():
            at_once = pushed_at.get(moment, [])
            told: list[Parts] = []
            for parts in itertools.islice(self._combinations(moment), _MOST_AT_ONCE):
                found = self._set_of(parts, moment, is_newest=is_newest)
                is_newest = False
                if found is not None and found.parts not in told:
                    told.append(found.parts)
                    yield found
                while at_once:  # a push stands behind what was stored over it
                    push = at_once.pop()
                    if push.parts not in told:
                        told.append(push.parts)
                        yield push

    def _moments(self) -> list[datetime]:
        """Return when versions came, newest first, back to where a required secret was not there.

        The other secrets may be older by years, which a poll must not go through each time.
        """
        begun = [
            min((version.since for version in self._secrets[name]), default=None)
            for name in self._required
        ]
        if None in begun:
            return []
        first = max(each for each in begun if each)
        moments = {version.since for each in self._secrets.values() for version in each}
        return sorted((each for each in moments if each >= first), reverse=True)

    def _combinations(self, moment: datetime) -> Iterator[Parts]:
        """Yield the newest versions as of a moment, then what may have been the newest in it.

        A second is long. Of several secrets that changed in one, any may have been the first, and
        a set that was whole for less than that must not be lost: the one after it may be bad. Only
        where every secret got one new version, there is nothing in between to be lost.
        """
        options = {
            name: _latest_first(versions, moment) for name, versions in self._secrets.items()
        }
        options = {name: versions for name, versions in options.items() if versions}
        combinations = itertools.product(*options.values())
        yield (newest := dict(zip(options, next(combinations), strict=True)))
        if all(
            each.since == moment and sum(v.since == moment for v in options[name]) == 1
            for name, each in newest.items()
        ):
            return
        for versions in combinations:
            yield dict(zip(options, versions, strict=True))

    def _set_of(self, parts: Parts, moment: datetime, *, is_newest: bool) -> StoredSet | None:
        """Return the set that these parts are, if they are one that came at this moment."""
        found = StoredSet(parts)
        if found.moment != moment:
            return None
        tags = {each.tag for each in parts.values() if each.tag}
        torn = tuple(
            sorted(
                tag for tag in tags if tag not in self._pushes or self._pushes[tag].moment > moment
            )
        )
        if torn:
            return replace(found, unfinished=torn) if is_newest else None
        if len(tags) > 1:
            return None
        if not tags:
            return found
        push = self._pushes[tags.pop()]
        if parts == push.parts:
            return push
        return found if self._is_over(push, parts) else None

    def _is_over(self, push: StoredSet, parts: Parts) -> bool:
        """Tell whether parts are a push and what was stored over it, not what it replaced."""
        for name, each in parts.items():
            own = push.parts.get(name)
            if own is None or each == own:
                continue
            versions = self._secrets[name]
            if each.tag or versions.index(each) < versions.index(own):
                return False
        return True

    def _whole_pushes(self) -> dict[str, StoredSet]:
        """Return the pushes that lack nothing, by tag, with the latest version of each part."""
        parts: dict[str, Parts] = {}
        for name, versions in self._secrets.items():
            for version in versions:
                if version.tag:
                    parts.setdefault(version.tag, {})[name] = version
        return {
            tag: StoredSet(each, tag)
            for tag, each in parts.items()
            if each.keys() >= self._required
        }


def _latest_first(versions: Sequence[SecretVersion], moment: datetime) -> list[SecretVersion]:
    """Return those that may have been a secret's newest at a moment: one, but for those that came.

    A version that was stored later and is in use already is never followed by one stored before it.
    """
    latest: list[SecretVersion] = []
    for version in reversed(versions):
        if version.since <= moment:
            latest.append(version)
            if version.since < moment:
                break
    return latest
