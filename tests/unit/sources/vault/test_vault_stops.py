"""A stop that comes while Vault is asked."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from certagent.config.model import JwtAuth, VaultConfig
from certagent.errors import Stopping
from certagent.sources.vault.connection import VaultConnection
from tests.support.scripted import answer
from tests.support.scripted_vault import LEASE


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

    @pytest.mark.usefixtures("unhurried")
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

        assert time.monotonic() - began < (2 if renews else 1)
