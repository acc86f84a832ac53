"""Logins and secrets of a server that answers what a real one seldom does."""

from __future__ import annotations

import json
import logging
import time
import traceback
from contextlib import suppress
from threading import Event, Thread
from types import SimpleNamespace

import pytest

from certagent.config.model import (
    AppRoleAuth,
    JwtAuth,
    KubernetesAuth,
    TokenAuth,
    VaultConfig,
)
from certagent.config.model import VaultKVSource as Config
from certagent.errors import (
    AccessDenied,
    CertagentError,
    SecretNotFound,
    SourceUnavailable,
    Stopping,
)
from certagent.sources.vault.client import VaultClient
from certagent.sources.vault.connection import VaultConnection, _Beside
from certagent.sources.vault.kv import VaultKVSource
from certagent.sources.vault.secret import Secret
from tests.support.process import until
from tests.support.scripted import ScriptedServer, answer

LEASE = 900
METADATA = {
    "version": 5,
    "created_time": "2026-01-02T03:04:05.123456789Z",
    "deletion_time": "",
    "destroyed": False,
}
FIELDS = {"ca_key": "key", "ca_cert": "cert", "cert_chain": "chain", "root_cert": "root"}


class Vault(ScriptedServer):
    """Answers logins with `login`, the rest with `read`; what is revoked is in `revoked`."""

    def __init__(self):
        super().__init__(self._answer)
        self.logins = 0
        self.login = None
        self.read = answer(200, {"data": {"data": FIELDS, "metadata": METADATA}})
        self.revoked = []

    def _answer(self, asked, _):
        if asked.path.endswith("/login"):
            self.logins += 1
            auth = {"client_token": f"token-{self.logins}", "lease_duration": LEASE}
            return self.login or answer(200, {"auth": auth})
        if asked.path.endswith("revoke-self"):
            self.revoked.append(asked.headers["x-vault-token"])
            return answer(204)
        return self.read(asked) if callable(self.read) else self.read


@pytest.fixture
def vault():
    with Vault() as running:
        yield running


@pytest.fixture
def clock():
    return SimpleNamespace(now=1000.0)


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("a.b.c")
    return path


@pytest.fixture
def connection(vault, clock, token_file):
    config = VaultConfig(
        address=vault.address, auth=JwtAuth(role="istiod", token_file=str(token_file))
    )
    made = VaultConnection(config, clock=lambda: clock.now)
    yield made
    made.close()


@pytest.fixture
def source(connection):
    return VaultKVSource(connection, Config(mount="kv", path="certs", kv_version=2))


