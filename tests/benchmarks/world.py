"""What the agents meet: a real OpenBao that knows a cluster, good sets in it, volumes in memory."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.support.audit import RequestLog
from tests.support.material import a_set, fields
from tests.support.openbao import OpenBao
from tests.support.tls import TLSAuthority
from tests.support.tokenreview import Cluster

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

ROLE = "istiod"
SHARED_MEMORY = Path("/dev/shm")
LIFETIME = 6 * 3600
"""Seconds that the server and the pod's tokens hold, whatever interval is measured."""


class World:
    """One server, from `with` to its end, and a directory for all that is written meanwhile.

    That lies in memory, as the emptyDir of a pod does, unless `TMPDIR` names another place.
    """

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            place = None if "TMPDIR" in os.environ or not SHARED_MEMORY.is_dir() else SHARED_MEMORY
            self.directory = Path(
                stack.enter_context(tempfile.TemporaryDirectory("", "certagent-benchmark-", place))
            )
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
        self.mount = self.openbao.kv(2)
        self.login = self.openbao.kubernetes_auth(self.cluster)
        policy = self.openbao.policy(f"{self.mount}/data/*")
        self.openbao.kubernetes_role(self.login, ROLE, policy)
        self.token_file = self.directory / "token"
        self.token_file.write_text(self.cluster.mint(expires_in=LIFETIME))
        self.fields = fields(a_set())

    @property
    def environ(self) -> dict[str, str]:
        """The environment of every contender, with nothing of the caller's; each adds its own."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.directory)}

    def asked(self) -> Counter[str]:
        """Return how many requests the server has had, by path."""
        return self._requests.counts

    def secret(self, path: str, fields: Mapping[str, str] | None = None) -> str:
        """Store a set, the good CA unless told; return its path as the server sees it."""
        self.openbao.put(self.mount, path, fields or self.fields)
        return f"{self.mount}/data/{path}"

    def volume(self) -> Path:
        """Return a new, empty directory."""
        return Path(tempfile.mkdtemp(prefix="volume-", dir=self.directory))
