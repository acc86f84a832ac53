"""Which versions may go: those whose destruction no plan notices, whatever is pushed later."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from certagent.chronicle import Judged, judge
from certagent.cli.retire import DESTROYED, fates
from certagent.material.history import HistoricRevision, Policy
from certagent.material.rotation import forecast
from certagent.sources import Revision
from tests.support.material import NOW, make_root

HOUR = timedelta(hours=1)
POLICY = Policy(25 * HOUR, 25 * HOUR, HOUR, HOUR)
A, B = make_root(subject="CN=Root A"), make_root(subject="CN=Root B")


def good(number: int, hours_ago: float, roots: str = "A", anchors: str = "") -> Judged:
    """A version whose roots are letters."""
    at = NOW - hours_ago * HOUR
    end = NOW + 10_000 * HOUR
    known, signs = frozenset(roots), frozenset(anchors or roots[0])
    revision = HistoricRevision(str(number), at, at, end, known, signs)
    return Judged(str(number), at, revision)


def refused(number: int, hours_ago: float) -> Judged:
    return Judged(str(number), NOW - hours_ago * HOUR, None)


def withdrawn(number: int, hours_ago: float, how: str) -> Judged:
    at = NOW - hours_ago * HOUR
    return Judged(str(number), at, HistoricRevision.tombstone(str(number), at, how))


def free(*entries: Judged) -> list[str]:
    """The versions that may go, of these (newest first)."""
    return [each.version for each in fates(entries, NOW, POLICY) if each.is_free(NOW)]


def test_a_version_may_go_when_a_newer_good_one_was_in_force_before_the_window():
    assert free(good(2, 75, "B"), good(1, 100)) == ["1"]
    assert free(good(2, 74, "B"), good(1, 100)) == []


def test_it_is_told_when_that_will_be():
    _, old = fates([good(2, 10, "B"), good(1, 100)], NOW, POLICY)

    assert old.free_at == NOW + 65 * HOUR


def test_a_newer_version_that_was_refused_or_withdrawn_frees_nothing():
    assert free(refused(2, 80), good(1, 100)) == []
    assert free(withdrawn(2, 80, "deleted at 10:00"), good(1, 100)) == []


def test_a_refused_version_has_a_key_too():
    assert free(good(2, 80), refused(1, 100)) == ["1"]


def test_a_deleted_version_may_go_and_a_destroyed_one_is_gone():
    entries = [good(3, 80), withdrawn(2, 90, "deleted at 10:00"), withdrawn(1, 100, DESTROYED)]

    assert free(*entries) == ["2"]
    assert [each.version for each in fates(entries, NOW, POLICY)] == ["3", "2"]


class TestHarm:
    """What is said of a version that stays."""

    def harm(self, *pushed: tuple[object, float]) -> dict[str, str]:
        """Of each version; pushed are (root, hours ago), oldest first."""
        entries = [
            judge(Revision(str(number), NOW - ago * HOUR, ca.intermediate().raw), NOW)
            for number, (ca, ago) in enumerate(pushed, start=1)
        ]
        return {each.version: each.harm for each in fates(entries[::-1], NOW, POLICY)}

    def test_the_root_of_the_signer_before_goes_with_what_was_signed_under_it(self):
        harm = self.harm((A, 100), (B, 30))

        assert harm["1"] == (
            f"without it the root {A.fingerprint[:8]} goes at once, with what was signed under it"
        )

    def test_without_the_only_good_one_nothing_can_be_published(self):
        assert self.harm((A, 100)) == {"1": "without it nothing can be published"}

    def test_what_may_go_does_no_harm(self):
        assert self.harm((A, 100), (B, 80))["1"] == ""

    def test_another_one_would_sign(self):
        """Two intermediates of one root: the roots stay as they are."""
        assert self.harm((A, 100), (A, 1))["2"] == "without it version 1 signs at once"

    def test_a_version_on_which_only_later_changes_depend(self):
        assert self.harm((A, 100), (A, 1))["1"] == "a change of roots counts on it"


roots = st.sampled_from(["A", "B", "C", "AB", "BA", "BC", "CA"])
ages = st.lists(st.integers(0, 200), min_size=1, max_size=6, unique=True)


@given(ages, st.data())
def test_no_plan_notices_that_what_may_go_has_gone(ages, data):
    """Now and later, also when something is pushed after the destruction (C21)."""
    pushed = sorted(ages)
    entries = [good(len(pushed) - index, age, data.draw(roots)) for index, age in enumerate(pushed)]
    gone = free(*entries)
    whole = [each.revision for each in reversed(entries)]
    rest = [
        HistoricRevision.tombstone(each.version, each.stored_at, DESTROYED)
        if each.version in gone
        else each
        for each in whole
    ]
    later = data.draw(st.integers(0, 60))
    after = good(99, -later, data.draw(roots)).revision

    for whole_, rest_ in ((whole, rest), ([*whole, after], [*rest, after])):
        assert [
            (at, plan.signer.version, plan.roots, plan.phase)
            for at, plan in forecast(whole_, NOW, POLICY)
            if plan.signer
        ] == [
            (at, plan.signer.version, plan.roots, plan.phase)
            for at, plan in forecast(rest_, NOW, POLICY)
            if plan.signer
        ]
