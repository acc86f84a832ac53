"""A secret that is read while the rest of the agent is loaded."""

from __future__ import annotations

from contextlib import suppress
from threading import Event, Thread
from types import SimpleNamespace

import pytest

from certagent.config.model import VaultKVSource as Config
from certagent.errors import AccessDenied, SecretNotFound, SourceUnavailable
from certagent.sources.vault.client import VaultClient
from certagent.sources.vault.connection import _Beside
from certagent.sources.vault.kv import VaultKVSource
from certagent.sources.vault.secret import Secret
from tests.support.process import until
from tests.support.scripted import answer
from tests.support.scripted_vault import FIELDS, METADATA


@pytest.mark.usefixtures("unhurried")
class TestReadAhead:
    SECRET = Secret("kv", "certs", 2)

    @pytest.fixture
    def begin(self, connection):
        """Begin with the secret, and return when all that is done beside the start is done."""

        def begin_(secret=self.SECRET):
            connection.begin(secret)
            connection._beside.join()

        return begin_

    def reads(self, vault):
        paths = (asked.path.removeprefix("/v1/") for asked in vault.asked)
        return [path for path in paths if "auth/" not in path]

    def test_who_asks_for_it_finds_it_without_a_request(self, vault, source, begin):
        begin()
        vault.read = answer(503)

        assert next(source.revisions()).version == "5"
        assert self.reads(vault) == ["kv/data/certs"]

    def test_the_next_poll_asks_again(self, vault, source, begin):
        begin()
        next(source.revisions())

        next(source.revisions())

        assert self.reads(vault) == ["kv/data/certs"] * 2

    def test_the_version_of_the_engine_is_asked_for_where_it_is_not_configured(
        self, vault, connection, begin
    ):
        mount, good = answer(200, {"data": {"type": "kv", "options": {"version": "2"}}}), vault.read
        vault.read = lambda asked: mount if "/internal/" in asked.path else good
        begin(Secret("kv", "certs", None))

        source = VaultKVSource(connection, Config(mount="kv", path="certs"))

        assert next(source.revisions()).version == "5"
        assert self.reads(vault) == ["sys/internal/ui/mounts/kv/certs", "kv/data/certs"]

    @pytest.mark.parametrize(
        ("refusal", "error"),
        [
            (answer(403, {"errors": ["permission denied"]}), AccessDenied),
            (answer(404, {"errors": []}), SecretNotFound),
            (answer(503), SourceUnavailable),
        ],
    )
    def test_an_error_that_it_met_is_told_without_a_request_and_then_it_is_asked_again(
        self, vault, source, begin, connection, refusal, error
    ):
        good, vault.read = vault.read, refusal
        begin()
        with pytest.raises(error):
            next(source.revisions())
        assert self.reads(vault) == ["kv/data/certs"]
        assert vault.logins == 1
        assert connection.requests.total() == 2
        vault.read = good

        assert next(source.revisions()).version == "5"

    def test_a_mount_that_is_refused_ends_it(self, vault, connection, begin):
        vault.read = answer(403, {"errors": ["preflight capability check returned 403"]})
        begin(Secret("kv", "certs", None))

        with pytest.raises(AccessDenied, match="did not tell which KV version"):
            next(VaultKVSource(connection, Config(mount="kv", path="certs")).revisions())

        assert self.reads(vault) == ["sys/internal/ui/mounts/kv/certs"]

    @pytest.fixture
    def age(self, monkeypatch, clock):
        """Let what was read ahead age by the test's clock."""
        time_ = SimpleNamespace(monotonic=lambda: clock.now)
        monkeypatch.setattr("certagent.sources.vault.client.time", time_)

    @pytest.mark.usefixtures("age")
    def test_who_comes_late_has_it_read_again(self, vault, source, begin, clock):
        begin()
        clock.now += 11

        next(source.revisions())

        assert self.reads(vault) == ["kv/data/certs"] * 2

    @pytest.mark.usefixtures("age")
    @pytest.mark.parametrize("read", [None, answer(503)])
    def test_a_server_that_is_slow_makes_nobody_late(self, vault, connection, begin, clock, read):
        mount = answer(200, {"data": {"type": "kv", "options": {"version": "2"}}})
        read = read or vault.read

        def slow(asked):
            clock.now += 9
            return mount if "/internal/" in asked.path else read

        vault.read = slow
        begin(Secret("kv", "certs", None))

        with suppress(SourceUnavailable):
            next(VaultKVSource(connection, Config(mount="kv", path="certs")).revisions())

        assert self.reads(vault) == ["sys/internal/ui/mounts/kv/certs", "kv/data/certs"]

    def test_an_older_version_is_never_taken_from_it(self, vault, source, begin):
        begin()
        revisions = source.revisions()
        older = answer(200, {"data": {"data": FIELDS, "metadata": {**METADATA, "version": 4}}})
        good = vault.read
        vault.read = lambda asked: older if asked.path.endswith("?version=4") else good

        assert [next(revisions).version for _ in range(2)] == ["5", "4"]

    def test_nothing_more_is_read_once_the_connection_is_closed(self, vault, connection):
        closing, script = Event(), vault._script

        def held(asked, of):
            if asked.path.endswith("/login"):
                assert closing.wait(30)
            return script(asked, of)

        vault._script = held
        connection.begin(self.SECRET)
        closer = Thread(target=connection.close)
        closer.start()
        until(lambda: connection._is_closing)
        closing.set()
        closer.join()

        assert self.reads(vault) == []
        assert vault.revoked == ["token-1"]

    def test_a_read_that_hangs_does_not_keep_the_token_from_being_given_back(
        self, vault, connection
    ):
        reading, released, good = Event(), Event(), vault.read

        def hang(_):
            reading.set()
            released.wait(30)
            return good

        vault.read = hang
        connection.begin(self.SECRET)
        beside = connection._beside
        assert reading.wait(30)

        connection.close()
        connection.close()

        assert vault.revoked == ["token-1"]
        assert beside.is_alive(), "nobody waited for it"
        released.set()
        beside.join()

    def test_once_it_is_closed_nobody_looks_for_it_again(self, connection, monkeypatch):
        looks, join = [], _Beside.join
        monkeypatch.setattr(
            _Beside, "join", lambda beside, *within: (looks.append(within), join(beside, *within))
        )
        connection.begin(self.SECRET)
        connection.close()
        connection.close()

        assert len(looks) == 1

    def test_a_fault_of_our_own_is_raised_by_the_first_call(self, source, begin, monkeypatch):
        monkeypatch.setattr(VaultClient, "read_ahead", lambda *_: 1 / 0)
        begin()

        with pytest.raises(ZeroDivisionError):
            next(source.revisions())

    def test_without_a_login_nothing_is_read(self, vault, source, begin):
        vault.login = answer(503)
        begin()

        with pytest.raises(SourceUnavailable):
            next(source.revisions())

        assert self.reads(vault) == []
