"""Logins at a server that answers what a real one seldom does: leases, refusals, credentials."""

from __future__ import annotations

import json
import logging
import traceback

import pytest

from certagent.config.model import AppRoleAuth, JwtAuth, KubernetesAuth, TokenAuth, VaultConfig
from certagent.config.model import VaultKVSource as Config
from certagent.errors import AccessDenied, CertagentError, SourceUnavailable
from certagent.sources.vault.connection import VaultConnection
from certagent.sources.vault.kv import VaultKVSource
from tests.support.scripted import ScriptedServer, answer
from tests.support.scripted_vault import FIELDS, LEASE, METADATA


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

    @pytest.mark.usefixtures("unhurried")
    def test_one_that_nobody_took_is_given_back(self, vault, connection):
        connection.begin()
        connection.close()

        assert vault.revoked == ["token-1"]


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