class TestLease:
    def test_a_login_lasts_until_a_third_of_the_lease_is_left(self, vault, source, clock):
        next(source.revisions())
        clock.now += LEASE * 2 / 3 - 1
        next(source.revisions())
        assert vault.logins == 1

        clock.now += 2
        next(source.revisions())

        assert vault.logins == 2
        assert vault.revoked == ["token-1"]
        assert vault.asked[-1].headers["x-vault-token"] == "token-2"

    def test_a_login_is_sent_without_the_token_that_it_replaces(self, vault, source, clock):
        next(source.revisions())
        clock.now += LEASE
        next(source.revisions())

        logins = [asked for asked in vault.asked if asked.path.endswith("/login")]
        assert [login.headers.get("x-vault-token") for login in logins] == [None, None]

    def test_while_no_new_login_is_possible_the_present_one_is_used_up(
        self, vault, source, clock, connection, caplog
    ):
        next(source.revisions())
        vault.login = answer(503)
        clock.now += LEASE * 2 / 3 + 1
        next(source.revisions())
        assert connection.logins == {"ok": 1, "unavailable": 1}
        assert "the present one is good for 299 s more" in caplog.text

        clock.now += LEASE / 3
        with pytest.raises(SourceUnavailable):
            next(source.revisions())

    @pytest.mark.parametrize(("header", "pause"), [({}, 60), ({"Retry_After": "120"}, 120)])
    def test_a_renewal_that_failed_is_tried_again_when_the_server_wants_it(
        self, vault, source, clock, header, pause
    ):
        next(source.revisions())
        vault.login = answer(503, **header)
        clock.now += LEASE * 2 / 3 + 1
        next(source.revisions())
        clock.now += pause - 1
        next(source.revisions())
        assert vault.logins == 2

        clock.now += 2
        next(source.revisions())

        assert vault.logins == 3

    def test_however_long_the_server_wants_a_login_that_has_ended_is_replaced(
        self, vault, source, clock
    ):
        next(source.revisions())
        vault.login = answer(429, Retry_After="86400")
        clock.now += LEASE * 2 / 3 + 1
        next(source.revisions())
        vault.login = None
        clock.now += LEASE / 3

        next(source.revisions())

        assert vault.asked[-1].headers["x-vault-token"] == "token-3"

    def test_a_renewal_that_fails_is_told_once_until_one_succeeds(
        self, vault, source, clock, caplog
    ):
        for _ in range(2):
            vault.login = None
            clock.now += LEASE * 2 / 3 + 1
            next(source.revisions())
            vault.login = answer(503)
            clock.now += LEASE * 2 / 3 + 1
            for _ in range(3):
                next(source.revisions())
                clock.now += 61

        assert caplog.text.count("No new login") == 2

    def test_a_lease_of_zero_never_ends(self, vault, source, clock):
        auth = {"client_token": "root", "lease_duration": 0}
        vault.login = answer(200, {"auth": auth})
        next(source.revisions())
        clock.now += 10**9
        next(source.revisions())

        assert vault.logins == 1

    def test_a_login_that_is_limited_is_counted_as_such(self, vault, source, connection):
        vault.login = answer(429, Retry_After="9")
        with pytest.raises(SourceUnavailable) as limited:
            next(source.revisions())

        assert limited.value.retry_after == 9
        assert connection.logins == connection.requests == {"limited": 1}

    def test_a_403_straight_after_the_login_makes_no_second_one(self, vault, source):
        vault.read = answer(403, {"errors": ["permission denied"]})
        with pytest.raises(AccessDenied, match="refused to read"):
            next(source.revisions())

        assert vault.logins == 1

    def test_close_never_raises(self, vault, connection, source):
        next(source.revisions())
        vault.__exit__()

        connection.close()

        assert connection.requests["unavailable"] == 1


class TestBegin:
    """A login that is under way while the rest of the agent is loaded."""

    def test_the_first_call_takes_it(self, vault, source, connection):
        connection.begin()
        next(source.revisions())

        assert vault.logins == 1
        assert connection.logins == {"ok": 1}

    def test_what_it_met_is_raised_by_the_first_call_and_the_next_tries_again(
        self, vault, source, connection
    ):
        works, vault.login = vault.login, answer(503)
        connection.begin()
        with pytest.raises(SourceUnavailable):
            next(source.revisions())
        assert connection.logins == {"unavailable": 1}

        vault.login = works
        next(source.revisions())

        assert connection.logins == {"unavailable": 1, "ok": 1}

    def test_one_that_nobody_took_is_given_back(self, vault, connection):
        connection.begin()
        connection.close()

        assert vault.revoked == ["token-1"]


class TestReadAhead:
    """A secret that is read while the rest of the agent is loaded."""

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


