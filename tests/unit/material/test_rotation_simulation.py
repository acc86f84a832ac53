"""The property that the plan exists for: no two workloads of a mesh ever refuse each other.

Each world plays 500 stories, and 100,000 with `pytest --long`.
"""

from __future__ import annotations

import random
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from certagent.material.history import Policy
from certagent.material.roots import bridge
from certagent.material.rotation import Phase
from tests.support.effort import effort
from tests.support.mesh import (
    DAY,
    FOREVER,
    TICK,
    Stretch,
    World,
    life,
    random_pushes,
    random_story,
    refusals,
    time,
)

STORIES = effort(90, 100_000)
SOME = effort(60, 1000)

WORLDS = {
    "one store, three replicas": World(),
    "no fault at all": World(lag=0, clock=0, wake=0, skew=0, store_clock=0),
    "three clusters, pushed up to 6 hours apart": World(stores=3, replicas=6, spread=600),
    "slack longer than the lifetime": World(
        ttl=240, lag=60, clock=30, spread=100, stores=2, replicas=4
    ),
}
IMMEDIATE = Policy(immediate=True)


def refused(rng, world, policy, **knobs):
    """Return the refusals of one story."""
    story = random_story(rng, world, **knobs)
    return list(refusals(list(life(story, policy)), world))


def share(policy: Policy, world: World) -> float:
    """Return how many of some stories have a refusal, as a fraction."""
    rng = random.Random(20_260_701)
    return sum(bool(refused(rng, world, policy)) for _ in range(SOME)) / SOME


class TestNoWorkloadIsEverRefused:
    """No two workloads that hold valid certificates ever refuse each other.

    Whatever is pushed, rolled back, taken back or pushed by hand in stages; whenever agents see it,
    however wrong their clocks are, wherever they die and are born again without memory; for every
    workload that there can be: one that holds its certificate for up to its lifetime, and trusts
    what was published when it last renewed. As long as the assumptions in `rotation` hold.
    """

    @pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
    @pytest.mark.timeout(0)
    def test_in_any_story(self, world):
        rng = random.Random(20_260_701)
        for number in range(STORIES):
            assert not refused(rng, world, world.policy()), f"story {number}"

    @pytest.mark.timeout(0)
    def test_in_long_stories(self):
        rng, world = random.Random(20_260_701), World()
        for number in range(STORIES // 3):
            assert not refused(rng, world, world.policy(), pushes=(6, 14)), f"story {number}"

    @given(st.randoms(use_true_random=False))
    @settings(max_examples=effort(50, 5000))
    def test_in_stories_that_hypothesis_makes_worse(self, rng):
        world = World()

        assert not refused(rng, world, world.policy())

    @pytest.mark.timeout(0)
    def test_when_signers_expire_only_what_was_signed_early_is(self):
        """Assumption 5 is broken there, and nobody else is left to sign: an alarm says so."""
        rng, world = random.Random(20_260_701), World()
        for number in range(STORIES):
            for refusal in refused(rng, world, world.policy(), expiring=True):
                assert refusal.signed.phase is Phase.EARLY, f"story {number}"


class TestTheSimulationCanFail:
    """Each assumption is needed, and what breaks one is seen."""

    def test_without_staging_most_stories_refuse_somebody(self):
        assert share(IMMEDIATE, World()) > 0.5

    def test_windows_of_one_lifetime_without_slack_are_too_short(self):
        assert share(Policy(DAY * TICK, DAY * TICK, 0 * TICK), World()) > 0.3

    @pytest.mark.parametrize("short", ["distribute", "retire"])
    def test_either_window_is_needed(self, short):
        policy = replace(World().policy(), **{short: timedelta(hours=12)})

        assert share(policy, World()) > 0.2

    def test_a_signer_that_dies_is_seen_when_it_signs_early(self):
        rng, world = random.Random(20_260_701), World()
        stories = [refused(rng, world, world.policy(), expiring=True) for _ in range(SOME)]

        assert any(stories)


def stretch(since, until, anchor, roots, dies=FOREVER):
    return Stretch(since, until, frozenset(anchor), frozenset(roots), dies, Phase.SETTLED)


class TestTheCheck:
    """It finds just what one would find who asked every pair of workloads."""

    @given(st.randoms(use_true_random=False))
    @settings(max_examples=effort(100, 10_000))
    def test_it_agrees_with_all_workloads(self, rng):
        world = World(ttl=4, skew=1)
        life_of_two = []
        for _ in range(2):
            edges = sorted(rng.sample(range(20), 4))
            life_of_two.append(
                [
                    stretch(
                        start,
                        end,
                        rng.choice("AB"),
                        rng.choice(("A", "B", "AB")),
                        rng.randint(5, 25),
                    )
                    for start, end in pairwise(edges)
                ]
            )

        assert bool(list(refusals(life_of_two, world))) == one_by_one(life_of_two, world)

    @pytest.mark.parametrize(("apart", "refused"), [(4, True), (5, False)])
    def test_it_agrees_on_the_last_moment(self, apart, refused):
        """Lifetime and skew are 5 ticks: what is signed before the end of one stretch."""
        world = World(ttl=4, skew=1)
        replicas = [[stretch(0, 1, "A", "A")], [stretch(1 + apart, 20, "B", "B")]]

        assert bool(list(refusals(replicas, world))) == one_by_one(replicas, world) == refused


def one_by_one(replicas, world) -> bool:
    """Whether any certificate is refused: each half tick's certificate against its trust.

    Half ticks, because a stretch lasts until the very moment at which it ends.
    """
    every = [each for stretches in replicas for each in stretches]
    signed = [(half / 2, each) for each in every for half in range(2 * each.since, 2 * each.until)]
    for t0, signer in signed:
        if t0 >= signer.signer_dies:
            continue
        dies = min(t0 + world.ttl, signer.signer_dies)
        for t1, trust in signed:
            met_at = max(t0, t1)
            alive = met_at < dies + world.skew and met_at < t1 + world.ttl + world.skew
            if alive and not signer.anchors & trust.roots:
                return True
    return False


class TestRootFiles:
    """What istiod of any version reloads: one of two consecutive files contains the other."""

    @pytest.mark.parametrize("policy", [World().policy(), IMMEDIATE], ids=["staged", "immediate"])
    @pytest.mark.parametrize("awake", [1.0, 0.3], ids=["always", "that sleeps through phases"])
    @pytest.mark.timeout(0)
    def test_consecutive_files_of_an_agent_contain_one_another(self, policy, awake):
        rng, bridged = random.Random(20_260_701), 0
        for _ in range(STORIES):
            for stretches in life(random_story(rng, World()), policy):
                published = ""
                for each in stretches:
                    if published and rng.random() > awake:
                        continue
                    wanted = "".join(sorted(each.roots))
                    while published != wanted:
                        following = "".join(bridge(published, wanted))
                        assert following in published or published in following
                        bridged += following != wanted
                        published = following
        assert bridged, "no story needed a bridge"


def test_random_pushes_are_of_every_kind():
    """The simulation is worth what its stories are."""
    rng, world = random.Random(20_260_701), World()
    pushes = [
        push
        for expiring in (False, True)
        for _ in range(100)
        for push in random_pushes(rng, world, 5, expiring=expiring)
    ]

    assert any(push.withdrawn for push in pushes)
    assert any(push.not_before > push.at for push in pushes)
    assert any(push.not_after < FOREVER for push in pushes)
    assert any(len(push.anchors) > 1 for push in pushes)
    assert any(push.roots > push.anchors for push in pushes)
    assert time(100) - time(0) == timedelta(hours=1)
