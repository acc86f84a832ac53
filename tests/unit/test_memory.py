"""What a set on the volume tells the next process: times and fingerprints, and no more."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certagent.material.bundle import KeyCertBundle
from certagent.material.history import HistoricRevision
from certagent.material.verification import verify
from certagent.memory import remembered, written
from tests.support.material import NOW, make_root


@pytest.fixture(scope="module")
def old():
    return make_root(subject="CN=Old").intermediate(not_after=NOW + timedelta(days=30))


@pytest.fixture(scope="module")
def new():
    return make_root(subject="CN=New").intermediate()


def verified(ca, *others):
    roots = (ca.root, *(other.root for other in others))
    return verify(KeyCertBundle.decode(ca.raw(roots=roots)), NOW)


def revision(version, ca):
    return HistoricRevision.good(version, NOW, verified(ca))


def test_what_was_written_is_remembered_in_its_order(old, new):
    text = written([revision("1", old), revision("2", new)], {"2": NOW})

    revisions, first_seen = remembered(text, "1", verified(old, new).bundle, NOW)

    assert [each.version for each in revisions] == ["1", "2"]
    assert [each.stored_at for each in revisions] == [NOW, NOW]
    assert first_seen == {"2": NOW}
    assert revisions[0].bundle.bundle.roots == verified(old).bundle.roots
    assert revisions[1].bundle is None, "its key is not on the volume"


def test_a_root_that_was_merely_listed_may_have_gone(old, new):
    """[A, C]/A, then [B]/B: C goes at once, and A has signed."""
    listed = HistoricRevision.good("1", NOW, verified(old, make_root().intermediate()))
    text = written([listed, revision("2", new)], {})

    revisions, _ = remembered(text, "1", verified(old, new).bundle, NOW)

    assert [each.version for each in revisions] == ["1", "2"]
    assert revisions[0].roots == frozenset(verified(old).bundle.roots)


def test_a_revision_that_nobody_trusts_any_more_still_ends_the_one_before(old, new):
    """[A], [B], [A]: how long A is kept counts from B, whose root has gone."""
    text = written([revision("1", old), revision("2", new), revision("3", old)], {})

    revisions, _ = remembered(text, "3", verified(old).bundle, NOW)

    assert [(each.version, bool(each.anchors)) for each in revisions] == [
        ("1", True),
        ("2", False),
        ("3", True),
    ]


def test_the_newest_is_left_out_where_its_roots_were_never_published(old, new):
    text = written([revision("1", old), revision("2", new)], {})

    revisions, _ = remembered(text, "1", verified(old).bundle, NOW)

    assert [each.version for each in revisions] == ["1"]


def test_a_signer_that_has_expired_is_remembered_without_its_material(old):
    text = written([revision("1", old)], {})

    (found,), _ = remembered(text, "1", verified(old).bundle, NOW + timedelta(days=31))

    assert found.bundle is None


def test_nothing_secret_is_written(old):
    assert "PRIVATE" not in written([revision("1", old)], {})


@given(st.text() | st.just('{"revisions": [{}], "first_seen": {}}'))
def test_what_cannot_be_read_is_as_good_as_none(text):
    published = verified(make_root().intermediate()).bundle

    assert remembered(text, "1", published, NOW) == ([], {})
