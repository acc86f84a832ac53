"""Where an agent's set comes from, with what can go wrong on the way: Vault's KV, and Key Vault."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from tests.support.azure.operator import store
from tests.support.azure.pod import Pod
from tests.support.material import fields

if TYPE_CHECKING:
    from pathlib import Path

    from certagent.material.raw import RawBundle
    from tests.faults.table import Fault
    from tests.support.azure.faults import Exchange
    from tests.support.azure.server import AzureCloud
    from tests.support.front import FrontDoor
    from tests.support.openbao import OpenBao
    from tests.support.tls import TLSAuthority
    from tests.support.tokenreview import Cluster

INTERVAL = 0.05
"""Seconds between two polls, and between two attempts."""

PATH = "istiod/certs"
ROLE = "istiod"


class Store(Protocol):
    """A store, and the agent of it: `environ` leads there, and publishes to `directory`."""

    section: str
    """The configuration's section of it."""
    directory: Path
    environ: dict[str, object]
    keeps_history: bool
    requests_of_an_attempt: int
    """How many there are at most, with the login's, where the first fault ends it."""

    @property
    def exchanges(self) -> list[Exchange]:
        """The requests that have arrived."""
        ...

    @property
    def accepted(self) -> int:
        """How many connections there were."""
        ...

    def push(self, raw: RawBundle) -> None:
        """Do as an operator does, whatever is wrong for the agent."""
        ...

    def begin(self, fault: Fault) -> None:
        """Let everything that it strikes go wrong."""
        ...

    def end(self) -> None:
        """Let nothing go wrong any more."""
        ...

    def polls(self, since: float, until: float) -> int:
        """How often it was asked for the newest set in a stretch of time (of the wall clock)."""
        ...


class Vault:
    """A secret of a KV engine of an OpenBao behind its door, and istiod's login there."""

    section = "vault"
    requests_of_an_attempt = 1

    def __init__(
        self,
        openbao: OpenBao,
        door: FrontDoor,
        cluster: Cluster,
        authority: TLSAuthority,
        home: Path,
        version: int = 2,
    ) -> None:
        self.openbao, self.door = openbao, door
        self.keeps_history = version == 2
        self.mount = openbao.kv(version)
        self.auth = openbao.kubernetes_auth(cluster)
        secret = f"{self.mount}/data/{PATH}" if self.keeps_history else f"{self.mount}/{PATH}"
        openbao.kubernetes_role(self.auth, ROLE, openbao.policy(secret))
        self.secret = f"/v1/{secret}"
        self.token_file = home / "token"
        self.token_file.write_text(cluster.mint())
        self.directory = home / "ca"
        self.environ: dict[str, object] = {
            "VAULT_ADDR": door.url,
            "VAULT_CACERT": authority.ca_file,
            "ROOT_CA_DIR": self.directory,
            "CERTAGENT_SOURCE": f"vault:{self.mount}/{PATH}",
            "CERTAGENT_VAULT_AUTH_MOUNT": self.auth,
            "CERTAGENT_VAULT_ROLE": ROLE,
            "CERTAGENT_VAULT_TOKEN_FILE": self.token_file,
            "CERTAGENT_INTERVAL": f"{INTERVAL * 1000:.0f}ms",
        }

    @property
    def exchanges(self) -> list[Exchange]:
        return self.door.exchanges

    @property
    def accepted(self) -> int:
        return self.door.accepted

    def push(self, raw: RawBundle) -> None:
        put = self.openbao.put if self.keeps_history else self.openbao.put_v1
        put(self.mount, PATH, fields(raw))

    def begin(self, fault: Fault) -> None:
        if fault.shown:
            self.door.present(fault.shown)
        else:
            where = {"all": "", "login": "/login$", "secret": f"^{re.escape(self.secret)}"}
            self.door.faults.inject(fault.how, path=where[fault.where], times=None)

    def end(self) -> None:
        self.door.mend()

    def polls(self, since: float, until: float) -> int:
        return sum(
            each.path == self.secret and since < each.at <= until for each in self.exchanges.copy()
        )

    def revoke(self) -> None:
        """Revoke every token that a login here has brought."""
        self.openbao.call("POST", f"sys/leases/revoke-prefix/auth/{self.auth}")


class KeyVault:
    """Four secrets of a Key Vault, and a pod with a workload identity; a push is a day later."""

    section = "azure"
    keeps_history = True
    requests_of_an_attempt = 8

    def __init__(self, azure: AzureCloud, home: Path) -> None:
        self.azure = azure
        self.pod = Pod(azure, "public", home)
        self.directory = self.pod.directory
        self.environ: dict[str, object] = {
            **self.pod.environment,
            "CERTAGENT_INTERVAL": f"{INTERVAL * 1000:.0f}ms",
        }
        self._stored_at = self.pod.start

    @property
    def exchanges(self) -> list[Exchange]:
        return self.azure.exchanges

    @property
    def accepted(self) -> int:
        return self.azure.accepted

    def push(self, raw: RawBundle) -> None:
        store(self.pod.vault, raw, created_on=self._stored_at)
        self._stored_at += timedelta(days=1)

    def begin(self, fault: Fault) -> None:
        if fault.shown:
            assert fault.shown != "no handshake"
            self.azure.present(self.pod.vault.host, fault.shown)
            self.azure.cut()
            return
        if fault.where != "login":
            self.azure.faults.inject(fault.how, times=None)
        if fault.where != "secret":
            self.azure.faults.inject(fault.how, to="entra", times=None)

    def end(self) -> None:
        self.azure.faults.clear()
        self.azure.present(self.pod.vault.host, "good")

    def polls(self, since: float, until: float) -> int:
        # The first request of all is asked for a token, and is sent again with one.
        return sum(
            each.path == "/secrets/ca-key/versions" and each.status != 401
            for each in self.exchanges.copy()
            if since < each.at <= until
        )
