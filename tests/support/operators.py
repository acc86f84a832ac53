"""One secret of a real store, as an operator works with it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.support.material import fields, files
from tests.support.openbao import OpenBao, OpenBaoError
from tests.support.process import Finished, certagent, until

if TYPE_CHECKING:
    from pathlib import Path

    from certagent.material.raw import RawBundle

PATH = "istiod/certs"


@dataclass(frozen=True)
class Secret:
    """A path in a mount of its own, a folder for sets, and the operator's environment."""

    openbao: OpenBao
    mount: str
    tmp_path: Path

    @property
    def source(self) -> str:
        return f"vault:{self.mount}/{PATH}"

    @property
    def environ(self) -> dict[str, str]:
        return {"VAULT_ADDR": self.openbao.address, "VAULT_TOKEN": self.openbao.token}

    def directory(self, raw: RawBundle) -> Path:
        """The set as files, in a new directory."""
        made = self.tmp_path / self.openbao.unique("set")
        made.mkdir()
        for name, data in files(raw).items():
            (made / name).write_bytes(data)
        return made

    def push(self, raw: RawBundle, *flags: object, **environ: object) -> Finished:
        words = ("push", self.source, "--from", self.directory(raw), *flags)
        return certagent(*words, **{**self.environ, **environ})

    def pipe(self, text: str, *flags: object) -> Finished:
        return certagent("push", self.source, "--from", "-", *flags, stdin=text, **self.environ)

    def retire(self, *flags: object, **environ: object) -> Finished:
        return certagent("retire", self.source, *flags, **{**self.environ, **environ})

    def plan(self, *flags: object, **environ: object) -> Finished:
        return certagent("plan", self.source, *flags, **{**self.environ, **environ})

    # What is in the store.

    def put(self, raw: RawBundle, **others: object) -> int:
        return self.openbao.put(self.mount, PATH, {**fields(raw), **others})

    def read(self) -> tuple[int, dict[str, str]]:
        """The newest version's number and fields."""
        data = self.openbao.call("GET", f"{self.mount}/data/{PATH}")["data"]
        return data["metadata"]["version"], data["data"]

    def read_v1(self) -> dict[str, str]:
        return self.openbao.call("GET", f"{self.mount}/{PATH}")["data"]

    def exists(self) -> bool:
        try:
            self.read()
        except OpenBaoError:
            return False
        return True

    def metadata(self, **wanted: object) -> None:
        self.openbao.call("POST", f"{self.mount}/metadata/{PATH}", wanted)

    def destroyed(self) -> list[str]:
        versions = self.openbao.call("GET", f"{self.mount}/metadata/{PATH}")["data"]["versions"]
        return [number for number, each in versions.items() if each["destroyed"]]

    def stored_at(self) -> datetime:
        """When the newest version was stored."""
        versions = self.openbao.call("GET", f"{self.mount}/metadata/{PATH}")["data"]["versions"]
        return datetime.fromisoformat(versions[max(versions, key=int)]["created_time"])

    def wait_past(self, *, seconds: float) -> None:
        """Wait until the newest version is older than this."""
        end = self.stored_at() + timedelta(seconds=seconds)
        until(lambda: datetime.now(UTC) > end)

    def token(self, *capabilities: str) -> str:
        """A token that may do this with the secret's data, and nothing else."""
        name = self.openbao.unique("policy")
        allowed = ", ".join(f'"{each}"' for each in capabilities)
        rule = f'path "{self.mount}/data/{PATH}" {{ capabilities = [{allowed}] }}'
        self.openbao.call("POST", f"sys/policies/acl/{name}", {"policy": rule})
        return self.openbao.create_token(name)
