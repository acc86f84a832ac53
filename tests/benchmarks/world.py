"""What the agents meet: a real OpenBao that knows a cluster, good sets in it, volumes in memory."""

from __future__ import annotations

import os
import sysconfig
import tempfile
import venv
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.support.audit import RequestLog
from tests.support.material import fields, make_root
from tests.support.openbao import OpenBao
from tests.support.tls import TLSAuthority
from tests.support.tokenreview import Cluster

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

    from certagent.material.raw import RawBundle

ROLE = "istiod"
PROJECT = Path(__file__).parents[2]
SHARED_MEMORY = Path("/dev/shm")
LIFETIME = 6 * 3600
"""Seconds that the server and the pod's tokens hold, whatever interval is measured."""


@dataclass(frozen=True)
class Access:
    """Where an agent's secret lies, and what the agent is told of how to get there."""

    address: str
    login: str
    token_file: Path
    mount: str
    kv: int
    """The version of the key-value engine, 1 or 2."""
    path: str
    role_id_file: Path | None = None
    """With it the login is AppRole's, and the token is a secret id."""

    @property
    def asked(self) -> str:
        """The path that is asked for, as the server sees it."""
        return f"{self.mount}/data/{self.path}" if self.kv == 2 else f"{self.mount}/{self.path}"


class World:
    """One server, from `with` to its end, and a directory for all that is written meanwhile.

    That lies in memory, as the emptyDir of a pod does, unless `TMPDIR` names another place.
    `python` is what certagent is run by.
    """

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            place = None if "TMPDIR" in os.environ or not SHARED_MEMORY.is_dir() else SHARED_MEMORY
            self.directory = Path(
                stack.enter_context(tempfile.TemporaryDirectory("", "certagent-benchmark-", place))
            )
            self.python = _environment(self.directory / "environment")
            self.authority = TLSAuthority(self.directory)
            self.cluster = stack.enter_context(Cluster(self.authority))
            audit = self.directory / "audit.log"
            self.openbao = stack.enter_context(OpenBao(audit=audit, lifetime=LIFETIME))
            self._requests = RequestLog(audit)
            self._prepare()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _prepare(self) -> None:
        self._mounts = {version: self.openbao.kv(version) for version in (1, 2)}
        self._login = self.openbao.kubernetes_auth(self.cluster)
        self._policy = self.openbao.policy(*(f"{mount}/*" for mount in self._mounts.values()))
        self.openbao.kubernetes_role(self._login, ROLE, self._policy)
        self.token_file = self.directory / "token"
        self.token_file.write_text(self.cluster.mint(expires_in=LIFETIME))
        self._root = make_root()

    @property
    def environ(self) -> dict[str, str]:
        """The environment of every contender, with nothing of the caller's; each adds its own."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.directory)}

    def asked(self) -> Counter[str]:
        """Return how many requests the server has had, by path."""
        return self._requests.counts

    def arrivals(self) -> list[float]:
        """Return when the server had its requests, in seconds since the epoch."""
        return self._requests.arrivals

    def new_set(self) -> RawBundle:
        """Return a good set: a new intermediate, always under the same root."""
        return self._root.intermediate("cluster1").raw()

    def access(self, path: str, *, kv: int = 2) -> Access:
        """Return the way to a secret."""
        return Access(
            self.openbao.address, self._login, self.token_file, self._mounts[kv], kv, path
        )

    def by_approle(self, access: Access) -> Access:
        """Return the way to the same secret by a login that asks nobody but the server.

        The cluster here is Python: it would be what many agents wait for.
        """
        mount = self.openbao.enable_auth("approle")
        role = f"auth/{mount}/role/{ROLE}"
        self.openbao.call("POST", role, {"token_policies": self._policy, "token_ttl": "1h"})
        role_id = self.openbao.call("GET", f"{role}/role-id")["data"]["role_id"]
        secret_id = self.openbao.call("POST", f"{role}/secret-id", {})["data"]["secret_id"]
        role_id_file, secret_id_file = (self.directory / f"{mount}-{id_}" for id_ in ("role", "id"))
        role_id_file.write_text(role_id)
        secret_id_file.write_text(secret_id)
        return replace(access, login=mount, role_id_file=role_id_file, token_file=secret_id_file)

    def put(self, access: Access, fields: Mapping[str, str]) -> None:
        """Store what a secret is to hold from now on."""
        put = self.openbao.put if access.kv == 2 else self.openbao.put_v1
        put(access.mount, access.path, fields)

    def secret(self, path: str) -> Access:
        """Store a good CA, and return the way to it."""
        access = self.access(path)
        self.put(access, fields(self.new_set()))
        return access

    def volume(self) -> Path:
        """Return a new, empty directory."""
        return Path(tempfile.mkdtemp(prefix="volume-", dir=self.directory))


def _environment(directory: Path) -> Path:
    """Make an environment as the image's is, and return its interpreter.

    It has certagent, and what certagent needs from the environment that this runs in, but not the
    hooks that coverage and setuptools have there: every start of Python would run them.
    """
    venv.create(directory, symlinks=True)
    base = {"base": str(directory), "platbase": str(directory)}
    packages = Path(sysconfig.get_path("purelib", "venv", base))
    found = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), PROJECT)
    lines = dict.fromkeys(str(each) for each in found)
    (packages / "certagent.pth").write_text("\n".join(lines))
    return directory / "bin" / "python"
