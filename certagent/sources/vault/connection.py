"""The one login of a process, shared by all that it reads from Vault."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from threading import Event, Thread
from typing import TYPE_CHECKING, TypeVar

from certagent.config.model import TokenAuth
from certagent.errors import AccessDenied, CertagentError, SourceUnavailable, Stopping
from certagent.sources.vault.auth import Authenticator
from certagent.sources.vault.client import VaultClient, VaultRefused, url_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from certagent.config.model import VaultConfig
    from certagent.sources.vault.auth import Login
    from certagent.sources.vault.secret import Secret

_LOG = logging.getLogger("certagent.vault")
_FORBIDDEN = 403
_RENEWAL_PAUSE = 60.0
"""Seconds between two tries to renew a login early; a third of its lease is many of them."""

_HURRY = 0.7
"""Seconds that giving a token back may take at a stop: the whole stop is to take one second, and a
token that could not be given back ends with its lease."""

_GLANCE = 0.2
"""Seconds between two looks, while something is read ahead, whether that is still wanted."""

_FIRST_PATIENCE, _LONGEST_PATIENCE = 10.0, 300.0
"""Seconds without another login after one that did not help; they double from the first on. Each
login makes Vault ask the cluster (TokenReview), but a role that was put right needs one."""

Answer = TypeVar("Answer")


class _Beside(Thread):
    """Runs a login, and what comes after it, in a thread of its own."""

    def __init__(self, log_in: Callable[[], bool], afterwards: Callable[[], None]) -> None:
        super().__init__(name="login", daemon=True)
        self._log_in = log_in
        self._afterwards = afterwards
        self._failure: BaseException | None = None
        self._is_new = False
        self.logged_in = Event()
        """Set once the login has ended, well or not."""
        self.start()

    def run(self) -> None:
        try:
            try:
                self._is_new = self._log_in()
            finally:
                self.logged_in.set()
            self._afterwards()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            self._failure = error

    def result(self) -> bool:
        """Return what the login did, or raise what it raised, once the thread has ended."""
        self.join()
        if self._failure is not None:
            raise self._failure
        return self._is_new


class VaultConnection:
    """Implements `sources.Connection`: a login when one is needed, and its end.

    There is none before the first `call` or `begin`. A new one is made when a third of the lease is
    left, or when Vault answers 403; leases are not renewed, so an outage cannot become a loop of
    renewals. A token that was replaced is revoked: refusals that repeat must not fill Vault with
    leases. `conceal` is told every token and credential before it is used. `stopping` tells that
    the agent is to end: then nothing more is asked but to revoke the token. `clock` returns seconds
    that never go back. Not for several threads at once.
    """

    def __init__(
        self,
        config: VaultConfig,
        *,
        environment_token: str = "",
        conceal: Callable[[str], None] = lambda _: None,
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.requests: Counter[str] = Counter()
        self.logins: Counter[str] = Counter()
        self._new_client = partial(VaultClient, config, self.requests, conceal)
        self._client = self._new_client()
        self._authenticator = Authenticator(config.auth, environment_token)
        # A token that was given is read, not obtained: that is no login to be counted.
        self._counts_logins = not isinstance(config.auth, TokenAuth)
        self._stopping = stopping
        self._clock = clock
        self._beside: _Beside | None = None
        self._is_closing = False
        self._login: Login | None = None
        self._renew_at = self._ends_at = math.inf
        self._renewal_failed = False
        # For each asker whom a new login did not help: how often in a row, and when last.
        self._in_vain: dict[str, tuple[int, float]] = {}

    def begin(self, secret: Secret | None = None) -> None:
        """Log in, and read a secret, beside what else there is to do at a start.

        The first `call` waits for both, whatever it asks for, and raises what the login met. The
        secret is then at hand for whoever asks for it, or the error that it met is.
        """
        self._beside = _Beside(self._log_in, partial(self._read_ahead, secret))

    def call(self, operation: Callable[[VaultClient], Answer], asker: str = "") -> Answer:
        """Run an operation with a valid login, and once more with a new one if Vault says 403.

        An `asker` whom that did not help gets no new login for a while, minutes at most. Raises
        `AccessDenied`, `SourceUnavailable` or `Stopping`, and `VaultRefused` where the operation
        itself was refused: the caller knows what that means.
        """
        fresh = self._ensure_login()
        try:
            answer = self._run(operation)
        except VaultRefused as refused:
            if refused.status != _FORBIDDEN or fresh or self._is_in_vain(asker):
                raise
            if not self._log_in():
                raise
            answer = self._run_again(operation, asker)
        self._in_vain.pop(asker, None)
        return answer

    def close(self) -> None:
        """Revoke the token, unless it was given, and drop the connections. Never raises."""
        self._is_closing = True
        beside, self._beside = self._beside, None
        if beside is not None:
            beside.logged_in.wait()
            beside.join(_GLANCE)
            if beside.is_alive():
                # It reads what nobody wants any more, from a server that is slow or hangs, and ends
                # with the process: another connection gives its token back.
                self._client = self._new_client()
        if self._login is not None:
            self._revoke(self._login, hurry=True)
        self._login = None
        self._client.token = ""
        self._client.close()

    def _read_ahead(self, secret: Secret | None) -> None:
        if secret is None:
            return
        with suppress(CertagentError, VaultRefused):  # who asks for the secret is told
            version, mount = secret.kv_version, secret.mount_url
            if version is None:
                version = secret.engine(self._run(lambda client: client.read_ahead(mount)))
            url = url_of(secret.path_of(version))
            self._run(lambda client: client.read_ahead(url))

    def _run(self, operation: Callable[[VaultClient], Answer]) -> Answer:
        self._require_no_stop()
        return operation(self._client)

    def _run_again(self, operation: Callable[[VaultClient], Answer], asker: str) -> Answer:
        """Run an operation with the new login, and remember where that does not help."""
        try:
            return self._run(operation)
        except VaultRefused as refused:
            if refused.status == _FORBIDDEN:
                times, _ = self._in_vain.get(asker, (0, 0.0))
                self._in_vain[asker] = (times + 1, self._clock())
            raise

    def _is_in_vain(self, asker: str) -> bool:
        """Return whether it is too early for another login; a given token costs Vault nothing."""
        if asker not in self._in_vain or not self._counts_logins:
            return False
        times, last = self._in_vain[asker]
        patience = min(_FIRST_PATIENCE * 2.0 ** min(times - 1, 10), _LONGEST_PATIENCE)
        return self._clock() - last < patience

    def _require_no_stop(self) -> None:
        if self._is_closing or self._stopping():
            raise Stopping("The agent is stopping.")

    def _ensure_login(self) -> bool:
        """Make a login where none is valid, or where it is time; return whether one was made."""
        if self._beside is not None:
            return self._begun(self._beside)
        now = self._clock()
        if self._login is None or now >= self._ends_at:
            return self._log_in()
        if now < self._renew_at:
            return False
        try:
            return self._log_in()
        except Stopping:
            raise
        except (AccessDenied, SourceUnavailable) as error:
            now = self._clock()
            asked_for = getattr(error, "retry_after", None) or 0.0
            self._renew_at = now + max(asked_for, _RENEWAL_PAUSE)
            if not self._renewal_failed:
                left = self._ends_at - now
                _LOG.warning("No new login; the present one is good for %d s more: %s", left, error)
            self._renewal_failed = True
            return False

    def _begun(self, beside: _Beside) -> bool:
        """Wait for what was begun; a stop leaves what is read to `close`, but never a login."""
        while beside.is_alive():
            beside.join(_GLANCE)
            if beside.logged_in.is_set():
                self._require_no_stop()
        self._beside = None
        return beside.result()

    def _log_in(self) -> bool:
        """Replace the login; return whether there is another token now."""
        self._require_no_stop()
        before, limited = self._login, self.requests["limited"]
        self._client.token = ""
        outcome = "unavailable"
        try:
            login = self._authenticator.login(self._client)
            outcome = "ok"
        except AccessDenied:
            outcome = "denied"
            raise
        except SourceUnavailable:
            outcome = "limited" if self.requests["limited"] > limited else outcome
            raise
        finally:
            if self._counts_logins:
                self.logins[outcome] += 1
            self._client.token = before.token if before else ""
        if before is not None:
            self._revoke(before, hurry=self._stopping())
        now = self._clock()
        self._renewal_failed = False
        self._renew_at = now + login.lease * 2 / 3 if login.lease else math.inf
        self._ends_at = now + login.lease if login.lease else math.inf
        self._login = login
        self._client.token = login.token
        return before is None or login.token != before.token

    def _revoke(self, login: Login, *, hurry: bool) -> None:
        """Give a token back, if it is ours; that it may have ended already is no fault."""
        if not login.revocable:
            return
        self._client.token = login.token
        try:
            with self._client.transport.within(_HURRY if hurry else math.inf):
                self._client.post(url_of("auth/token/revoke-self"))
        except (CertagentError, VaultRefused) as error:
            _LOG.debug("The token was not revoked: %s", error)
