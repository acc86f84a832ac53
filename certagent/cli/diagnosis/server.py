"""Whether a store answers at all, and by which clock: asked without a login."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from certagent.cli.diagnosis.result import About
from certagent.cli.diagnosis.steps import SERVER
from certagent.config.model import seconds
from certagent.errors import SourceUnavailable
from certagent.sources.http.answers import bounded_body
from certagent.sources.http.failures import failures, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from certagent.cli.diagnosis.result import Result
    from certagent.config.model import AzureConfig, Config, VaultConfig
    from certagent.sources.http.failures import Advice
    from certagent.sources.http.session import TimedSession

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


def vault(config: VaultConfig, limit: timedelta) -> Iterator[Result]:
    """Yield whether Vault answers and is able to, then its clock (GET sys/health, which is free).

    Raises `SourceUnavailable`.
    """
    from certagent.sources.vault.client import STATUS_HINTS, new_client  # noqa: PLC0415 - for Vault
    from certagent.sources.vault.failures import ADVICE  # noqa: PLC0415 - likewise

    session = new_client(config, Counter()).session
    # Without the namespace: health is the whole server's.
    path = "/v1/sys/health?standbyok=true&perfstandbyok=true"
    shown = _shown(config.address)
    timeouts = seconds(config.connect_timeout), seconds(config.request_timeout)
    greeting = _greeting(session, config.address.rstrip("/") + path, shown, timeouts, ADVICE)
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
    greeting = _greeting(session, f"{address}/secrets?api-version=7.4", address, timeouts, VAULT)
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


def _greeting(
    session: TimedSession, url: str, shown: str, timeouts: tuple[float, float], advice: Advice
) -> _Greeting:
    before, started = datetime.now(UTC), time.monotonic()
    with contextlib.closing(session), failures(shown, started, advice):
        response = session.get(url, timeout=timeouts)
        body = bounded_body(response, shown, advice.reach)
    ours = before + timedelta(seconds=time.monotonic() - started) / 2
    return _Greeting(response.status_code, body, _ahead(response.headers.get("Date"), ours))


def _ahead(date: str | None, ours: datetime) -> timedelta | None:
    """Return how far a Date header (RFC 9110, 6.6.1) is ahead of our time."""
    try:
        theirs = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return theirs.replace(tzinfo=theirs.tzinfo or UTC) + timedelta(seconds=0.5) - ours


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
