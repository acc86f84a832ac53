"""C1 to C28: what breaks under simpler rules, hour by hour.

Each is a history for which some rule that looks right breaks a mesh; its test says which rule, and
what `plan` does instead. `B/AB` is: B signs, and the roots A and B are published. The windows are
d = r = 24 hours, unless a test gives others.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from certagent.material.history import HistoricRevision, Policy
from certagent.material.rotation import Phase, plan
from certagent.material.timeline import reaches_back
from tests.support.letters import DAY, HOUR, decide, history, phases, shown, time, walk
from tests.support.mesh import Pod, Push, Replica, Story, World, life, refusals


def test_c1_the_operator_pushes_both_roots_with_the_new_signer():
    """Not "what contains the old roots needs no staging": B waits until B is known everywhere."""
    assert walk("[A]/A", "[A,B]/B@0") == {-1: "A/A", 0: "A/AB", 24: "B/AB"}


class TestC2:
    """The guide to rotate by hand: a root is safe to drop only d + r after its last signer."""

    def test_c2_the_old_root_stays_for_what_it_signed(self):
        pushes = ("[A]/A", "[A,B]/A@0", "[B]/B@24")

        assert walk(*pushes) == {-1: "A/A", 0: "A/AB", 24: "B/AB", 72: "B/B"}

    def test_c2_an_operator_in_a_hurry_does_not_make_b_sign_earlier(self):
        pushes = ("[A]/A", "[A,B]/A@0", "[B]/B@1")

        assert walk(*pushes) == {-1: "A/A", 0: "A/AB", 24: "B/AB", 49: "B/B"}

    def test_c2_a_root_that_nobody_signed_under_goes_at_once(self):
        assert walk("[A,B]/A", "[A]/A@0") == {-1: "A/AB", 0: "A/A"}


@pytest.mark.parametrize("again", ["[B]/B@1", "[B]/B'@1"], ids=["same set", "new intermediate"])
def test_c3_the_same_root_again_inside_the_window(again):
    """Not "same roots as before, so nothing to stage": readiness belongs to the root."""
    signer = again[4:].split("@")[0]

    found = walk("[A]/A", "[B]/B@0", again)

    assert found == {-1: "A/A", 0: "A/AB", 24: f"{signer}/AB", 48: f"{signer}/B"}


class TestC4:
    """Roll-back: from A to B and back to A."""

    def test_c4_before_the_switch_b_never_signs(self):
        found = walk("[A]/A", "[B]/B@0", "[A]/A@1")

        assert found == {-1: "A/A", 0: "A/AB", 49: "A/A"}

    def test_c4_while_a_is_still_trusted_it_signs_at_once(self):
        found = walk("[A]/A", "[B]/B@0", "[A]/A@30")

        assert found == {-1: "A/A", 0: "A/AB", 24: "B/AB", 30: "A/AB", 78: "A/A"}

    def test_c4_when_a_is_gone_it_is_a_rotation_like_any_other(self):
        found = walk("[A]/A", "[B]/B@0", "[A]/A@60")

        staged = {0: "A/AB", 24: "B/AB", 48: "B/B", 60: "B/AB", 84: "A/AB", 108: "A/A"}
        assert found == {-1: "A/A"} | staged


def test_c5_a_third_root_inside_the_window_does_not_forget_the_first():
    """Not "target against the previous revision": A still signs, and is not the previous."""
    found = walk("[A]/A", "[B]/B@0", "[C]/C@6")

    first = {-1: "A/A", 0: "A/AB", 6: "A/ABC"}
    assert found == first | {24: "B/ABC", 30: "C/ABC", 48: "C/BC", 54: "C/C"}


class TestC6:
    """Partial overlap needs no case of its own."""

    def test_c6_with_a_new_signer(self):
        found = walk("[A,B]/A", "[B,C]/C@0")

        assert found == {-1: "A/AB", 0: "A/ABC", 24: "C/ABC", 48: "C/BC"}

    def test_c6_with_the_same_signer(self):
        assert walk("[A,B]/A", "[A,C]/A@0") == {-1: "A/AB", 0: "A/AC"}


def test_c7_a_set_whose_notbefore_is_in_the_future_is_distributed_from_then_on():
    """Not "d after it was stored": it was not published before, and A's retirement waits too."""
    found = walk("[A]/A", "[B]/B@0 valid 30")

    assert found == {-1: "A/A", 30: "A/AB", 54: "B/AB", 78: "B/B"}


