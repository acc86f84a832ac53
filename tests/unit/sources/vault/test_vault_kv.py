"""Secrets of a key-value engine that answers what a real one seldom does."""

from __future__ import annotations

import pytest

from certagent.config.model import VaultKVSource as Config
from certagent.errors import AccessDenied, SecretNotFound, SourceUnavailable
from certagent.sources.vault.kv import VaultKVSource
from tests.support.scripted import answer
from tests.support.scripted_vault import FIELDS, METADATA


class TestKVAnswers:
    @pytest.mark.parametrize(
        "data",
        [
            None,
            [],
            "x",
            {},
            {"data": FIELDS},
            {"data": FIELDS, "metadata": None},
            {"data": FIELDS, "metadata": {**METADATA, "version": True}},
            {"data": FIELDS, "metadata": {**METADATA, "version": "5"}},
            {"data": FIELDS, "metadata": {**METADATA, "version": 0}},
            {"data": FIELDS, "metadata": {**METADATA, "created_time": ""}},
            {"data": FIELDS, "metadata": {**METADATA, "created_time": "0001-01-01T00:00:00+23:00"}},
            {"data": FIELDS, "metadata": {**METADATA, "created_time": 7}},
            {"data": [], "metadata": METADATA},
            {"data": None, "metadata": METADATA},
        ],
    )
    def test_an_answer_of_the_wrong_shape_is_unavailable(self, vault, source, data):
        vault.read = answer(200, {"data": data})

        with pytest.raises(SourceUnavailable, match="not a key-value engine's"):
            next(source.revisions())

    def test_a_time_with_nanoseconds_is_read(self, source):
        assert str(next(source.revisions()).created_at) == "2026-01-02 03:04:05.123456+00:00"

    def test_a_time_without_a_zone_is_taken_for_utc(self, vault, source):
        metadata = {**METADATA, "created_time": "2026-01-02T03:04:05"}
        vault.read = answer(200, {"data": {"data": FIELDS, "metadata": metadata}})

        assert str(next(source.revisions()).created_at) == "2026-01-02 03:04:05+00:00"

    def test_an_older_version_must_be_the_one_that_was_asked_for(self, source):
        revisions = source.revisions()
        next(revisions)

        with pytest.raises(SourceUnavailable, match="no usable 'version'"):
            next(revisions)  # the server answers 5 again, as a cache that drops the query would

    def test_an_older_version_that_is_forbidden_is_an_error(self, vault, source):
        good = vault.read
        vault.read = lambda asked: answer(403) if "version=" in asked.path else good
        revisions = source.revisions()
        next(revisions)

        with pytest.raises(AccessDenied):
            next(revisions)

    @pytest.mark.parametrize("status", [400, 405])
    def test_an_engine_that_cannot_answer_yet_is_unavailable(self, vault, source, status):
        vault.read = answer(status, {"errors": ["Upgrading from non-versioned to versioned data"]})

        with pytest.raises(SourceUnavailable, match="Upgrading"):
            next(source.revisions())

    @pytest.mark.parametrize(
        ("mount", "version"),
        [
            ({"type": "kv", "path": "kv/", "options": {"version": "2"}}, "5"),
            ({"type": "kv", "path": "kv/", "options": {"version": "1"}}, "sha256"),
            ({"type": "kv", "options": None}, "sha256"),
            ({"type": "generic", "path": "kv/"}, "sha256"),
        ],
    )
    def test_the_version_is_what_the_mount_says(self, vault, connection, mount, version):
        read = vault.read
        vault.read = lambda asked: (
            answer(200, {"data": mount}) if "/internal/" in asked.path else read
        )
        source = VaultKVSource(connection, Config(mount="kv", path="certs"))

        assert next(source.revisions()).version.partition(":")[0] == version

    @pytest.mark.parametrize("data", [None, [], {}, {"type": 7}])
    def test_a_mount_that_is_not_described_is_an_error(self, vault, connection, data):
        vault.read = answer(200, {"data": data})
        source = VaultKVSource(connection, Config(mount="kv", path="certs"))

        with pytest.raises((SourceUnavailable, SecretNotFound)):
            next(source.revisions())

    def test_a_detection_that_failed_is_asked_for_again(self, vault, connection):
        good, vault.read = vault.read, answer(503)
        source = VaultKVSource(connection, Config(mount="kv", path="certs"))
        with pytest.raises(SourceUnavailable):
            next(source.revisions())
        mount = answer(200, {"data": {"type": "kv", "options": {"version": "2"}}})
        vault.read = lambda asked: mount if "/internal/" in asked.path else good

        assert next(source.revisions()).version == "5"
