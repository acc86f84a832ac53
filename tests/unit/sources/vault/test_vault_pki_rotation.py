"""A mesh whose CA is issued by Vault: nobody is refused while issuers come and go.

Everything here is the agent's own, from the source to what lies on the volume; only Vault is a
mount in memory, whose clock is turned. What is checked is what `tests.support.mesh` checks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from random import Random

import pytest

from certagent.assignment import Assignment
from certagent.config.model import VaultPKISource as Config
from certagent.keeper import Keeper
from certagent.material.kinds import CA
from certagent.material.rotation import Phase
from certagent.sources.vault.pki import Destination, VaultPKISource
from tests.support.effort import effort
from tests.support.mesh import DAY, START, TICK, Stretch, World, refusals, tick_of, time
from tests.support.pki import PKIMount
from tests.support.stores import MemorySink, Silence

WORLD = World()
POLICY = WORLD.policy()
D = POLICY.distribute // TICK
R = POLICY.retire // TICK
SLACK = WORLD.slack
CLOCKS = timedelta(minutes=15)
"""What not_before_duration must be where clocks differ so much: a certificate that is not valid yet
by the agent's clock is not published."""
LONG_AGO = START - timedelta(days=700)


@dataclass
class Operator:
    """What is done to a mount, and when (ticks)."""

    mount: PKIMount
    actions: list[tuple[int, object]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)  # of a root, by fingerprint

    def at(self, tick, action):
        self.actions.append((tick, action))

    def add(self, name, *, imported=False, default=False):
        id_ = self.mount.add(name, came=LONG_AGO if imported else None)
        self.names[self.mount._entry(id_).ca.fingerprint] = name
        if default:
            self.mount.default = id_

    def make_default(self, name):
        self.mount.default = self.mount._entry(name).id

    def remove(self, name):
        self.mount.remove(self.mount._entry(name).id)


@dataclass
class Replica:
    """One place in a cluster: an agent whose clock is wrong, which is born again now and then."""

    operator: Operator
    births: list[int]
    clock: int = 0
    lag: int = 0
    ttl: str = "720h"
    stretches: list[Stretch] = field(default_factory=list)
    seed: int = 0

    def born(self):
        self.sink = MemorySink()
        self.source = VaultPKISource(
            self.operator.mount,
            Config(mount="pki", ttl=self.ttl, common_name="Mesh CA", key_type="ec-p256"),
            Destination(CA, self._held, POLICY.distribute),
            random=Random(self.seed).random,
            clock=lambda: self.now,
        )
        self.keeper = Keeper(Assignment("ca", self.source, self.sink, policy=POLICY), Silence())

    def _held(self):
        return CA.bundle_of(self.sink.snapshot.files) if self.sink.snapshot else None

    def act(self, tick):
        """Make a pass, and return when the next boundary is (ticks)."""
        self.now = time(tick + self.clock)
        self.operator.mount.now = time(tick)
        self.keeper.refresh(self.now)
        bundle = CA.bundle_of(self.sink.snapshot.files)
        names = self.operator.names
        roots = frozenset(names[root.fingerprint] for root in bundle.roots)
        anchors = frozenset(
            names[root.fingerprint]
            for root in bundle.roots
            if root.subject == bundle.certificate.issuer
        )
        dies = tick_of(bundle.certificate.not_after) - self.clock
        phase = Phase(self.keeper.status.phase)
        if self.stretches:
            self.stretches[-1] = self.stretches[-1]._replace(until=tick)
        self.stretches.append(Stretch(tick, tick, anchors, roots, dies, phase))
        changes_at = self.keeper.changes_at
        return tick_of(changes_at) - self.clock if changes_at else None


def live(operator, replicas, end, every=600):
    """Let everybody act in the order of time; agents poll after each change, and now and then."""
    for replica in replicas:
        replica.stretches.clear()
    events = [(tick, 0, index) for index, (tick, _) in enumerate(operator.actions)]
    changes = [tick for tick, _ in operator.actions]
    for number, replica in enumerate(replicas):
        polls = {tick + replica.lag for tick in changes} | set(replica.births)
        polls |= set(range(min(replica.births), end, every))
        events += [(tick, 1, number) for tick in polls if tick >= min(replica.births)]
    while events:
        events.sort()
        tick, kind, number = events.pop(0)
        if tick >= end:
            break
        if kind == 0:
            operator.mount.now = time(tick)
            operator.actions[number][1]()
            continue
        replica = replicas[number]
        if tick in replica.births:
            replica.born()
        boundary = replica.act(tick)
        if boundary is not None:
            # No later than the lag of a poll after it.
            events.append((max(boundary, tick + 1), 1, number))
    for replica in replicas:
        replica.stretches[-1] = replica.stretches[-1]._replace(until=end)