def test_c8_an_expired_signer_keeps_its_root_until_its_time():
    """Not "what verifies now": other clusters' intermediates under A, and their leafs, live on."""
    found = walk("[A]/A expires 30", "[B]/B@0")

    assert found == {-1: "A/A", 0: "A/AB", 24: "B/AB", 48: "B/B"}


def test_c9_when_the_newest_expires_no_superseded_key_comes_back():
    """Not "the newest that verifies": replicas with fast clocks would go to A before the others."""
    found = walk("[A]/A", "[B]/B@0 expires 100")

    assert found == {-1: "A/A", 0: "A/AB", 24: "B/AB", 48: "B/B", 100: "hold"}


class TestC10:
    """A set that dies before its own distribution is over would leave nobody to sign."""

    def test_c10_it_never_takes_over(self):
        assert walk("[A]/A", "[B]/B@0 expires 25") == {-1: "A/A"}

    def test_c10_one_that_lives_for_longer_than_the_margin_does(self):
        found = walk("[A]/A", "[B]/B@0 expires 26", until=25)

        assert found == {-1: "A/A", 0: "A/AB", 24: "B/AB"}


class TestC11:
    """The old signer dies before the new one is ready."""

    PUSHES = ("[A]/A expires 12", "[B]/B@0")

    def test_c11_the_new_one_signs_an_hour_before_and_the_old_root_stays(self):
        assert walk(*self.PUSHES) == {-1: "A/A", 0: "A/AB", 11: "B/AB", 48: "B/B"}

    def test_c11_that_is_a_phase_of_its_own(self):
        found = phases(*self.PUSHES)

        assert found == {
            -1: "settled",
            0: "distribute",
            11: "early",
            24: "switch",
            48: "settled",
        }

    def test_c11_of_two_the_one_that_has_been_published_for_longer_signs_early(self):
        found = walk("[A]/A expires 12", "[B]/B@0", "[C]/C@5", until=24)

        assert found == {-1: "A/A", 0: "A/AB", 5: "A/ABC", 11: "B/ABC"}


class TestC12:
    """A version that is withdrawn is a tombstone in the timeline, not a hole."""

    def test_c12_the_settled_version_is_deleted_and_a_does_not_come_back(self):
        assert walk("[A]/A", "[B]/B@-500 gone 0") == {-1: "B/B", 0: "hold"}

    def test_c12_one_that_cannot_have_signed_yet_leaves_no_trace(self):
        assert walk("[A]/A", "[B]/B@0 gone 2") == {-1: "A/A", 0: "A/AB", 2: "A/A"}

    def test_c12_without_the_time_of_its_withdrawal_it_counts_as_one_that_may_have_signed(self):
        before, newest = history("[A]/A", "[B]/B@0")
        unknown = HistoricRevision.tombstone("2", newest.stored_at, "destroyed")

        decision = plan([before, unknown], time(30), DAY)

        assert decision.phase is Phase.HOLD
        assert decision.why == "version 2 was destroyed"


def test_c13_an_emergency_destroy_does_not_resurrect_the_one_before():
    """B is destroyed while C is distributed: with a hole in its place it would be A/AC."""
    found = walk("[A]/A", "[B]/B@-500 gone 102", "[C]/C@100")

    assert found == {-1: "B/B", 100: "B/BC", 102: "C/C"}


class TestC14:
    """What a destroyed version signed is trusted no longer, everywhere and at the same time."""

    def test_c14_its_root_goes_with_it(self):
        found = walk("[A]/A gone 30", "[B]/B@0")

        assert found == {-1: "A/A", 0: "A/AB", 24: "B/AB", 30: "B/B"}

    def test_c14_unless_the_newest_revision_lists_it(self):
        assert walk("[A]/A gone 0", "[A,B]/B@0") == {-1: "A/A", 0: "B/AB"}


def test_c15_the_emergency_is_seen_as_soon_as_the_history_tells_of_it():
    """Not "a poll reads the current version": the agent reads the window's versions again.

    That is the agent's part; the plan's is that a tombstone below the newest changes it at once.
    """
    assert walk("[A]/A gone 2", "[B]/B@0") == {-1: "A/A", 0: "A/AB", 2: "B/B"}


