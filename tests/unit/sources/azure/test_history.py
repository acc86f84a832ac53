"""Which sets a vault's versions have made: as of each moment, by tags, and in the middle of one."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certagent.sources.azure import history
from certagent.sources.azure.history import SecretVersion, StoredSet, stored_sets

START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("ca-key", "ca-cert", "cert-chain", "root-cert")


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


class Vault:
    """Versions as an operator writes them, at minutes since the start."""

    def __init__(self, *names: str) -> None:
        self.secrets: dict[str, list[SecretVersion]] = {name: [] for name in names or NAMES}

    def set(self, name: str, minute: float, **how: object) -> SecretVersion:
        versions = self.secrets[name]
        identity = f"{name}-{len(versions) + 1}"
        version = SecretVersion(name, identity, at(minute), at(minute), **how)
        versions.append(version)
        return version

    def set_all(self, minute: float, step: float = 0.5, **how: object) -> None:
        for index, name in enumerate(self.secrets):
            self.set(name, minute + index * step, **how)

    def change(self, name: str, **how: object) -> None:
        old = self.secrets[name][-1]
        fields = {field: getattr(old, field) for field in old.__slots__}
        self.secrets[name][-1] = SecretVersion(**{**fields, **how})

    def sets(self, now: float = 1_000_000, optional: frozenset[str] = frozenset()):
        return list(stored_sets(self.secrets, optional, at(now)))


def ids(stored: StoredSet) -> str:
    """The number of each secret's version, in the secrets' order."""
    return "".join(each.id[-1] for each in stored.parts.values())


@pytest.fixture
def vault():
    return Vault()


class TestAsOfAMoment:
    def test_a_set_becomes_whole_with_its_last_part(self, vault):
        vault.set_all(0)

        (stored,) = vault.sets()

        assert stored.moment == at(1.5)

    def test_the_sets_between_two_whole_ones_are_there_newest_first(self, vault):
        vault.set_all(0)
        vault.set_all(60)

        assert [ids(each) for each in vault.sets()] == ["2222", "2221", "2211", "2111", "1111"]

    def test_there_is_no_set_before_each_secret_is_there(self, vault):
        vault.set("ca-key", 0)
        vault.set("ca-key", 1)
        for name in NAMES[1:]:
            vault.set(name, 2)

        assert [ids(each) for each in vault.sets()] == ["2111"]

    def test_what_is_older_than_one_of_the_secrets_is_not_gone_through(self, vault, monkeypatch):
        latest_first, asked = history._latest_first, []
        monkeypatch.setattr(
            history, "_latest_first", lambda *of: asked.append(of) or latest_first(*of)
        )
        for hour in range(50):
            vault.set_all(60 * hour)
        vault.secrets["root-cert"] = vault.secrets["root-cert"][-1:]

        (stored,) = vault.sets()

        assert stored.moment == at(60 * 49 + 1.5)
        assert len(asked) == len(NAMES)

    def test_only_the_oldest_is_the_first_of_all(self, vault):
        vault.set_all(0)
        vault.set_all(60)

        assert [each.is_first for each in vault.sets()] == [False] * 4 + [True]

    def test_without_versions_there_is_no_set(self, vault):
        assert vault.sets() == []

    def test_a_change_of_roots_alone_is_a_set(self, vault):
        vault.set_all(0)
        vault.set("root-cert", 60)

        assert [ids(each) for each in vault.sets()] == ["1112", "1111"]

    def test_an_optional_secret_may_be_missing_and_may_come_later(self):
        vault = Vault(*NAMES, "ca-crl")
        for name in NAMES:
            vault.set(name, 0)
        vault.set("ca-crl", 60)

        sets = vault.sets(optional=frozenset({"ca-crl"}))

        assert [len(each.parts) for each in sets] == [5, 4]

    def test_one_secret_has_a_set_for_each_version(self):
        vault = Vault("gateway")
        vault.set("gateway", 0)
        vault.set("gateway", 60)

        assert [ids(each) for each in vault.sets()] == ["2", "1"]


class TestNames:
    def test_a_name_tells_the_moment_and_stays_when_more_is_stored(self, vault):
        vault.set_all(0)
        (before,) = vault.sets()
        vault.set_all(60)

        assert vault.sets()[-1].name == before.name
        assert before.name.startswith("2026-01-01T00:01:30Z-")

    def test_two_sets_of_one_second_have_two_names(self, vault):
        vault.set_all(0)
        vault.set("root-cert", 60)
        vault.set("ca-key", 60)

        names = [each.name for each in vault.sets()]

        assert len(set(names)) == len(names) == 4


class TestSeconds:
    def test_all_four_in_one_second_are_one_set(self, vault):
        vault.set_all(0, step=0)
        vault.set_all(60, step=0)

        assert [ids(each) for each in vault.sets()] == ["2222", "1111"]

    def test_a_set_that_was_whole_for_less_than_a_second_is_not_hidden(self, vault):
        vault.set_all(0)
        vault.set("ca-key", 60)
        vault.set("ca-cert", 61)
        vault.set("root-cert", 61)
        vault.set("cert-chain", 62)
        vault.set("ca-key", 62)

        assert "2222" in [ids(each) for each in vault.sets()]

    def test_of_two_versions_in_one_second_both_are_told_the_later_one_first(self, vault):
        vault.set_all(0)
        vault.set("root-cert", 60)
        vault.set("root-cert", 60)

        assert [ids(each) for each in vault.sets()] == ["1113", "1112", "1111"]


class TestMixtures:
    def test_what_was_stored_in_one_go_is_none(self, vault):
        vault.set_all(0)

        assert not vault.sets()[0].is_mixture

    def test_what_has_parts_of_another_day_may_be_one(self, vault):
        vault.set_all(0)
        vault.set("ca-key", 60)

        assert vault.sets()[0].is_mixture

    def test_what_was_pushed_together_is_none_however_long_it_took(self, vault):
        vault.set_all(0, step=60, tag="X")

        assert not vault.sets()[0].is_mixture


class TestTags:
    def test_a_set_is_called_by_its_tag(self, vault):
        vault.set_all(0, tag="2026-01-01-a")

        assert [each.name for each in vault.sets()] == ["2026-01-01-a"]

    def test_nothing_between_two_pushes_is_a_set(self, vault):
        vault.set_all(0, tag="X")
        vault.set_all(60, tag="Y")

        assert [each.tag for each in vault.sets()] == ["Y", "X"]

    @pytest.mark.parametrize("done", [1, 2, 3])
    def test_a_push_that_is_under_way_is_told_as_such_and_is_no_set(self, vault, done):
        vault.set_all(0, tag="X")
        for name in NAMES[:done]:
            vault.set(name, 60, tag="Y")

        newest, before = vault.sets()

        assert newest.unfinished == ("Y",)
        assert newest.is_mixture
        assert (before.tag, before.unfinished) == ("X", ())

    def test_a_push_over_what_was_stored_by_hand_is_no_set_before_its_end(self, vault):
        vault.set_all(0)
        vault.set("ca-key", 60, tag="X")

        newest, before = vault.sets()

        assert newest.unfinished == ("X",)
        assert ids(before) == "1111"

    @pytest.mark.parametrize("seconds", list(itertools.product([60, 61], repeat=4)), ids=str)
    def test_nothing_of_a_push_is_a_set_with_what_it_replaced(self, vault, seconds):
        """Whichever of its parts came in its last second."""
        vault.set_all(0)
        for name, second in sorted(zip(NAMES, seconds, strict=True), key=lambda each: each[1]):
            vault.set(name, second, tag="Y")

        assert [each.tag for each in vault.sets()] == ["Y", ""]

    def test_a_part_that_a_push_wrote_twice_makes_one_set(self, vault):
        vault.set_all(0)
        vault.set("ca-key", 60, tag="Y")
        for name in NAMES:
            vault.set(name, 61, tag="Y")

        assert [(each.tag, ids(each)[0]) for each in vault.sets()] == [("Y", "3"), ("", "1")]

    def test_an_interrupted_push_is_told_no_more_once_another_one_is_whole(self, vault):
        vault.set_all(0, tag="X")
        vault.set("ca-key", 60, tag="Y")
        vault.set_all(120, tag="Z")

        assert [each.tag for each in vault.sets()] == ["Z", "X"]

    def test_a_part_that_is_stored_by_hand_over_a_whole_push_makes_a_set(self, vault):
        vault.set_all(0, tag="X")
        vault.set("root-cert", 60)

        by_hand, push = vault.sets()

        assert (by_hand.tag, ids(by_hand), push.tag) == ("", "1112", "X")

    def test_pushes_that_cross_each_other_are_both_whole(self, vault):
        vault.set("ca-key", 0, tag="X")
        vault.set_all(1, tag="Y")
        for name in NAMES[1:]:
            vault.set(name, 3, tag="X")

        assert [each.tag for each in vault.sets()] == ["X", "Y"]

    def test_a_push_that_was_repeated_counts_from_its_later_parts(self, vault):
        vault.set_all(0, tag="X")
        vault.set("ca-key", 60, tag="X")

        newest, *_ = vault.sets()

        assert (newest.name, newest.moment, ids(newest)) == ("X", at(60), "2111")

    def test_a_push_in_the_second_of_another_hand_is_told_behind_what_covers_it(self, vault):
        vault.set_all(0, step=0, tag="X")
        vault.set("root-cert", 0)

        assert [(each.tag, ids(each)) for each in vault.sets()] == [("", "1112"), ("X", "1111")]


class TestWithdrawal:
    def test_a_disabled_version_withdraws_each_set_that_has_it(self, vault):
        vault.set_all(0)
        vault.set("ca-key", 60)
        vault.set("root-cert", 120)
        vault.change("ca-key", enabled=False, updated=at(180))

        newest, between, before = vault.sets()

        assert newest.withdrawn == "disabled at 2026-01-01T03:00:00Z (ca-key/ca-key-2)"
        assert between.withdrawn_at == at(180)
        assert (before.withdrawn, before.withdrawn_at) == ("", None)

    def test_behind_a_disabled_version_the_one_before_is_not_the_newest(self, vault):
        vault.set_all(0)
        vault.set("root-cert", 60)
        vault.change("root-cert", enabled=False)

        assert ids(vault.sets()[0]) == "1112"

    def test_of_several_the_first_one_counts(self, vault):
        vault.set_all(0)
        vault.change("ca-key", enabled=False, updated=at(90))
        vault.change("ca-cert", enabled=False, updated=at(80))

        assert vault.sets()[0].withdrawn_at == at(80)

    def test_a_set_expires_with_the_first_of_its_versions(self, vault):
        vault.set_all(0)
        vault.change("ca-key", expires=at(500))
        vault.change("root-cert", expires=at(400))

        assert vault.sets()[0].expires == at(400)

    def test_a_push_that_was_never_whole_cannot_be_withdrawn(self, vault):
        vault.set_all(0, tag="X")
        vault.set("ca-key", 60, tag="Y")
        vault.change("ca-key", enabled=False)

        newest, before = vault.sets()

        assert (newest.unfinished, newest.withdrawn, newest.withdrawn_at) == (("Y",), "", None)
        assert (before.tag, before.withdrawn) == ("X", "")


class TestActivation:
    def test_a_version_counts_from_its_activation_date(self, vault):
        vault.set_all(0)
        vault.set("root-cert", 60, not_before=at(120))

        assert [ids(each) for each in vault.sets(now=119)] == ["1111"]
        newest, _ = vault.sets(now=120)
        assert (ids(newest), newest.moment) == ("1112", at(120))

    def test_one_that_was_stored_over_meanwhile_never_comes(self, vault):
        vault.set_all(0)
        vault.set("root-cert", 60, not_before=at(120))
        vault.set("root-cert", 90)

        assert [ids(each) for each in vault.sets()] == ["1113", "1111"]

    def test_a_date_that_was_past_already_changes_nothing(self, vault):
        vault.set_all(0, not_before=at(-60))

        assert vault.sets()[0].moment == at(1.5)


writes = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.integers(0, 12),
        st.sampled_from(["", "", "X", "Y"]),
        st.booleans(),
    ),
    max_size=14,
)


@given(writes)
def test_whatever_is_written_sets_are_told_once_newest_first_and_hold_to_their_tags(written):
    vault = Vault()
    for name, minute, tag, enabled in sorted(written, key=lambda each: each[1]):
        vault.set(name, minute, tag=tag, enabled=enabled)

    sets = vault.sets()

    assert all(each.parts.keys() == set(NAMES) for each in sets)
    moments = [each.moment for each in sets]
    assert moments == sorted(moments, reverse=True)
    told = [tuple(sorted(v.id for v in each.parts.values())) for each in sets]
    assert len(set(told)) == len(told)
    assert [each.is_first for each in sets] == [False] * (len(sets) - 1) + [True] * bool(sets)
    for index, each in enumerate(sets):
        tags = {version.tag for version in each.parts.values() if version.tag}
        assert len(tags) <= 1 or each.unfinished
        assert not each.unfinished or index == 0
        assert each.tag in {"", *tags}
        for version in each.parts.values():
            versions = vault.secrets[version.secret]
            own = [other for other in versions if other.tag in tags and other.tag]
            if own and not each.unfinished:
                assert version == own[-1] or versions.index(version) > versions.index(own[-1])


@pytest.mark.parametrize("order", list(itertools.permutations(NAMES)), ids=",".join)
def test_in_whatever_order_four_parts_are_pushed_only_the_whole_push_is_a_set(vault, order):
    vault.set_all(0, tag="X")
    for index, name in enumerate(order, start=1):
        newest, *_ = vault.sets()
        assert newest.tag == "X" or newest.unfinished == ("Y",)
        vault.set(name, 60 + index, tag="Y")

    assert vault.sets()[0].tag == "Y"