class TestLastingRefusal:
    FORBIDDEN = answer(403, {"errors": ["permission denied"]})

    def poll(self, source, clock, times, every=30):
        for _ in range(times):
            with pytest.raises(AccessDenied):
                next(source.revisions())
            clock.now += every

    def test_it_makes_ever_fewer_logins_down_to_one_in_five_minutes(self, vault, source, clock):
        vault.login = answer(200, {"auth": {"client_token": "t", "lease_duration": 0}})
        next(source.revisions())
        vault.read = self.FORBIDDEN
        tokens = (f"t{n}" for n in range(1000))

        def another(asked):
            auth = {"client_token": next(tokens), "lease_duration": 0}
            vault.login = answer(200, {"auth": auth})
            return self.FORBIDDEN

        vault.read = another
        self.poll(source, clock, 40)
        settled = vault.logins
        assert settled < 12

        self.poll(source, clock, 40)

        assert vault.logins - settled == 4

    def test_it_ends_with_the_first_login_that_helps(self, vault, source, clock):
        next(source.revisions())
        good, vault.read = vault.read, self.FORBIDDEN
        self.poll(source, clock, 10)
        vault.read = good
        next(source.revisions())
        logins = vault.logins
        vault.read = lambda asked: (
            good if asked.headers["x-vault-token"] == f"token-{logins + 1}" else self.FORBIDDEN
        )

        next(source.revisions())

        assert vault.logins == logins + 1

    def test_it_does_not_hold_another_sources_login_up(self, vault, source, clock, connection):
        other = VaultKVSource(connection, Config(mount="kv", path="forbidden", kv_version=2))
        good, revoked = vault.read, set()
        vault.read = lambda asked: (
            self.FORBIDDEN
            if "forbidden" in asked.path or asked.headers["x-vault-token"] in revoked
            else good
        )
        next(source.revisions())
        self.poll(other, clock, 5, every=1)
        revoked.add(f"token-{vault.logins}")

        assert next(source.revisions()).version == "5"

    def test_a_token_that_was_given_is_read_again_at_once(self, vault, clock, token_file):
        config = VaultConfig(address=vault.address, auth=TokenAuth(token_file=str(token_file)))
        connection = VaultConnection(config, clock=lambda: clock.now)
        source = VaultKVSource(connection, Config(mount="kv", path="certs", kv_version=2))
        next(source.revisions())
        good = vault.read
        vault.read = lambda asked: good if asked.headers["x-vault-token"] == "c" else self.FORBIDDEN
        token_file.write_text("b")
        self.poll(source, clock, 1, every=0)
        token_file.write_text("c")

        assert next(source.revisions()).version == "5"
        connection.close()


class TestStop:
    @pytest.fixture
    def stop(self):
        return SimpleNamespace(pending=False)

    @pytest.fixture
    def connection(self, vault, clock, token_file, stop):
        config = VaultConfig(
            address=vault.address, auth=JwtAuth(role="istiod", token_file=str(token_file))
        )
        made = VaultConnection(config, stopping=lambda: stop.pending, clock=lambda: clock.now)
        yield made
        made.close()

    def paths(self, vault):
        return [asked.path.rpartition("/")[2] for asked in vault.asked]

    def during(self, vault, stop, path):
        """Let a stop come while a request for this path is in flight."""
        script = vault._script

        def stopped(asked, connection):
            stop.pending = stop.pending or path in asked.path
            return script(asked, connection)

        vault._script = stopped

    def test_nothing_is_asked_after_it(self, vault, source, stop):
        stop.pending = True

        with pytest.raises(Stopping):
            next(source.revisions())

        assert vault.asked == []

    @pytest.mark.parametrize(
        ("path", "asked"), [("/login", ["login"]), ("/certs", ["login", "certs"])]
    )
    def test_the_request_in_flight_is_the_last(self, vault, source, stop, path, asked):
        self.during(vault, stop, path)

        with pytest.raises(Stopping):
            list(source.revisions())

        assert self.paths(vault) == asked

    def test_a_refusal_is_not_answered_by_a_login(self, vault, source, stop):
        next(source.revisions())
        vault.read = answer(403)
        self.during(vault, stop, "/certs")

        with pytest.raises(Stopping):
            next(source.revisions())

        assert vault.logins == 1

    def test_it_is_no_renewal_that_failed(self, vault, source, stop, clock, caplog):
        next(source.revisions())
        clock.now += LEASE * 2 / 3 + 1
        stop.pending = True

        with pytest.raises(Stopping):
            next(source.revisions())

        assert caplog.text == ""
        assert vault.logins == 1

    def test_the_token_is_still_given_back(self, vault, source, stop, connection):
        next(source.revisions())
        stop.pending = True

        connection.close()

        assert vault.revoked == ["token-1"]

    @pytest.mark.parametrize("renews", [False, True])
    def test_a_server_that_hangs_does_not_hold_it_up(
        self, vault, source, stop, connection, clock, renews
    ):
        next(source.revisions())
        script = vault._script
        vault._script = lambda asked, there: (
            vault.stopping.wait(10) and None
            if asked.path.endswith("revoke-self")
            else script(asked, there)
        )
        began = time.monotonic()
        if renews:
            clock.now += LEASE * 2 / 3 + 1
            self.during(vault, stop, "/login")
            with pytest.raises(Stopping):
                next(source.revisions())

        connection.close()

        assert time.monotonic() - began < 5, "half of what the server lets wait"


