"""A mesh in time: stores, agents whose clocks differ, istiods, and all workloads that there can be.

    story = random_story(random.Random(1), World())
    life(story, story.world.policy())      # what every istiod signed and handed out, and when
    refusals(stretches, world)             # pairs of workloads that refuse each other

Time is counted in ticks of 36 seconds; 2400 are a day, the lifetime of a workload's certificate. An
agent sees a push up to `lag` later, reads a clock that is up to `clock` wrong, wakes up to `wake`
late, and dies and is born again without any memory. What it publishes, its istiod signs and hands
out until the next publication.

The check is exact, over all workloads instead of a sample. A certificate that was signed at t0
meets a trust set that was taken at t1 as long as neither has been renewed, so somewhere in the mesh
the two meet if |t0 - t1| < lifetime, where what is signed also ends with its signer (Istio 1.29.3
and later), and the one who verifies may have a clock that is `skew` slow. They refuse each other if
the signer has no anchor in the trust set. Trust that is pushed to a workload between its renewals
is only newer, and so inside of the same condition.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from certagent.material.history import HistoricRevision, Policy
from certagent.material.rotation import Phase, plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from random import Random

TICK = timedelta(seconds=36)
DAY = 2400
START = datetime(2026, 1, 1, tzinfo=UTC)
FOREVER = 1_000_000  # ticks: some 14 months, longer than any story


@dataclass(frozen=True)
class World:
    """How wrong things may go, in ticks."""

    ttl: int = DAY
    lag: int = 30
    clock: int = 20
    wake: int = 3
    skew: int = 10
    store_clock: int = 5
    spread: int = 0
    stores: int = 1
    replicas: int = 3

    @property
    def slack(self) -> int:
        """What assumption 1 asks for."""
        apart = 3 * self.clock + 2 * self.store_clock + 2 * self.spread
        return self.lag + self.wake + self.skew + apart

    def policy(self, *, margin: int = 100) -> Policy:
        """The shortest windows that the assumptions allow."""
        window = self.ttl + self.slack
        return Policy(window * TICK, window * TICK, self.slack * TICK, margin * TICK)


class Push(NamedTuple):
    """A version, and when it is stored (in the first of the stores) and withdrawn."""

    at: int
    roots: frozenset[str]
    anchors: frozenset[str]
    not_before: int = -FOREVER
    not_after: int = FOREVER
    withdrawn: int | None = None


class Pod(NamedTuple):
    """One life of an agent: when it is born and how wrong its clock is."""

    born: int
    clock: int


class Replica(NamedTuple):
    """One place in a cluster: its store, its pods one after the other, and its delays."""

    store: int
    pods: tuple[Pod, ...]
    lags: tuple[int, ...]  # by push
    wake: int


class Story(NamedTuple):
    """All that happens; `delays` is by store and push, `store_clocks` by store."""

    world: World
    pushes: tuple[Push, ...]
    delays: tuple[tuple[int, ...], ...]
    store_clocks: tuple[int, ...]
    replicas: tuple[Replica, ...]

    @property
    def end(self) -> int:
        """When nothing of it is felt any more."""
        windows = self.world.policy()
        last = max(max(push.at, push.not_before) for push in self.pushes)
        return last + self.world.spread + (2 * windows.distribute + windows.retire) // TICK + DAY


class Stretch(NamedTuple):
    """What one istiod signed under and handed out from `since` until `until`."""

    since: int
    until: int
    anchors: frozenset[str]
    roots: frozenset[str]
    signer_dies: int
    phase: Phase


class Refusal(NamedTuple):
    """A certificate that was signed during one stretch is refused by a trust set of the other."""

    signed: Stretch
    trusted: Stretch


def time(tick: int) -> datetime:
    """Return a tick as a time."""
    return START + tick * TICK


def tick_of(moment: datetime) -> int:
    """Return the first tick that is not before a time."""
    return -((START - moment) // TICK)


# What the agents do


def life(story: Story, policy: Policy) -> Iterator[list[Stretch]]:
    """Yield what each replica published over the whole story."""
    for replica in story.replicas:
        stretches: list[Stretch] = []
        ends = [*(pod.born for pod in replica.pods[1:]), story.end]
        for pod, end in zip(replica.pods, ends, strict=True):
            for stretch in _pod(story, replica, pod, end, policy):
                _append(stretches, stretch)
        yield stretches


def _pod(story: Story, replica: Replica, pod: Pod, end: int, policy: Policy) -> Iterator[Stretch]:
    events = sorted({when for when in _events(story, replica) if pod.born < when < end})
    now = pod.born
    while now < end:
        history = seen(story, replica, now, everything=now == pod.born)
        decision = plan(history, time(now + pod.clock), policy)
        upcoming = [when for when in events if when > now]
        if decision.changes_at is not None:
            boundary = tick_of(decision.changes_at) - pod.clock + replica.wake
            upcoming.append(max(boundary, now + 1))
        until = min(*upcoming, end) if upcoming else end
        signer = decision.signer
        if signer is not None:
            dies = min(tick_of(signer.not_after) - pod.clock, FOREVER)
            yield Stretch(now, until, signer.anchors, decision.roots, dies, decision.phase)
        now = until


def _events(story: Story, replica: Replica) -> Iterator[int]:
    for index, push in enumerate(story.pushes):
        delay = story.delays[replica.store][index] + replica.lags[index]
        yield push.at + delay
        if push.withdrawn is not None:
            yield push.withdrawn + delay


def seen(
    story: Story, replica: Replica, now: int, *, everything: bool = False
) -> list[HistoricRevision[str]]:
    """Return the history as a replica knows it: a poll that sees a version sees those before it.

    A pod that is just born knows `everything` that the store holds.
    """
    delays, clock = story.delays[replica.store], story.store_clocks[replica.store]
    lags = [0] * len(delays) if everything else replica.lags
    known = [
        index
        for index, push in enumerate(story.pushes)
        if push.at + delays[index] + lags[index] <= now
    ]
    history = []
    for index in range(max(known, default=-1) + 1):
        push, delay = story.pushes[index], delays[index]
        gone = push.withdrawn
        stored = time(push.at + delay + clock)
        if gone is not None and gone + delay + lags[index] <= now:
            at = time(gone + delay + clock)
            history.append(HistoricRevision.tombstone(str(index), stored, "deleted", at))
        else:
            valid = (time(push.not_before), time(push.not_after))
            history.append(HistoricRevision(str(index), stored, *valid, push.roots, push.anchors))
    return history


def _append(stretches: list[Stretch], stretch: Stretch) -> None:
    """Join what goes on unchanged; while there is no plan, what was published goes on."""
    if stretches:
        before = stretches[-1]
        stretches[-1] = before = before._replace(until=stretch.since)
        if before[2:] == stretch[2:]:
            stretches[-1] = before._replace(until=stretch.until)
            return
    stretches.append(stretch)


# What the workloads see


def refusals(replicas: Sequence[Sequence[Stretch]], world: World) -> Iterator[Refusal]:
    """Yield every pair of stretches by which two valid workloads refuse each other."""
    every = list(dict.fromkeys(stretch for stretches in replicas for stretch in stretches))
    for signed in every:
        for trusted in every:
            if not signed.anchors & trusted.roots and _meet(signed, trusted, world):
                yield Refusal(signed, trusted)


def _meet(signed: Stretch, trusted: Stretch, world: World) -> bool:
    """Whether a certificate of the one is valid while a trust set of the other is held."""
    last_signed = min(signed.until, signed.signer_dies)
    if signed.since >= last_signed:
        return False
    signed_dies = min(last_signed + world.ttl, signed.signer_dies)
    return (
        trusted.since < signed_dies + world.skew
        and signed.since < trusted.until + world.ttl + world.skew
    )


# Stories


def random_story(
    rng: Random, world: World, *, pushes: tuple[int, int] = (1, 7), expiring: bool = False
) -> Story:
    """Return pushes of every kind at awkward moments, and agents with all that may go wrong."""
    history = random_pushes(rng, world, rng.randint(*pushes), expiring=expiring)
    delays = tuple(_random_delays(rng, world, history) for _ in range(world.stores))
    clocks = tuple(rng.choice((-1, 0, 1)) * world.store_clock for _ in range(world.stores))
    story = Story(world, history, delays, clocks, ())
    replicas = tuple(
        _random_replica(rng, story, index % world.stores) for index in range(world.replicas)
    )
    return story._replace(replicas=replicas)


def _random_delays(rng: Random, world: World, history: Sequence[Push]) -> tuple[int, ...]:
    """Return how late each push comes to a store; none overtakes the one before it."""
    delays = []
    before = -FOREVER
    for push in history:
        drawn = rng.choice((0, world.spread, rng.randint(0, world.spread)))
        before = max(push.at + drawn, before)
        delays.append(before - push.at)
    return tuple(delays)


def random_pushes(
    rng: Random, world: World, count: int, *, expiring: bool = False
) -> tuple[Push, ...]:
    """Return the history of a store: a first version that is old, and `count` pushes.

    What is withdrawn has never signed (assumption 4). Where versions are `expiring`, one may have,
    early, so none is withdrawn there.
    """
    policy = world.policy()
    d, slack = policy.distribute // TICK, world.slack
    gaps = (1, d, 2 * d, 2 * d - slack, 3 * d, d - slack, slack, world.spread + 1)
    history = [Push(-8 * d, frozenset("A"), frozenset("A"))]
    if expiring and rng.random() < 0.2:
        # A CA that is adopted near its end (C27).
        history = [Push(-d // 2, *history[0][1:3], not_after=rng.randint(1, d // 2))]
    now = 0
    for _ in range(count):
        push = Push(now, *_random_roots(rng, history))
        if rng.random() < 0.1:
            push = push._replace(not_before=now + rng.choice((1, d // 2, d, d + 1)))
        if expiring and rng.random() < 0.4:
            push = push._replace(not_after=now + rng.choice((d, 2 * d)) + rng.randint(0, 2 * d))
        fresh = not any(push.anchors & (old.roots | old.anchors) for old in history)
        if fresh and not expiring and rng.random() < 0.2:
            push = push._replace(withdrawn=now + rng.randint(1, max(1, d - slack)))
        history.append(push)
        gap = rng.choice(gaps) if rng.random() < 0.6 else rng.randint(1, 3 * d)
        now += max(1, gap + rng.choice((-1, 0, 0, 1)))
    return tuple(history)


def _random_roots(rng: Random, history: Sequence[Push]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the roots and the anchors of the next push."""
    last = history[-1]
    new = frozenset(rng.choice("ABCDE"))
    some = frozenset(rng.choice(sorted(last.roots)))
    old = rng.choice(history)
    kinds = (
        (new, new),  # a new root, or back to an old one
        (old.roots, old.anchors),  # a roll-back, to the letter
        (last.roots, last.anchors),  # the same again, or a new intermediate
        (last.roots | new, last.anchors),  # hand staging: add,
        (last.roots, some),  # switch inside,
        (last.anchors, last.anchors),  # drop,
        (last.roots | new, new),  # or all at once
        (some | new, new),  # a partial overlap
        (last.anchors | new, last.anchors | new),  # a cross-signed chain
    )
    return rng.choice(kinds)


def _random_replica(rng: Random, story: Story, store: int) -> Replica:
    """Return a replica that polls late, and of which most restart at an awkward moment or two."""
    world = story.world
    lags = tuple(rng.choice((0, world.lag, rng.randint(0, world.lag))) for _ in story.pushes)
    clocks = (-world.clock, 0, world.clock)
    windows = (0, *(k * (world.ttl + world.slack) for k in (1, 2)))
    births = {-world.ttl}
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        push = rng.choice(story.pushes[1:])
        birth = push.at + rng.choice(windows) + rng.randint(-world.slack, world.slack)
        births.add(max(birth, 1 - world.ttl))
    pods = tuple(Pod(born, rng.choice(clocks)) for born in sorted(births) if born < story.end)
    return Replica(store, pods, lags, rng.randint(0, world.wake))