class TestC16:
    """A store that keeps too few versions hides what must be staged."""

    def test_c16_the_oldest_known_version_counts_as_one_that_was_always_there(self):
        """All that a pod without memory can do; the warning about it is the agent's part."""
        assert shown(("[B]/B@0",), decide("[B]/B@0", at=1)) == "B/B"

    def test_c16_a_cut_history_can_be_told_from_one_that_is_long_enough(self):
        cut, whole = history("[B]/B@0"), history("[A]/A@-72", "[B]/B@0")

        assert not reaches_back(cut, time(1), DAY)
        assert reaches_back(whole, time(1), DAY)
        assert reaches_back(cut, time(72), DAY)
        assert not reaches_back(cut, time(71), DAY)

    def test_c16_an_agent_that_remembers_goes_on_staging(self):
        remembered = history("[A]/A", "[B]/B@0", at=1)

        assert plan(remembered, time(1), DAY).signer.version == "1"

    @pytest.mark.parametrize("newest", ["[B]/B@-100 gone -99", "[B]/B@-100 expires -80"])
    def test_c16_what_leaves_no_trace_is_no_end_of_the_history(self, newest):
        assert not reaches_back(history(newest, "[C]/C@0"), time(1), DAY)


# C17 and C18: one push, B for A, at tick 0; 100 ticks are an hour.


def one_push(world: World, *, delays: tuple[int, ...], lag: int) -> Story:
    a, b = frozenset("A"), frozenset("B")
    replicas = tuple(
        Replica(store, (Pod(-world.ttl, 0),), (0, lag), 0) for store in range(len(delays))
    )
    pushes = (Push(-50_000, a, a), Push(0, b, b))
    return Story(world, pushes, tuple((0, each) for each in delays), (0,) * len(delays), replicas)


def broken(story: Story, policy: Policy) -> bool:
    return any(refusals(list(life(story, policy)), story.world))


def test_c17_windows_of_one_lifetime_have_no_slack():
    """Who renewed just before the second replica saw the push trusts A alone until d + lag."""
    world = World(clock=0, skew=0, wake=0, store_clock=0)
    story = one_push(world, delays=(0,), lag=world.lag)
    late, punctual = story.replicas[0], story.replicas[0]._replace(lags=(0, 0))
    story = story._replace(replicas=(late, punctual))

    assert broken(story, Policy(24 * HOUR, 24 * HOUR, timedelta(0)))
    assert not broken(story, world.policy())


@pytest.mark.parametrize(
    ("distribute", "retire", "breaks"),
    [(31, 31, False), (31, 24, True), (24, 31, True)],
    ids=["in both", "in d alone", "in r alone"],
)
def test_c18_the_spread_of_a_push_over_clusters_counts_in_both_windows(distribute, retire, breaks):
    """The second cluster is pushed 6 hours later: it still signs with A, and trusts only A."""
    world = World(stores=2, spread=600, clock=0, skew=0, wake=0, store_clock=0, lag=0)
    story = one_push(world, delays=(0, 600), lag=0)

    assert broken(story, Policy(distribute * HOUR, retire * HOUR, HOUR)) is breaks


class TestC19:
    """A roll-back that races the retirement of its root: somewhere it may be gone already."""

    POLICY = Policy(25 * HOUR, 25 * HOUR, 2 * HOUR)

    def test_c19_within_the_slack_before_its_retirement_a_root_does_not_count_as_published(self):
        found = walk("[A]/A", "[B]/B@0", "[A]/A@49", policy=self.POLICY)

        assert found == {-1: "A/A", 0: "A/AB", 25: "B/AB", 74: "A/AB", 99: "A/A"}

    def test_c19_before_that_it_does(self):
        found = walk("[A]/A", "[B]/B@0", "[A]/A@48", policy=self.POLICY)

        assert found == {-1: "A/A", 0: "A/AB", 25: "B/AB", 48: "A/AB", 98: "A/A"}


class TestC20:
    """An agent that sees a push late (its store was down) has too little time to distribute it."""

    def test_c20_the_plan_is_that_of_all_others(self):
        """No rule without memory can cure it: the agent's part is to raise the alarm."""
        decision = decide("[A]/A", "[B]/B@0", at=20)

        assert decision.changes_at == time(24)

    def test_c20_the_cure_is_to_withdraw_the_version_and_to_push_it_again(self):
        found = walk("[A]/A", "[B]/B@0 gone 20", "[B]/B@20")

        assert found == {-1: "A/A", 0: "A/AB", 44: "B/AB", 68: "B/B"}


