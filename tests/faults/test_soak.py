"""An agent that stays for long against a real OpenBao: what it holds does not grow.

Polls, logins with short leases, rotations, refusals and outages follow one another all the time.
What it takes to hold a history of its full length is not growth: the agent settles first. Then
threads and descriptors are not more in the last quarter than in the first, and in the second half
memory grows no more a poll than an allocator's steps make of it: a slope by medians (Theil and
Sen), which a step or two do not move.
"""

from __future__ import annotations

import itertools
import operator
import os
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from certagent.chronicle import LOOKBACK
from tests.support.effort import effort
from tests.support.material import fields, files, make_root
from tests.support.openbao import OpenBao, free_port
from tests.support.oracle import Oracle
from tests.support.process import running
from tests.support.scraping import metric

if TYPE_CHECKING:
    from tests.support.process import Running

POLLS = effort(500, 60_000)
"""After the agent has settled; at an interval of 50 ms, 60 000 are an hour."""

SAMPLES = effort(20, 240)
MOST_BYTES_A_POLL = effort(1000, 32)
"""A leak of one short string a poll is over the long form's. The short form sees one of a request's
answer: over so few polls, an allocator that finds its size looks like some hundred bytes each."""

KINDS_OF_TURNS = 4

UNWATCHED = {"COVERAGE_PROCESS_CONFIG": None, "COVERAGE_PROCESS_START": None}
"""Who measures which lines run keeps a record of them in the process that is weighed here."""

LIFETIME = 24 * 3600
"""Seconds for which the pod's token is good: longer than all of it takes on a slow machine."""

WITHIN = effort(100, 7000)


class Sample(NamedTuple):
    """What an agent holds, after so many polls."""

    polls: float
    bytes: int
    threads: int
    descriptors: int


def slope(samples: list[Sample]) -> float:
    """Return the bytes that memory grows by a poll: the median of the slopes of all pairs."""
    return median(
        (later.bytes - earlier.bytes) / (later.polls - earlier.polls)
        for earlier, later in itertools.combinations(samples, 2)
        if later.polls > earlier.polls
    )


def quarters(samples: list[Sample]) -> list[list[Sample]]:
    """Return the samples in four parts, as they came."""
    size = len(samples) // 4
    return [samples[number * size : (number + 1) * size] for number in range(4)]


@dataclass
class Life:
    """What befalls the agent, in turn, for as long as it is asked to go on."""

    server: OpenBao
    mount: str
    agent: Running
    port: int

    def __post_init__(self) -> None:
        self.root = make_root()
        self.turns, self.names = itertools.count(1), itertools.count(1)

    @property
    def polls(self) -> float:
        name = 'certagent_source_requests_total{{outcome="{}",source="vault"}}'
        return sum(metric(self.port, name.format(each)) for each in ("ok", "denied", "unavailable"))

    def turn(self, oracle: Oracle) -> None:
        """Let the next thing happen."""
        match next(self.turns) % KINDS_OF_TURNS:
            case 0:
                self.refuse()
            case 1:
                self.go_out()
            case _:
                self.push(oracle)

    def push(self, oracle: Oracle) -> None:
        """Store a good set, and wait until it is published."""
        raw, name = self.root.intermediate().raw(), f"set-{next(self.names)}"
        oracle.expect(name, files(raw))
        self.server.put(self.mount, "ca", fields(raw))
        oracle.until(name, 60, lambda: "".join(self.agent.lines[-20:]))

    def refuse(self) -> None:
        """Store a set that does not hold together, and wait until it is told."""
        one, other = self.root.intermediate().raw(), self.root.intermediate().raw()
        told = len(self.agent.lines)
        self.server.put(self.mount, "ca", {**fields(one), "ca_key": fields(other)["ca_key"]})
        self.agent.until(
            lambda: any("key-mismatch" in line for line in self.agent.lines[told:]), 60
        )

    def go_out(self) -> None:
        """Take the agent's login away, and wait until it is told."""
        told = len(self.agent.lines)
        leases = f"sys/leases/revoke-prefix/auth/{self.mount}"
        self.server.call("POST", leases)
        self.server.call("DELETE", f"auth/{self.mount}/role/istiod")
        self.agent.until(
            lambda: any("refused the login" in line for line in self.agent.lines[told:]), 60
        )
        self.let_in()

    def let_in(self) -> None:
        """Let the agent log in, for two seconds a time."""
        policy = self.server.policy(f"{self.mount}/data/ca")
        self.server.jwt_role(self.mount, "istiod", policy, token_ttl="2s")

    def sample(self) -> Sample:
        process = Path(f"/proc/{self.agent.process.pid}")
        status = (process / "status").read_text()
        size, threads = (
            int(re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[1])
            for name in ("RssAnon", "Threads")
        )
        # Only root may look into a process that keeps its memory to itself.
        descriptors = len(list((process / "fd").iterdir())) if os.geteuid() == 0 else 0
        return Sample(self.polls, size * 1024, threads, descriptors)


def test_an_agent_that_stays_holds_no_more_than_it_did(cluster, tmp_path):
    port = free_port()
    with OpenBao() as server:
        mount = server.kv(2)
        server.jwt_auth(cluster, mount)
        (tmp_path / "token").write_text(cluster.mint(expires_in=LIFETIME))
        with (
            Oracle(tmp_path / "ca") as oracle,
            running(
                VAULT_ADDR=server.address,
                ROOT_CA_DIR=tmp_path / "ca",
                CERTAGENT_SOURCE=f"vault:{mount}/ca",
                CERTAGENT_VAULT_AUTH_METHOD="jwt",
                CERTAGENT_VAULT_AUTH_MOUNT=mount,
                CERTAGENT_VAULT_ROLE="istiod",
                CERTAGENT_VAULT_TOKEN_FILE=tmp_path / "token",
                CERTAGENT_INTERVAL="10ms" if POLLS < 1000 else "50ms",
                CERTAGENT_SERVER_ADDRESS=f"127.0.0.1:{port}",
                **UNWATCHED,
            ) as agent,
        ):
            life = Life(server, mount, agent, port)
            life.let_in()
            for _ in range(LOOKBACK + 10):
                life.push(oracle)
            for _ in range(KINDS_OF_TURNS):
                life.turn(oracle)
            samples = [life.sample()]
            settled = samples[0].polls
            while samples[-1].polls < settled + POLLS:
                life.turn(oracle)
                wanted = settled + POLLS * len(samples) / SAMPLES
                agent.until(lambda wanted=wanted: life.polls >= wanted, WITHIN)
                samples.append(life.sample())
            life.push(oracle)
            logins = metric(port, 'certagent_logins_total{outcome="ok",source="vault"}')
            assert agent.stop() == 0
    first, *_, last = quarters(samples)
    told = "\n".join(map(str, samples))
    assert logins > 3, "leases ended"
    assert slope(samples[len(samples) // 2 :]) < MOST_BYTES_A_POLL, told
    # Most of the time: our own scrape may be another connection, and another thread, at any moment.
    assert median(each.threads for each in last) <= median(each.threads for each in first), told
    opened = (median(each.descriptors for each in quarter) for quarter in (first, last))
    assert operator.ge(*opened), told
