"""The guard: the bytes that a plan becomes, and what may follow what is published."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from certagent.material.bundle import KeyCertBundle
from certagent.material.history import HistoricRevision, Policy
from certagent.material.roots import bridge, in_order, joined, next_file, union_of_crls
from certagent.material.rotation import Phase, plan
from certagent.material.verification import verify
from tests.support.material import NOT_BEFORE, NOW, make_root

HOUR = timedelta(hours=1)
POLICY = Policy()


class TestBridge:
    @pytest.mark.parametrize(
        ("published", "wanted"),
        [("", "A"), ("A", "A"), ("A", "AB"), ("AB", "A"), ("AB", "B"), ("B", "ABC"), ("ABC", "B")],
    )
    def test_what_contains_the_other_follows_at_once(self, published, wanted):
        assert "".join(bridge(published, wanted)) == wanted

    @pytest.mark.parametrize(
        ("published", "wanted", "between"),
        [
            pytest.param("AB", "BC", "ABC", id="one comes as another goes"),
            pytest.param("ABC", "AC", "ABCAC", id="the middle goes first"),
            pytest.param("A", "B", "AB", id="an unstaged replacement"),
            pytest.param("AC", "ABC", "ACABC", id="one is added in the middle"),
            pytest.param("ABCAC", "D", "ABCACD", id="in the middle of another bridge"),
        ],
    )
    def test_else_both_joined_come_first(self, published, wanted, between):
        assert "".join(bridge(published, wanted)) == between

    @given(st.text("ABC", max_size=6), st.text("ABC", max_size=6))
    def test_each_step_contains_or_is_contained_and_two_lead_to_the_end(self, published, wanted):
        step = "".join(bridge(published, wanted))

        assert (
            step in published
            or (step.startswith(published) and step.endswith(wanted))
            or (published in step and step == wanted)
        )
        assert "".join(bridge(step, wanted)) == wanted

    @given(st.text("ABC", max_size=6), st.text("ABC", max_size=6))
    def test_no_shorter_one_would_do(self, published, wanted):
        step = "".join(bridge(published, wanted))

        if step != wanted:
            longest = len(published) + len(wanted)
            shared = (n for n in range(longest) if n and published[-n:] == wanted[:n])
            assert len(step) == longest - max(shared, default=0)


def revision(version, raw, stored_at):
    return HistoricRevision.good(version, stored_at, verify(KeyCertBundle.decode(raw), NOW))


@pytest.fixture(scope="module")
def old():
    return make_root()


@pytest.fixture(scope="module")
def new():
    return make_root(not_before=NOT_BEFORE + HOUR)


@pytest.fixture(scope="module")
def signers(old, new):
    return old.intermediate(), new.intermediate()


@pytest.fixture(scope="module")
def history(signers):
    first, second = signers
    return [revision("1", first.raw(), NOT_BEFORE), revision("2", second.raw(), NOW)]


class TestJoinedSet:
    def test_c23_the_signer_brings_all_but_the_roots(self, history):
        """Chain and key are his: each workload's certificate carries the chain of its own."""
        canonical = joined(plan(history, NOW + HOUR, POLICY)).canonical()

        whole = history[0].bundle.bundle.canonical()
        assert canonical.private_key == whole.private_key
        assert canonical.certificate == whole.certificate
        assert canonical.chain == whole.chain
        assert canonical.roots == whole.roots + history[1].bundle.bundle.canonical().roots

    def test_it_verifies(self, history):
        for hours in (1, 26, 51):
            decision = plan(history, NOW + hours * HOUR, POLICY)

            verify(joined(decision), NOW + hours * HOUR)

    def test_the_bytes_are_a_function_of_the_set(self, history, signers, new, old):
        """Whether the roots came together or one by one, and in whatever order."""
        _, second = signers
        together = revision("1", second.raw(roots=(new, old)), NOT_BEFORE)
        by_hand = joined(plan([together], NOW, POLICY))
        staged = joined(plan(history, NOW + 26 * HOUR, POLICY))

        assert by_hand.canonical().roots == staged.canonical().roots

    def test_the_older_root_comes_first(self, new, old):
        roots = {KeyCertBundle.decode(each.intermediate().raw()).roots[0] for each in (new, old)}

        assert [each.not_before for each in in_order(roots)] == [NOT_BEFORE, NOT_BEFORE + HOUR]

    def test_a_plan_to_publish_nothing_new_has_no_set(self):
        decision = plan([], NOW, POLICY)

        assert decision.phase is Phase.HOLD
        assert joined(decision) is None


class TestRootFile:
    def test_a_usual_rotation_needs_no_bridge(self, history):
        published = b""
        for hours in (-1, 1, 26, 51):
            decision = plan(history[: 1 + (hours > 0)], NOW + hours * HOUR, POLICY)
            wanted = joined(decision).canonical().roots

            assert next_file(published, wanted) == wanted
            published = wanted

    def test_an_unstaged_replacement_is_bridged_byte_for_byte(self, history):
        before, after = (each.bundle.bundle.canonical().roots for each in history)

        between = next_file(before, after)

        assert between == before + after
        assert next_file(between, after) == after


@pytest.fixture(scope="module")
def listed(old, new, signers):
    first, second = signers
    return [
        revision("1", first.raw(crls=first.crl() + old.crl()), NOT_BEFORE),
        revision("2", second.raw(crls=second.crl() + new.crl()), NOW),
    ]


class TestRevocationLists:
    """C22: with the lists of one CA alone, Envoy refuses every certificate of the other."""

    def test_c22_both_are_published_while_both_roots_are(self, listed):
        decision = plan(listed, NOW + HOUR, POLICY)

        published = joined(decision)
        each = [set(revision.bundle.bundle.crls) for revision in listed]
        assert set(published.crls) == each[0] | each[1]
        verify(published, NOW + HOUR)

    def test_c22_the_old_ones_go_with_the_old_root(self, listed):
        decision = plan(listed, NOW + 51 * HOUR, POLICY)

        assert set(joined(decision).crls) == set(listed[1].bundle.bundle.crls)

    def test_the_same_list_is_published_once_and_in_one_order(self, listed):
        again = replace(listed[0], version="3")

        assert union_of_crls([*listed, again]) == union_of_crls([again, *reversed(listed)])
        assert len(union_of_crls([*listed, again])) == 4
