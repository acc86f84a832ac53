"""Brings a Vault to what the steps say: looks at everything first, then writes what differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from certagent.cli.provisioning.steps import Mount, Setting
from certagent.config.model import seconds
from certagent.errors import AccessDenied, OutputError
from certagent.sources.vault.client import VaultRefused, url_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from certagent.cli.provisioning.steps import Step
    from certagent.sources.vault.connection import VaultConnection

_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Change:
    """A step, and what of it is not there yet; nothing `differs` where it is as it should be."""

    step: Step
    is_new: bool
    differs: tuple[str, ...] = ()

    @property
    def is_needed(self) -> bool:
        """Whether something is to be written."""
        return self.is_new or bool(self.differs)


class Server:
    """A Vault, and an operator's login."""

    def __init__(self, connection: VaultConnection) -> None:
        self._connection = connection

    def changes(self, steps: Sequence[Step], *, force: bool) -> list[Change]:
        """Return what each step would change; nothing is written.

        Raises `OutputError` where something else is in the way: a mount of another kind, or without
        `force` another configuration of a login mount, on which all of its roles depend. Raises
        `AccessDenied` or `SourceUnavailable`.
        """
        return [
            self._mount(step) if isinstance(step, Mount) else self._setting(step, force=force)
            for step in steps
        ]

    def apply(self, change: Change) -> None:
        """Write what a step says; raises `AccessDenied` or `SourceUnavailable`."""
        step = change.step
        path = f"{step.registry}/{step.name}" if isinstance(step, Mount) else step.path
        self._call(path, dict(step.data))

    def _mount(self, step: Mount) -> Change:
        present = self._read(step.registry).get(f"{step.name}/")
        if present is None:
            return Change(step, is_new=True)
        options = present.get("options") or {}
        version = options.get("version", "1") if step.options else ""
        if present["type"] != step.kind or version != step.options.get("version", ""):
            shown = f"{present['type']} version {version}" if version else present["type"]
            raise OutputError(
                f"{step.name} is mounted already, as {shown}, and is left as it is: nothing was"
                " changed.",
                hint="Name the cluster otherwise with --cluster, or see --kv-version.",
            )
        return Change(step, is_new=False)

    def _setting(self, step: Setting, *, force: bool) -> Change:
        present = self._read(step.path)
        if not present:
            return Change(step, is_new=True)
        wanted = {**step.data, **step.expected}
        differs = tuple(key for key in wanted if not _same(wanted[key], present.get(key)))
        if differs and step.shared and not force:
            raise OutputError(
                f"{step.path} says something else ({', '.join(differs)}), and is left as it is:"
                " nothing was changed.",
                hint="Every role of the mount depends on it. If they may change with it, --force.",
            )
        return Change(step, is_new=False, differs=differs)

    def _read(self, path: str) -> dict[str, Any]:
        """Return what is at a path; nothing where it, or its mount, does not exist."""
        return self._call(path).get("data") or {}

    def _call(self, path: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._connection.call(
                lambda client: (
                    client.get(url_of(path)) if data is None else client.post(url_of(path), data)
                )
            )
        except VaultRefused as refused:
            if data is None and refused.status == _NOT_FOUND:
                return {}
            raise AccessDenied(
                f"Vault refused to {'read' if data is None else 'write'} {path}"
                f" ({refused.answer}).",
                hint="VAULT_TOKEN must be allowed to make mounts, policies and roles; a"
                " configuration that\nVault checks itself, such as an issuer's URL, must be right"
                " as well.",
            ) from refused
        return answer


def _same(wanted: Any, present: Any) -> bool:
    """Whether Vault shows what was written: it tells times in seconds, and trims texts."""
    if isinstance(wanted, str) and isinstance(present, int):
        return seconds(wanted) == present
    if isinstance(wanted, str) and isinstance(present, str):
        return wanted.strip() == present.strip()
    if isinstance(wanted, list) and isinstance(present, list):
        return sorted(each.strip() for each in wanted) == sorted(each.strip() for each in present)
    return bool(wanted == present or not (wanted or present))