def mesh(*births, **options):
    """A mount with the root A, and replicas that are born at these ticks."""
    operator = Operator(PKIMount(START - timedelta(days=400), CLOCKS))
    operator.add("A")
    clocks = (-WORLD.clock, 0, WORLD.clock)
    replicas = [
        Replica(operator, list(each), clocks[index % 3], index * 10 % 31, seed=index, **options)
        for index, each in enumerate(births)
    ]
    return operator, replicas


def refused(replicas):
    return list(refusals([replica.stretches for replica in replicas], WORLD))


OLD = -DAY * 3


class TestTheOperatorsWays:
    @pytest.mark.parametrize("switch", [0, 100, D // 2, D, D + 500, 3 * D])
    def test_an_issuer_that_is_generated_may_become_the_default_at_any_time(self, switch):
        operator, replicas = mesh([OLD], [OLD, 50, D - 30, D + 40], [OLD, switch + 20])
        operator.at(0, partial(operator.add, "B", default=not switch))
        operator.at(switch, partial(operator.make_default, "B"))
        operator.at(switch + D + R, partial(operator.remove, "A"))

        live(operator, replicas, switch + D + R + 2 * DAY)

        assert not refused(replicas)
        last = [replica.stretches[-1] for replica in replicas]
        assert {(each.anchors, each.phase) for each in last} == {(frozenset("B"), Phase.SETTLED)}
        assert last[1].roots == frozenset("B")

    def test_an_imported_issuer_is_distributed_before_it_is_made_the_default(self):
        operator, replicas = mesh([OLD], [OLD, 30, D + SLACK + 5], [OLD, D + SLACK + 100])
        operator.at(0, partial(operator.add, "B", imported=True))
        operator.at(D + SLACK, partial(operator.make_default, "B"))
        operator.at(2 * D + SLACK + R, partial(operator.remove, "A"))

        live(operator, replicas, 2 * D + R + 2 * DAY)

        assert not refused(replicas)

    def test_agents_that_run_stage_also_an_imported_issuer_that_is_the_default_at_once(self):
        operator, replicas = mesh([OLD], [OLD], [OLD])
        operator.at(0, partial(operator.add, "B", imported=True, default=True))
        operator.at(D + R, partial(operator.remove, "A"))

        live(operator, replicas, D + R + 2 * DAY)

        assert not refused(replicas)

    def test_agents_that_run_keep_a_root_whose_issuer_was_removed_too_early(self):
        operator, replicas = mesh([OLD], [OLD], [OLD])
        operator.at(0, partial(operator.add, "B"))
        operator.at(3 * D, partial(operator.make_default, "B"))
        operator.at(3 * D + 50, partial(operator.remove, "A"))

        live(operator, replicas, 4 * D + R + DAY)

        assert not refused(replicas)

    def test_a_change_that_is_taken_back_in_the_midst_of_it(self):
        operator, replicas = mesh([OLD], [OLD, D // 3], [OLD, D // 2 + 10])
        operator.at(0, partial(operator.add, "B", default=True))
        operator.at(D // 2, partial(operator.make_default, "A"))
        operator.at(D // 2 + D + R, partial(operator.remove, "B"))

        live(operator, replicas, 2 * D + R + DAY)

        assert not refused(replicas)
        assert not any("B" in s.anchors for replica in replicas for s in replica.stretches)

    def test_a_new_issuer_comes_while_another_is_distributed(self):
        """C5."""
        operator, replicas = mesh([OLD], [OLD, 700, D + 100], [OLD, 500])
        operator.at(0, partial(operator.add, "B", default=True))
        operator.at(600, partial(operator.add, "C", default=True))
        operator.at(600 + D + R, partial(operator.remove, "A"))
        operator.at(600 + D + R, partial(operator.remove, "B"))

        live(operator, replicas, 600 + D + R + 2 * DAY)

        assert not refused(replicas)

    def test_certificates_that_live_for_less_than_the_distribution_are_renewed_through_it(self):
        operator, replicas = mesh([OLD], [OLD, D // 2], [OLD, D + 10], ttl="12h")
        operator.at(0, partial(operator.add, "B", default=True))
        operator.at(D + R, partial(operator.remove, "A"))

        live(operator, replicas, D + R + 2 * DAY, every=300)

        assert not refused(replicas)
        for replica in replicas:
            assert all(each.signer_dies > each.until for each in replica.stretches)

    def test_an_older_issuer_that_is_removed_while_it_signs_is_relieved_before_its_end(self):
        """Its certificate cannot be renewed any more, so its end is the end: phase early."""
        operator, replicas = mesh([OLD], [OLD], [OLD], ttl="12h")
        operator.at(0, partial(operator.add, "B", default=True))
        operator.at(100, partial(operator.remove, "A"))

        live(operator, replicas, 2 * D, every=100)

        for replica in replicas:
            assert all(each.signer_dies > each.until for each in replica.stretches)
            assert Phase.EARLY in {each.phase for each in replica.stretches}

    def test_replicas_publish_the_same_roots_and_sign_under_the_same_in_every_phase(self):
        operator, replicas = mesh([OLD], [OLD, D // 2], [OLD, D + 500], [D + 1000])
        operator.at(0, partial(operator.add, "B", default=True))

        live(operator, replicas, 3 * D)

        for tick in (-100, 200, D // 2 + 100, D - 100, D + 200, D + 1100, 3 * D - 1):
            states = {
                (each.anchors, each.roots)
                for replica in replicas
                for each in replica.stretches
                if each.since <= tick < each.until
            }
            assert len(states) == 1, tick


def test_the_check_finds_what_a_removal_too_early_breaks_for_a_newborn():
    """The rule that operators are given is needed: a pod that is born then cannot know of A."""
    operator, replicas = mesh([OLD], [OLD, D + 200])
    operator.at(0, partial(operator.add, "B", default=True))
    operator.at(D + 150, partial(operator.remove, "A"))

    live(operator, replicas, 3 * D)

    assert refused(replicas)


@pytest.mark.parametrize("seed", range(effort(3, 500)))
def test_random_changes_by_the_rules_are_noticed_by_nobody(seed):
    """Issuers come, are made the default, and go d + r after the last change of the default."""
    rng = Random(seed)
    operator, replicas = mesh()
    count = plan_changes(rng, operator)
    moments = [0, *(tick for tick, _ in operator.actions)]
    for index in range(3):
        births = {OLD}
        for _ in range(rng.randint(0, 4)):
            births.add(rng.choice(moments) + rng.choice((1, D, 5, 40)) + rng.randint(0, 60))
        lag, clock = rng.choice((0, WORLD.lag)), rng.choice((-WORLD.clock, 0, WORLD.clock))
        ttl = rng.choice(("720h", "60h"))
        replicas.append(Replica(operator, sorted(births), clock, lag, ttl, seed=index))

    live(operator, replicas, count + D + R + DAY)

    assert not refused(replicas)


def plan_changes(rng, operator):
    """Draw up what the operator does; return when the last of it is done."""
    names = iter("BCDE")
    present, default = ["A"], "A"
    now, switched, free = 0, -D - R, 0  # free: when a default may be made, as far as imports go
    for _ in range(rng.randint(3, 6)):
        now += rng.choice((60, D // 2, D, D + R, rng.randint(1, D)))
        kind = rng.choice(("add", "import", "default", "remove"))
        if kind in {"add", "import"} and (name := next(names, None)):
            switch = kind == "add" and now >= free and rng.random() < 0.5
            operator.at(now, partial(operator.add, name, imported=kind == "import", default=switch))
            present.append(name)
            if kind == "import":
                free = now + D + SLACK
            if switch:
                default, switched = name, now
        elif kind == "default" and now >= free:
            default, switched = rng.choice(present), now
            operator.at(now, partial(operator.make_default, default))
        elif kind == "remove" and len(present) > 1:
            now = max(now, switched + D + R)
            name = rng.choice([each for each in present if each != default])
            operator.at(now, partial(operator.remove, name))
            present.remove(name)
    return now
