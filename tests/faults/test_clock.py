"""The machine's clock jumps under a running agent, forward and back.

What is published is what the plan says by the clock as it is, to the byte what a newborn publishes
by the same clock; nothing good is taken away; and logins know no clock but the monotonic one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from certagent.material.bundle import KeyCertBundle
from tests.support import meddled
from tests.support.material import fields, files, make_root
from tests.support.openbao import free_port
from tests.support.oracle import Oracle
from tests.support.process import CHECKOUT, certagent, published, running
from tests.support.scraping import metric, status_of

if TYPE_CHECKING:
    from pathlib import Path

HOUR = 3600
DAY = 24 * HOUR
YEAR = 365 * DAY


@dataclass
class Clock:
    """By how many seconds the clock of the agents is wrong."""

    file: Path

    def set(self, seconds: float) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(self.file)

    @property
    def environ(self) -> dict[str, Any]:
        return {meddled.CLOCK: self.file, "PYTHONPATH": CHECKOUT}


@pytest.fixture
def clock(tmp_path):
    made = Clock(tmp_path / "clock")
    made.set(0)
    return made


@pytest.fixture
def store(openbao):
    """A secret of a KV v2 mount: `put`, and the environment of those who read it."""
    return Store(openbao, openbao.kv(2))


@dataclass
class Store:
    openbao: Any
    mount: str

    def put(self, raw) -> None:
        self.openbao.put(self.mount, "ca", fields(raw))

    def login(self, cluster, home) -> dict[str, Any]:
        """A kubernetes login with a lease of an hour."""
        auth = self.openbao.kubernetes_auth(cluster)
        policy = self.openbao.policy(f"{self.mount}/data/ca")
        self.openbao.kubernetes_role(auth, "istiod", policy)
        (home / "token").write_text(cluster.mint())
        return {
            "CERTAGENT_VAULT_AUTH_MOUNT": auth,
            "CERTAGENT_VAULT_ROLE": "istiod",
            "CERTAGENT_VAULT_TOKEN_FILE": home / "token",
        }

    @property
    def environ(self) -> dict[str, Any]:
        return {
            "VAULT_ADDR": self.openbao.address,
            "CERTAGENT_SOURCE": f"vault:{self.mount}/ca",
            "CERTAGENT_INTERVAL": "100ms",
            "ISTIO_MULTIROOT_MESH": "true",
        }


def test_a_jump_over_the_phases_of_a_rotation_and_back_is_followed_to_the_byte(
    tmp_path, clock, store, cluster
):
    """Windows of 25 h each: distribute, switch and settle are a day apart."""
    old, new = (make_root(subject=f"CN={name}").intermediate() for name in ("Old", "New"))
    both = KeyCertBundle.decode(old.raw(roots=(old.root, new.root))).roots
    in_order = [
        next(ca.root for ca in (old, new) if ca.root.fingerprint == each.fingerprint)
        for each in both
    ]
    sets = {
        "old": files(old.raw()),
        "distribute": files(old.raw(roots=in_order)),
        "switch": files(new.raw(roots=in_order)),
        "settled": files(new.raw()),
    }
    port = free_port()
    environ = {**store.environ, **store.login(cluster, tmp_path), **clock.environ}
    store.put(old.raw())
    with (
        Oracle(tmp_path / "ca", **sets) as oracle,
        running(
            command=meddled.COMMAND,
            **environ,
            ROOT_CA_DIR=tmp_path / "ca",
            CERTAGENT_SERVER_ADDRESS=f"127.0.0.1:{port}",
        ) as agent,
    ):
        oracle.until("old")
        store.put(new.raw())
        oracle.until("distribute")
        for seconds, expected in JUMPS:
            clock.set(seconds)
            oracle.until(expected, explain=lambda: "".join(agent.lines))
            newborn = tmp_path / f"newborn-by-{seconds}"
            done = certagent("init", command=meddled.COMMAND, **environ, ROOT_CA_DIR=newborn)
            assert done.code == 0
            assert published(newborn) == sets[expected]
        assert metric(port, 'certagent_logins_total{outcome="ok",source="vault"}') == 1
        assert agent.stop() == 0


JUMPS = (
    (30 * HOUR, "switch"),
    (0, "distribute"),
    (60 * HOUR, "settled"),
    (-30 * DAY, "distribute"),
    (30 * HOUR, "switch"),
)


@pytest.mark.parametrize("restarts", [False, True], ids=["runs on", "restarts"])
@pytest.mark.parametrize("wrong", [-3 * YEAR, 3 * YEAR], ids=["before-its-time", "after-its-end"])
def test_a_set_outside_of_whose_validity_the_clock_is_stays_and_is_served_on_afterwards(
    tmp_path, clock, store, wrong, restarts
):
    now = datetime.now(UTC)
    raw = (
        make_root()
        .intermediate(not_before=now - timedelta(days=9), not_after=now + timedelta(days=9))
        .raw()
    )
    port = free_port()
    environ = {
        **store.environ,
        **clock.environ,
        "VAULT_TOKEN": store.openbao.token,
        "ROOT_CA_DIR": tmp_path / "ca",
        "CERTAGENT_SERVER_ADDRESS": f"127.0.0.1:{port}",
    }
    store.put(raw)
    with Oracle(tmp_path / "ca", good=files(raw)) as oracle:
        with running(command=meddled.COMMAND, **environ) as agent:
            oracle.until("good")
            clock.set(wrong)
            agent.until(lambda: agent.logged("the clock was set"))
            agent.until(lambda: agent.logged("", level="error"))
            assert status_of(port, "/readyz") == 200
            if not restarts:
                clock.set(0)
                agent.until(lambda: agent.logged("recovered"))
                assert len(agent.publications) == 1
        if restarts:
            with running(command=meddled.COMMAND, **environ) as agent:
                agent.until(lambda: agent.logged("is no longer good"))
                agent.until(lambda: agent.logged("", level="error"))
                clock.set(0)
                agent.until(lambda: status_of(port, "/readyz") == 200)
                assert agent.publications == []
    assert oracle.found == ["good"]


def test_a_newborn_before_the_time_of_its_set_waits_for_the_clock(tmp_path, clock, store):
    raw = make_root().intermediate().raw()
    environ = {
        **store.environ,
        **clock.environ,
        "VAULT_TOKEN": store.openbao.token,
        "ROOT_CA_DIR": tmp_path / "ca",
    }
    store.put(raw)
    clock.set(-10 * YEAR)
    with (
        Oracle(tmp_path / "ca", good=files(raw)) as oracle,
        running(
            verb="init", command=meddled.COMMAND, **environ, CERTAGENT_SERVER_ADDRESS=None
        ) as agent,
    ):
        agent.until(lambda: agent.logged("", level="error"))
        assert oracle.found == []
        clock.set(0)
        assert agent.process.wait(20) == 0
    assert oracle.found == ["good"]