class TestC21:
    """To withdraw a version that has signed is an emergency; to take it back, push the old set."""

    def test_c21_nobody_signs_when_it_is_withdrawn(self):
        found = walk("[A]/A", "[B]/B@0 gone 30")

        assert found == {-1: "A/A", 0: "A/AB", 24: "B/AB", 30: "hold"}

    def test_c21_what_it_signed_is_trusted_no_longer(self):
        found = walk("[A]/A", "[B]/B@0 gone 30", "[A]/A@31")

        assert found == {-1: "A/A", 0: "A/AB", 24: "B/AB", 30: "hold", 31: "A/A"}

    def test_c21_to_push_the_old_set_again_is_safe(self):
        assert walk("[A]/A", "[B]/B@0", "[A]/A@30", until=60)[30] == "A/AB"


def test_c22_the_revisions_whose_revocation_lists_belong_together():
    """With the lists of A alone, Envoy refuses every certificate under B; `roots` joins them."""
    pushes = ("[A]/A", "[B]/B@0", "[B]/B'@10")

    kept = {hour: [each.version for each in decide(*pushes, at=hour).kept] for hour in (-1, 0, 20)}
    later = {hour: [each.version for each in decide(*pushes, at=hour).kept] for hour in (48, 58)}

    assert kept == {-1: ["1"], 0: ["1", "2"], 20: ["1", "2", "3"]}
    assert later == {48: ["2", "3"], 58: ["3"]}


def test_c23_a_new_intermediate_of_the_old_root_signs_at_once_and_delays_nothing():
    """Its set is published whole, key, certificate and chain; the roots alone are joined."""
    found = walk("[A]/A", "[B]/B@0", "[A]/A'@6", "[B]/B@7")

    assert found == {-1: "A/A", 0: "A/AB", 6: "A'/AB", 24: "B/AB", 55: "B/B"}


def test_c24_retirement_counts_from_when_the_last_may_have_stopped_signing():
    """By hand in three steps: A goes d + r after the last revision that signed with it, not r."""
    found = walk("[A]/A", "[A,B]/A@0", "[A,B]/B@24", "[B]/B@48")

    assert found == {-1: "A/A", 0: "A/AB", 24: "B/AB", 72: "B/B"}


class TestC25:
    """Stores whose sets become whole at a moment, with times of whole seconds."""

    def test_c25_equal_times_do_not_hide_a_revision(self):
        """Not a walk over times: whoever saw the first of the two alone has published C."""
        found = walk("[A]/A", "[A,C]/C@0", "[B]/B@0")

        assert found == {-1: "A/A", 0: "A/ABC", 24: "B/ABC", 48: "B/B"}

    def test_c25_a_disabled_version_is_a_tombstone(self):
        before, newest = history("[A]/A", "[B]/B@0")
        disabled = HistoricRevision.tombstone("2", newest.stored_at, "disabled", time(30))

        assert plan([before, disabled], time(31), DAY).why == "version 2 was disabled"


def test_c26_a_revision_that_was_superseded_before_its_notbefore_does_not_sign_before_it():
    """Not "whoever was in force within the last d": istiod refuses what is not yet valid."""
    found = walk("[A]/A", "[A]/A'@1 valid 20", "[B]/B@5")

    assert found == {-1: "A/A", 5: "A/AB", 20: "A'/AB", 29: "B/AB", 53: "B/B"}


class TestC27:
    """A CA that is near its end when the history begins: the CA of a mesh that is adopted."""

    def test_c27_a_push_does_not_erase_it(self):
        """Not "drop what dies before d, if anything lives longer": B would replace A at once."""
        found = walk("[A]/A@0 expires 20", "[B]/B@5")

        assert found == {-1: "hold", 0: "A/A", 5: "A/AB", 19: "B/AB", 53: "B/B"}

    def test_c27_nor_does_one_that_is_not_yet_in_force(self):
        """Not even before it starts: nobody would be left to sign until then."""
        found = walk("[A]/A@0 expires 20", "[B]/B@5 valid 10", until=11)

        assert found == {-1: "hold", 0: "A/A", 10: "A/AB"}


class TestC28:
    """Not "no trace at all": while it stood, it took away the roots that were only listed."""

    def test_c28_who_renewed_meanwhile_does_not_know_the_root(self):
        """Between 0 and 5 hours A was not published, so it signs at 29, not at 10."""
        found = walk("[A,C]/C", "[E]/E@0 gone 5", "[A,C]/A@10")

        assert found == {-1: "C/AC", 0: "C/CE", 5: "C/AC", 29: "A/AC"}

    def test_c28_one_that_was_superseded_at_once_may_be_all_that_some_agent_saw(self):
        found = walk("[A,C]/C", "[E]/E@0 gone 5", "[A,C]/A@0")

        assert found[24] == "A/AC"
        assert found[5] == "C/AC"