class TestLoginAnswers:
    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"auth": None},
            {"auth": []},
            {"auth": {"client_token": ""}},
            {"auth": {"client_token": 7, "lease_duration": 1}},
            {"auth": {"client_token": "two\nlines", "lease_duration": 1}},
            {"auth": {"client_token": "t", "lease_duration": "1h"}},
            {"auth": {"client_token": "t", "lease_duration": -1}},
        ],
    )
    def test_an_answer_of_the_wrong_shape_is_unavailable(self, vault, source, body):
        vault.login = answer(200, body)

        with pytest.raises(SourceUnavailable, match="without a usable"):
            next(source.revisions())

    @pytest.mark.parametrize(
        "token", ["a.b.c", "a.e30.c", "a.W10.c", "a.!.c", "x", "a." + "W1tb" * 4000 + ".c"]
    )
    def test_a_refusal_is_told_also_for_a_token_that_is_no_jwt(
        self, vault, source, token_file, token
    ):
        token_file.write_text(token)
        vault.login = answer(403, {"errors": ["permission denied"]})

        with pytest.raises(AccessDenied) as denied:
            next(source.revisions())

        assert denied.value.message == (
            "Vault refused the login for role 'istiod' at 'jwt' (403: permission denied)."
        )
        assert "service account 'unknown' and audience 'none'" in denied.value.hint


class TestCredentialFiles:
    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"", "is empty"),
            (b" \n", "is empty"),
            (b"\xff\x00\x01", "is not one line of text"),
            (b"two\nlines", "is not one line of text"),
            (b"two words", "is not one line of text"),
            (b"x" * (1 << 17), "is too large"),
        ],
    )
    def test_one_that_is_not_usable_is_refused_and_tried_again(
        self, source, token_file, content, told, vault
    ):
        token_file.write_bytes(content)

        with pytest.raises(AccessDenied, match=told) as denied:
            next(source.revisions())

        assert f"The service-account token in {token_file}" in denied.value.message
        assert denied.value.transient
        assert vault.asked == []

    def test_one_that_is_not_there_yet_is_refused_and_tried_again(self, source, token_file):
        token_file.unlink()
        with pytest.raises(AccessDenied, match="cannot be read: No such file") as denied:
            next(source.revisions())
        assert denied.value.hint.startswith("Mount it into this container, or correct the path.")
        token_file.write_text("a.b.c")

        assert next(source.revisions()).version == "5"

    def test_a_directory_in_its_place_is_told(self, source, token_file):
        token_file.unlink()
        token_file.mkdir()

        with pytest.raises(AccessDenied, match="Is a directory") as denied:
            next(source.revisions())

        assert denied.value.hint.startswith("Add the file's name, or mount its volume as it is")

    @pytest.mark.parametrize(
        "credential",
        ["0f3b2c1d-aaaa-bbbb-cccc-123456789012", "hvs.CAESIJ123456789012345678", "eyJh" * 400],
    )
    def test_one_that_is_given_in_place_of_its_path_is_not_shown(self, vault, credential):
        config = VaultConfig(address=vault.address, auth=TokenAuth(token_file=credential))
        source = VaultKVSource(VaultConnection(config), Config(mount="kv", path="x", kv_version=2))

        with pytest.raises(AccessDenied, match="cannot be read") as denied:
            next(source.revisions())

        assert credential[:4] in denied.value.message
        assert credential[:8] not in str(denied.value)
        assert "Give the path of a file" in denied.value.hint

    @pytest.mark.parametrize("path", ["secret-id", "/vault/secrets/secret-id-of-istiod", "a/b"])
    def test_a_path_is_shown_whole(self, vault, path):
        config = VaultConfig(address=vault.address, auth=TokenAuth(token_file=path))
        source = VaultKVSource(VaultConnection(config), Config(mount="kv", path="x", kv_version=2))

        with pytest.raises(AccessDenied, match=f"The Vault token in {path} cannot be read"):
            next(source.revisions())

    def test_a_token_file_that_vanishes_is_told_and_the_token_kept(self, vault, token_file):
        config = VaultConfig(address=vault.address, auth=TokenAuth(token_file=str(token_file)))
        connection = VaultConnection(config)
        source = VaultKVSource(connection, Config(mount="kv", path="certs", kv_version=2))
        next(source.revisions())
        token_file.unlink()
        good, vault.read = vault.read, answer(403)
        with pytest.raises(AccessDenied, match=r"Vault token in .* cannot be read"):
            next(source.revisions())
        vault.read = good

        assert next(source.revisions()).version == "5"
        assert connection.logins == {}
        connection.close()


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


