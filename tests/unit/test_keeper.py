"""One bundle's pass: what is read, what is published, what stays."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest

from certagent.assignment import Assignment, Reader
from certagent.chronicle import LOOKBACK
from certagent.errors import (
    MaterialRefused,
    OutputError,
    PublicationHeld,
    SecretNotFound,
    SourceUnavailable,
)
from certagent.keeper import Keeper
from certagent.material.codes import ERRORS
from certagent.material.finding import Finding, Severity
from certagent.material.history import Policy
from tests.support.material import NOT_BEFORE, NOW, files, make_root, new_key, private_key_pem
from tests.support.stores import MemorySink, MemorySource, Silence


def missing_part() -> MaterialRefused:
    finding = Finding("part-missing", Severity.ERROR, "private_key", "There is none.", "Store it.")
    return MaterialRefused(finding.message, (finding,))


CREATED = NOW - timedelta(days=10)


@pytest.fixture(scope="module")
def root():
    return make_root()


@pytest.fixture
def source():
    return MemorySource()


@pytest.fixture
def sink():
    return MemorySink()


@pytest.fixture
def keeper(source, sink):
    return Keeper(Assignment("istiod-ca", source, sink), Silence())


@pytest.fixture
def bad(root):
    return root.intermediate().raw(private_key=private_key_pem(new_key()))


class TestPublication:
    def test_the_newest_revision_is_published(self, keeper, source, sink, root):
        raw = root.intermediate().raw()
        source.push(raw, created_at=CREATED)

        keeper.refresh(NOW)

        assert sink.snapshot.files == files(raw)
        assert sink.snapshot.record["version"] == "1"
        assert keeper.status.ready
        assert keeper.status.last_success == NOW
        assert keeper.status.published == 1
        assert set(keeper.status.not_after) == {"certificate", "chain", "roots"}

    def test_an_unchanged_store_is_read_once_and_writes_nothing(self, keeper, source, sink, root):
        source.push(root.intermediate().raw(), created_at=CREATED)
        keeper.refresh(NOW)
        source.reads = 0

        for _ in range(5):
            keeper.refresh(NOW)

        assert source.reads == 5
        assert sink.writes == 1
        assert sink.tidied == 5

    def test_a_new_version_of_the_same_set_writes_nothing(self, keeper, source, sink, root):
        raw = root.intermediate().raw()
        source.push(raw, created_at=CREATED)
        keeper.refresh(NOW)
        source.push(raw, created_at=NOW)

        keeper.refresh(NOW)

        assert sink.writes == 1
        assert keeper.status.version == "2", "as a pod that is born now says"

    def test_a_damaged_directory_is_published_again(self, keeper, source, sink, root):
        source.push(root.intermediate().raw(), created_at=CREATED)
        keeper.refresh(NOW)
        sink.snapshot = None

        keeper.refresh(NOW)

        assert sink.writes == 2

    def test_an_older_set_that_is_stored_again_is_published_again(self, keeper, source, sink, root):
        first, second = root.intermediate().raw(), root.intermediate().raw()
        for raw, version in ((first, "sha256:1"), (second, "sha256:2"), (first, "sha256:1")):
            source.versions.clear()
            source.push(raw, version=version)
            keeper.refresh(NOW)

        assert sink.snapshot.files == files(first)
        assert sink.writes == 3

    def test_a_revision_list_has_a_file_only_where_there_is_one(self, keeper, source, sink):
        root = make_root()
        ca = root.intermediate()
        source.push(ca.raw(crls=ca.crl() + root.crl()), created_at=CREATED)

        keeper.refresh(NOW)

        assert "ca-crl.pem" in sink.snapshot.files


class TestBadPush:
    def test_what_was_published_stays(self, keeper, source, sink, root, bad):
        good = root.intermediate().raw()
        source.push(good, created_at=CREATED)
        keeper.refresh(NOW)
        source.push(bad, created_at=NOW)

        keeper.refresh(NOW)

        assert sink.snapshot.files == files(good)
        assert keeper.status.refused == {"key-mismatch": 1}

    def test_a_refused_version_is_read_and_counted_once(self, keeper, source, root, bad, caplog):
        source.push(root.intermediate().raw(), created_at=CREATED)
        keeper.refresh(NOW)
        source.push(bad, created_at=NOW)
        keeper.refresh(NOW)
        source.reads = 0
        caplog.clear()

        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                keeper.refresh(NOW)

        assert source.reads == 3
        assert keeper.status.refused == {"key-mismatch": 1}
        assert not caplog.records

    def test_a_pod_born_then_publishes_the_newest_good_revision(
        self, keeper, source, sink, root, bad
    ):
        good = root.intermediate().raw()
        source.push(root.intermediate().raw(), created_at=NOT_BEFORE)
        source.push(good, created_at=CREATED)
        source.push(bad, created_at=NOW)

        keeper.refresh(NOW)

        assert sink.snapshot.files == files(good)
        assert source.reads == 2, "what is older than a good revision is not read"

    def test_a_revision_without_a_part_is_refused_like_one_that_does_not_verify(
        self, keeper, source, sink
    ):
        source.push(missing_part(), created_at=CREATED)

        with pytest.raises(MaterialRefused, match="version 1 is refused"):
            keeper.refresh(NOW)

        assert sink.writes == 0

    def test_the_search_for_a_good_revision_is_bounded(self, keeper, source, bad):
        for _ in range(LOOKBACK + 5):
            source.push(bad, created_at=CREATED)

        with pytest.raises(MaterialRefused):
            keeper.refresh(NOW)

        assert source.reads == LOOKBACK


class TestWarnings:
    def test_what_time_brings_up_is_said_once(self, keeper, source, root, caplog):
        ending = NOW + timedelta(days=3)
        source.push(root.intermediate(not_after=ending).raw(), created_at=CREATED)
        keeper.refresh(NOW)
        assert "lives" not in caplog.text
        caplog.clear()

        for hours in (30, 31, 32):
            keeper.refresh(NOW + timedelta(hours=hours))

        assert [record.fields["code"] for record in caplog.records] == ["expires-soon"]

    def test_a_set_that_holds_no_longer_is_not_published_anew(self, source, sink):
        """Its revocation lists have run out: Envoy would refuse every connection."""
        root = make_root()
        ca = root.intermediate()
        soon = NOW + timedelta(hours=1)
        lists = ca.crl(next_update=soon) + root.crl(next_update=soon)
        source.push(ca.raw(crls=lists), created_at=CREATED)
        born_later = Keeper(Assignment("istiod-ca", source, sink), Silence())

        with pytest.raises(MaterialRefused, match="crls"):
            born_later.refresh(NOW + timedelta(hours=2))

        assert sink.writes == 0


class TestTime:
    def test_a_set_that_is_not_yet_valid_is_published_when_it_is(self, keeper, source, sink, root):
        now_good = root.intermediate().raw()
        later = NOW + timedelta(hours=1)
        coming = root.intermediate(not_before=later).raw()
        source.push(now_good, created_at=CREATED)
        source.push(coming, created_at=CREATED)

        keeper.refresh(NOW)
        assert sink.snapshot.files == files(now_good)

        keeper.refresh(later)
        assert sink.snapshot.files == files(coming)

    def test_a_set_that_is_not_yet_valid_alone_is_refused_with_that_reason(
        self, keeper, source, root
    ):
        source.push(root.intermediate(not_before=NOW + timedelta(hours=1)).raw())

        with pytest.raises(MaterialRefused) as refused:
            keeper.refresh(NOW)

        assert refused.value.findings[0].code == "certificate-not-yet-valid"

    def test_an_expired_set_stays_published_and_is_an_error(self, keeper, source, sink, root):
        expiring = root.intermediate(not_after=NOW + timedelta(hours=1)).raw()
        source.push(root.intermediate().raw(), created_at=NOT_BEFORE)
        source.push(expiring, created_at=CREATED)
        keeper.refresh(NOW)

        with pytest.raises(MaterialRefused) as refused:
            keeper.refresh(NOW + timedelta(hours=2))

        assert refused.value.findings[0].code == "certificate-expired"
        assert sink.snapshot.files == files(expiring)
        assert keeper.status.ready
        assert keeper.status.phase == "hold"

    def test_a_store_whose_clock_is_ahead_delays_nothing(self, keeper, source, sink, root):
        source.push(root.intermediate().raw(), created_at=NOW + timedelta(minutes=5))

        keeper.refresh(NOW)

        assert sink.writes == 1


class TestWithdrawal:
    def test_the_published_set_stays_when_its_version_is_deleted(self, keeper, source, sink, root):
        first, second = root.intermediate().raw(), root.intermediate().raw()
        source.push(first, created_at=CREATED)
        source.push(second, created_at=CREATED)
        keeper.refresh(NOW)
        source.withdraw("deleted at 2026-07-01T12:00:00Z")

        with pytest.raises(SecretNotFound, match="2, was deleted at 2026-07-01"):
            keeper.refresh(NOW)

        assert sink.snapshot.files == files(second)

    def test_an_undeleted_version_is_nothing_new(self, keeper, source, root, caplog):
        source.push(root.intermediate().raw(), created_at=CREATED)
        alive = source.versions[0]
        keeper.refresh(NOW)
        source.withdraw()
        with pytest.raises(SecretNotFound):
            keeper.refresh(NOW)
        source.versions[0] = alive

        keeper.refresh(NOW)

        assert "seen only now" not in caplog.text

    def test_an_undeleted_version_is_used_again(self, keeper, source, root):
        source.push(root.intermediate().raw(), created_at=CREATED)
        alive = source.versions[0]
        source.withdraw()
        with pytest.raises(SecretNotFound):
            keeper.refresh(NOW)
        source.versions[0] = alive

        keeper.refresh(NOW)

        assert keeper.status.ready

    def test_a_store_without_versions_is_not_found(self, keeper):
        with pytest.raises(SecretNotFound, match="no version at all"):
            keeper.refresh(NOW)


class TestFailures:
    def test_a_store_that_is_down_leaves_all_as_it_is(self, keeper, source, sink, root):
        source.push(root.intermediate().raw(), created_at=CREATED)
        keeper.refresh(NOW)
        source.fault = SourceUnavailable("down")

        with pytest.raises(SourceUnavailable):
            keeper.refresh(NOW + timedelta(hours=1))

        assert keeper.status.ready
        assert keeper.status.last_success == NOW
        assert sink.writes == 1

    def test_after_an_output_error_the_directory_is_taken_hold_of_afresh(
        self, keeper, source, sink, root
    ):
        source.push(root.intermediate().raw(), created_at=CREATED)
        sink.fault = OutputError("full")
        with pytest.raises(OutputError):
            keeper.refresh(NOW)
        assert sink.closed == 1
        sink.fault = None

        keeper.refresh(NOW)

        assert sink.writes == 1


class TestAdoption:
    def test_a_good_set_on_the_volume_counts_as_published(self, source, sink, root):
        source.push(root.intermediate().raw(), created_at=CREATED)
        Keeper(Assignment("a", source, sink), Silence()).refresh(NOW)
        reborn = Keeper(Assignment("a", source, sink), Silence())

        reborn.adopt(NOW)

        assert reborn.status.ready
        assert reborn.status.version == "1"
        assert reborn.status.published == 0

    def test_an_expired_set_on_the_volume_does_not(self, source, sink, root, caplog):
        source.push(root.intermediate(not_after=NOW + timedelta(hours=1)).raw())
        Keeper(Assignment("a", source, sink), Silence()).refresh(NOW)
        reborn = Keeper(Assignment("a", source, sink), Silence())

        reborn.adopt(NOW + timedelta(hours=2))

        assert not reborn.status.ready
        assert "no longer good" in caplog.text

    def test_an_empty_volume_does_not(self, keeper):
        keeper.adopt(NOW)

        assert not keeper.status.ready

    def test_a_volume_that_cannot_be_read_is_left_to_the_pass(self, keeper, sink):
        sink.fault = OutputError("a symlink")

        keeper.adopt(datetime.now(UTC))

        assert not keeper.status.ready
        assert sink.closed == 1


class TestStoresWithoutHistory:
    """A KV v1 secret, a directory: only what the agent remembers, and what lies on the volume."""

    HOUR = timedelta(hours=1)

    @pytest.fixture
    def old(self):
        return make_root(subject="CN=Old").intermediate()

    @pytest.fixture
    def new(self):
        return make_root(subject="CN=New").intermediate()

    @pytest.fixture
    def reborn(self, source, sink):
        """A keeper of a new process on the same volume, beside a reader that runs."""

        def make(now: datetime) -> Keeper:
            assignment = Assignment("a", source, sink, reader=Reader(may_run=True))
            keeper = Keeper(assignment, Silence())
            keeper.adopt(now)
            return keeper

        return make

    @staticmethod
    def store(source, ca, version: str) -> None:
        source.versions.clear()
        source.push(ca.raw(), version=version)

    @staticmethod
    def state(sink) -> tuple[bytes, int]:
        published = sink.snapshot.files
        return published["ca-cert.pem"], published["root-cert.pem"].count(b"BEGIN")

    @pytest.mark.parametrize("restarts", [False, True], ids=["runs on", "restarts at every hour"])
    def test_a_new_root_is_staged_by_who_has_seen_the_old_one(
        self, source, sink, reborn, old, new, restarts
    ):
        self.store(source, old, "sha256:old")
        keeper = reborn(NOW)
        keeper.refresh(NOW)
        seen = NOW + 80 * self.HOUR
        self.store(source, new, "sha256:new")
        states = []
        for hour in range(60):
            now = seen + hour * self.HOUR
            keeper = reborn(now) if restarts else keeper
            keeper.refresh(now)
            states.append(self.state(sink))

        assert states[0] == (old.pem, 2), "distribute"
        assert states[24] == (old.pem, 2)
        assert states[25] == (new.pem, 2), "switch"
        assert states[49] == (new.pem, 2)
        assert states[50] == (new.pem, 1), "settled"

    def test_a_set_that_comes_back_within_the_window_goes_on_signing(
        self, source, sink, reborn, old, new
    ):
        keeper = reborn(NOW)
        for hour, ca, version in ((0, old, "o"), (80, new, "n"), (81, old, "o")):
            self.store(source, ca, version)
            keeper.refresh(NOW + hour * self.HOUR)
            assert self.state(sink)[0] == old.pem

        keeper.refresh(NOW + 110 * self.HOUR)

        assert self.state(sink)[0] == old.pem

    def test_a_newborn_without_a_volume_cannot_know_and_says_so(
        self, source, sink, reborn, new, caplog
    ):
        self.store(source, new, "sha256:new")

        keeper = reborn(NOW)
        keeper.refresh(NOW)

        assert self.state(sink) == (new.pem, 1)
        assert keeper.status.history_cut
        assert "cannot be known" in caplog.text

    def test_what_a_clock_refused_is_judged_again(self, source, sink, reborn, old):
        self.store(source, old, "sha256:old")
        keeper = reborn(NOW)
        with pytest.raises(MaterialRefused):
            keeper.refresh(NOW + timedelta(days=365 * 20))

        keeper.refresh(NOW)

        assert self.state(sink)[0] == old.pem


class TestGuard:
    @pytest.fixture
    def keep(self, source, sink):
        def make(**reader) -> Keeper:
            assignment = Assignment(
                "a",
                source,
                sink,
                policy=Policy(immediate=True),
                reader=Reader(may_run=True, **reader),
            )
            return Keeper(assignment, Silence())

        return make

    @pytest.fixture
    def cas(self):
        return [
            make_root(subject=f"CN={n}", not_before=NOT_BEFORE + timedelta(days=n)).intermediate()
            for n in range(2)
        ]

    def test_roots_that_replace_one_another_cross_a_bridge(self, keep, source, sink, cas):
        keeper = keep(pace=30)
        source.push(cas[0].raw(), created_at=CREATED)
        keeper.refresh(NOW)
        first = sink.snapshot.files["root-cert.pem"]
        source.push(cas[1].raw(), created_at=NOW)

        keeper.refresh(NOW)
        bridge = sink.snapshot.files["root-cert.pem"]
        keeper.refresh(sink.snapshot.published_at + timedelta(seconds=10))
        assert sink.snapshot.files["root-cert.pem"] == bridge, "the reader has a poll to cross it"
        keeper.refresh(sink.snapshot.published_at + timedelta(seconds=31))
        last = sink.snapshot.files["root-cert.pem"]

        assert first in bridge
        assert last in bridge
        assert first not in last

    def test_who_cannot_take_roots_keeps_what_he_has(self, keep, source, sink, cas):
        keeper = keep(takes_roots=False)
        source.push(cas[0].raw(), created_at=CREATED)
        keeper.refresh(NOW)
        source.push(cas[1].raw(), created_at=NOW)

        with pytest.raises(PublicationHeld, match="istiod would refuse"):
            keeper.refresh(NOW)

        assert sink.snapshot.files == files(cas[0].raw())

    def test_who_cannot_take_roots_still_gets_signers_under_those_he_has(self, source, sink, cas):
        """[A], then [B], which is held, then another intermediate of A: used within a poll."""
        assignment = Assignment("a", source, sink, reader=Reader(may_run=True, takes_roots=False))
        keeper = Keeper(assignment, Silence())
        source.push(cas[0].raw(), created_at=CREATED)
        keeper.refresh(NOW)
        source.push(cas[1].raw(), created_at=NOW)
        with pytest.raises(PublicationHeld):
            keeper.refresh(NOW)
        renewed = cas[0].root.intermediate()
        source.push(renewed.raw(), created_at=NOW + timedelta(hours=1))

        with pytest.raises(PublicationHeld):
            keeper.refresh(NOW + timedelta(hours=1))

        assert sink.snapshot.files == files(renewed.raw())

    def test_a_late_view_of_a_push_is_warned_of(self, keep, source, cas, caplog):
        keeper = keep()
        source.push(cas[0].raw(), created_at=CREATED)
        keeper.refresh(NOW)
        source.push(cas[0].root.intermediate().raw(), created_at=NOW - timedelta(hours=20))

        keeper.refresh(NOW)

        assert "was stored 20:00:00 ago and is seen only now" in caplog.text


class TestPins:
    def test_a_set_on_the_volume_under_another_root_is_not_adopted(
        self, source, sink, root, caplog
    ):
        source.push(make_root().intermediate().raw(), created_at=CREATED)
        Keeper(Assignment("a", source, sink), Silence()).refresh(NOW)
        pinned = Assignment("a", source, sink, pins=frozenset({root.fingerprint}))

        keeper = Keeper(pinned, Silence())
        keeper.adopt(NOW)

        assert not keeper.status.ready
        assert "trust.roots" in caplog.text

    def test_a_root_that_is_not_pinned_is_refused(self, source, sink, root):
        stranger = make_root().intermediate()
        source.push(root.intermediate().raw(), created_at=NOT_BEFORE)
        source.push(stranger.raw(), created_at=CREATED)
        pins = frozenset({root.fingerprint})
        keeper = Keeper(Assignment("a", source, sink, pins=pins), Silence())

        keeper.refresh(NOW)

        assert keeper.status.refused == {"root-not-pinned": 1}
        assert keeper.status.version == "1"
        assert "root-not-pinned" in ERRORS


class TestFallback:
    @pytest.fixture
    def fallback(self, root):
        source = MemorySource("file:/etc/cacerts")
        source.push(root.intermediate().raw())
        return source

    def test_it_is_published_where_nothing_is(self, source, sink, fallback):
        keeper = Keeper(Assignment("a", source, sink, fallback=fallback), Silence())

        assert keeper.fall_back(NOW)

        assert keeper.status.ready
        assert keeper.status.fallback
        assert sink.snapshot.record["source"] == "file:/etc/cacerts"

    def test_a_restart_still_knows_it_for_one(self, source, sink, fallback):
        assignment = Assignment("a", source, sink, fallback=fallback)
        Keeper(assignment, Silence()).fall_back(NOW)

        reborn = Keeper(assignment, Silence())
        reborn.adopt(NOW)

        assert reborn.status.fallback

    def test_it_is_left_as_soon_as_the_store_answers(self, source, sink, fallback, root):
        keeper = Keeper(Assignment("a", source, sink, fallback=fallback), Silence())
        keeper.fall_back(NOW)
        raw = root.intermediate().raw()
        source.push(raw, created_at=CREATED)

        keeper.refresh(NOW)

        assert sink.snapshot.files == files(raw)
        assert not keeper.status.fallback

    def test_it_is_not_used_where_something_is_published(self, source, sink, fallback, root):
        source.push(root.intermediate().raw(), created_at=CREATED)
        keeper = Keeper(Assignment("a", source, sink, fallback=fallback), Silence())
        keeper.refresh(NOW)

        assert not keeper.fall_back(NOW)
        assert sink.writes == 1

    def test_one_that_is_no_good_is_refused(self, source, sink, bad):
        fallback = MemorySource()
        fallback.push(bad)
        keeper = Keeper(Assignment("a", source, sink, fallback=fallback), Silence())

        with pytest.raises(MaterialRefused):
            keeper.fall_back(NOW)

        assert sink.writes == 0
