"""Whether a store answers at all, and by which clock: asked without a login."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from certagent.cli.diagnosis.result import About
from certagent.cli.diagnosis.steps import SERVER
from certagent.config.model import seconds
from certagent.errors import SourceUnavailable
from certagent.sources.http.answers import http_date
from certagent.sources.http.failures import failures, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from certagent.cli.diagnosis.result import Result
    from certagent.config.model import AzureConfig, Config, VaultConfig

CLOCK = About("clock")

_SERVER_ERROR = 500
_LONGEST_OFFSET = timedelta(minutes=5)
"""Beyond it, tokens that were just issued are refused, whatever the slack of the rotation is."""

_ROUNDING = timedelta(seconds=2)
"""A Date header has whole seconds, and the way there and back takes time."""


@dataclass(frozen=True, slots=True)
class _Greeting:
    """What a server answered, and how far its clock is ahead of ours, if it told."""

    status: int
    body: bytes = field(repr=False)
    ahead: timedelta | None


@dataclass(frozen=True, slots=True)
class _Moment:
    """When a server was asked: by our clock, and monotonic, in seconds."""

    clock: datetime
    monotonic: float

    @classmethod
    def now(cls) -> Self:
        """Return this moment."""
        return cls(datetime.now(UTC), time.monotonic())

    def ahead(self, date: str | None) -> timedelta | None:
        """Return how far the Date header of an answer (RFC 9110, 6.6.1) is ahead of our time."""
        ours = self.clock + timedelta(seconds=time.monotonic() - self.monotonic) / 2
        theirs = http_date(date)
        return None if theirs is None else theirs + timedelta(seconds=0.5) - ours


def vault(config: VaultConfig, limit: timedelta) -> Iterator[Result]:
    """Yield whether Vault answers and is able to, then its clock (GET sys/health, which is free).

    Raises `SourceUnavailable`.
    """
    from certagent.sources.vault.client import STATUS_HINTS, VaultClient  # noqa: PLC0415 - for Vault
    from certagent.sources.vault.failures import ADVICE  # noqa: PLC0415 - likewise

    client = VaultClient(config, Counter())
    # Without the namespace: health is the whole server's.
    path = "/v1/sys/health?standbyok=true&perfstandbyok=true"
    shown = _shown(config.address)
    url = config.address.rstrip("/") + path
    before = _Moment.now()
    with contextlib.closing(client), failures(shown, before.monotonic, ADVICE):
        answer = client.transport.request("GET", url, {})
    greeting = _Greeting(answer.status, answer.body, before.ahead(answer.headers.get("Date")))
    health = _object(greeting.body)
    if greeting.status in STATUS_HINTS or greeting.status >= _SERVER_ERROR:
        raise SourceUnavailable(
            f"Vault at {shown} cannot serve now ({greeting.status}).",
            hint=STATUS_HINTS.get(greeting.status, "Its own log, or that of a proxy, tells why."),
        )
    if "sealed" not in health:
        yield SERVER.warning(
            f"{shown} answers {greeting.status} where Vault tells of its health.",
            "Something between here and Vault may withhold sys/health; see vault.address.",
        )
    else:
        version = one_line(str(health.get("version", "of an unknown version")))
        yield SERVER.ok(f"Vault {version} answers at {shown}, and is unsealed.")
    yield _clock("Vault", greeting.ahead, limit)


def azure(config: AzureConfig, limit: timedelta) -> Iterator[Result]:
    """Yield whether Key Vault answers, then its clock; raises `SourceUnavailable`."""
    from certagent.sources.azure.failures import VAULT  # noqa: PLC0415 - only for Azure
    from certagent.sources.azure.session import AzureSession  # noqa: PLC0415 - likewise

    session = AzureSession(config, lambda *_: None)
    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
    address = config.vault_url.rstrip("/")
    timeouts = seconds(config.connect_timeout), seconds(config.request_timeout)
    # It asks for a token (401): that is an answer, and nobody's secret.
    before = _Moment.now()
    with contextlib.closing(session), failures(address, before.monotonic, VAULT):
        answer = session.get(f"{address}/secrets?api-version=7.4", timeout=timeouts)
    greeting = _Greeting(
        answer.status_code, answer.content, before.ahead(answer.headers.get("Date"))
    )
    if greeting.status >= _SERVER_ERROR:
        raise SourceUnavailable(
            f"Key Vault at {address} cannot serve now ({greeting.status}).",
            hint="Azure's status page tells more.",
        )
    yield SERVER.ok(f"Key Vault answers at {address}.")
    yield _clock("Key Vault", greeting.ahead, limit)


def limit(config: Config) -> timedelta:
    """Return how far a store's clock may be from ours: the slack, which has to cover it."""
    return min(timedelta(seconds=seconds(config.rotation.slack)), _LONGEST_OFFSET)


def _clock(store: str, ahead: timedelta | None, limit: timedelta) -> Result:
    if ahead is None:
        return CLOCK.skipped(f"{store}'s answer does not tell the time.")
    if abs(ahead) <= _ROUNDING:
        return CLOCK.ok(f"{store}'s clock and ours agree.")
    side = "ahead of" if ahead > timedelta() else "behind"
    told = f"{store}'s clock is {_span(abs(ahead))} {side} ours"
    if abs(ahead) <= limit + _ROUNDING:
        return CLOCK.ok(f"{told}.")
    return CLOCK.warning(
        f"{told}: more than {_span(limit)}.",
        "Compare `date -u` with a reference on this node and on the store's, and set right the one"
        " that is off (NTP). Windows, tokens and expiry are reckoned by both.",
    )


def _span(length: timedelta) -> str:
    return str(timedelta(seconds=round(length.total_seconds())))


def _shown(address: str) -> str:
    url = urlsplit(address)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}"


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
