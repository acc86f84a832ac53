"""A secret of the key-value engine: where it lies, and what Vault tells of its mount.

Nothing of material is known here, so that a secret can be read while that is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from msgspec import UNSET, Struct

from certagent.errors import SecretNotFound, SourceUnavailable
from certagent.sources.vault.client import url_of

if TYPE_CHECKING:
    from certagent.config.model import VaultKVSource

Part = TypeVar("Part")


class Secret(Struct, frozen=True):
    """Where a secret lies; `kv_version` is None where the server is to be asked for it."""

    mount: str
    path: str
    kv_version: int | None

    @classmethod
    def of(cls, config: VaultKVSource) -> Secret:
        """Return the secret that is configured."""
        version = None if config.kv_version is UNSET else config.kv_version
        return cls(config.mount.strip("/"), config.path.strip("/"), version)

    @property
    def name(self) -> str:
        """The secret as operators write it: `vault:<mount>/<path>`."""
        return f"vault:{self.mount}/{self.path}"

    @property
    def mount_url(self) -> str:
        """What tells of its mount: `sys/internal/ui/mounts/:path`, as for Vault's CLI's `kv`."""
        return url_of("sys/internal/ui/mounts", self.mount, self.path)

    def path_of(self, version: int) -> str:
        """Return the path by which an engine of this version is asked, and policies allow it."""
        return f"{self.mount}/{self.path}" if version == 1 else f"{self.mount}/data/{self.path}"

    def engine(self, answer: object) -> int:
        """Return the version, 1 or 2, that the answer of `mount_url` tells.

        Raises `SecretNotFound` where it is another mount, or none of the key-value engine's, and
        `SourceUnavailable` where it is no such answer at all.
        """
        mount = member(answer, "data", dict)
        engine, found = mount.get("type"), str(mount.get("path", "")).strip("/")
        if found.startswith(f"{self.mount}/"):
            raise SecretNotFound(
                f"The mount of {self.name} is {found!r}, not {self.mount!r}.",
                hint="Correct the source's mount and path.",
            )
        if engine not in ("kv", "generic"):
            raise SecretNotFound(
                f"The mount {self.mount!r} is of type {str(engine)[:40]!r}, not key-value.",
                hint="Correct the source's mount.",
            )
        # A KV mount without options is of version 1, and so is its forerunner `generic`.
        options = mount.get("options")
        return 2 if isinstance(options, dict) and str(options.get("version")) == "2" else 1


def member(answer: object, key: str, kind: type[Part]) -> Part:
    """Return a part of an answer; raises `SourceUnavailable` unless it is of this JSON type."""
    value = answer.get(key) if isinstance(answer, dict) else None
    if type(value) is not kind:
        raise malformed(key)
    return value


def malformed(key: str) -> SourceUnavailable:
    """Return the error for an answer that is none of a key-value engine's."""
    return SourceUnavailable(
        f"Vault's answer has no usable {key!r}, so it is not a key-value engine's.",
        hint="Check the source's mount and kvVersion, and that vault.address is Vault's own.",
    )