class TestNothingSecretIsShown:
    """Every secret has the word `canary` in it, and the server echoes what it is sent."""

    CANARY = "canary"

    def echo(self, status):
        return lambda asked: answer(
            status, {"errors": [str(asked.headers), asked.body.decode(), asked.path]}
        )

    def file(self, tmp_path, name):
        path = tmp_path / name
        path.write_text(f"{self.CANARY}-{name}")
        return str(path)

    @pytest.fixture(params=["kubernetes", "jwt", "approle", "wrapped", "token"])
    def auth(self, request, tmp_path):
        match request.param:
            case "kubernetes":
                return KubernetesAuth(role="istiod", token_file=self.file(tmp_path, "sa"))
            case "jwt":
                return JwtAuth(role="istiod", token_file=self.file(tmp_path, "sa"))
            case "token":
                return TokenAuth(token_file=self.file(tmp_path, "token"))
            case method:
                return AppRoleAuth(
                    role_id_file=self.file(tmp_path, "role"),
                    secret_id_file=self.file(tmp_path, "secret"),
                    secret_id_wrapped=method == "wrapped",
                )

    @pytest.mark.parametrize("status", [400, 403, 404, 429, 500])
    @pytest.mark.parametrize("at", ["login", "unwrap", "data", "revoke-self", "nowhere"])
    def test_in_logs_reprs_and_errors(self, auth, at, status, caplog):
        shown = []
        secrets = {name: f"{self.CANARY} {name}" for name in FIELDS}
        data = {"data": secrets, "metadata": METADATA, "secret_id": f"{self.CANARY}-id"}
        token = {"client_token": f"{self.CANARY}-token", "lease_duration": LEASE}
        good = answer(200, {"auth": token, "data": data})

        def script(asked, _):
            return self.echo(status)(asked) if at in asked.path else good

        with (
            ScriptedServer(script) as server,
            caplog.at_level(logging.DEBUG),
            caplog.at_level(logging.DEBUG, "urllib3"),
        ):
            connection = VaultConnection(VaultConfig(address=server.address, auth=auth))
            source = VaultKVSource(connection, Config(mount="kv", path="certs", kv_version=2))
            try:
                revision = next(source.revisions())
                shown += [repr(revision), repr(revision.load()), str(revision)]
            except CertagentError as error:
                shown += [str(error), repr(error), *traceback.format_exception(error)]
                shown += [repr(vars(error))]
            shown += [repr(connection), repr(connection._login), repr(vars(source))]
            connection.close()

        sent = json.dumps([(asked.headers, asked.body.decode()) for asked in server.asked])
        assert self.CANARY in sent
        assert self.CANARY not in "\n".join([*shown, caplog.text])
