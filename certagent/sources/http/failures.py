"""What went wrong below HTTP, in words; and foreign text, made fit to be shown."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from http.client import BadStatusLine, HTTPException, IncompleteRead
from typing import TYPE_CHECKING

from msgspec import Struct

from certagent.errors import SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_FOREIGN_TEXT = 300

# What looks like a JWT, or like a token of Vault's, whoever's it may be.
_TOKENS = re.compile(r"eyJ[\w-]{8,}(?:\.[\w-]+)*|\b(?:hvs|hvb|hvr|s|b)\.[\w-]{20,}")


class HTTPFailure(Exception):
    """What stands between a request and its answer; the text tells what, and no secret."""


class NoConnection(HTTPFailure):
    """A connection, or its TLS handshake, was not there in time."""


class ProxyUnusable(HTTPFailure):
    """The environment names a proxy that cannot be one."""


class ProxyFailed(HTTPFailure):
    """The proxy on the way was not reached, or does not lead on."""


class RedirectRefused(HTTPFailure):
    """The server sends requests to where they must not go, or in circles."""


class BodyTooLarge(HTTPFailure):
    """An answer is larger than this many bytes."""


class Advice(Struct, frozen=True):
    """What to do about each kind of failure on the way to one service, called `service`."""

    service: str
    reach: str
    trust: str
    proxy: str
    redirect: str
    elsewhere: str
    slow: str
    files: str
    tls: str


# In the order of what tells most: one failure is a chain of several exceptions. The name of the
# advice comes first.
_FAILURES: tuple[tuple[str, type[Exception] | tuple[type[Exception], ...], str], ...] = (
    ("proxy", ProxyUnusable, "The proxy on the way to {address} cannot be used: {told}."),
    ("proxy", ProxyFailed, "The proxy on the way to {address} failed: {origin}."),
    (
        "trust",
        ssl.SSLCertVerificationError,
        "The certificate of {address} is not trusted: {told}.",
    ),
    ("redirect", RedirectRefused, "{address} redirects: {told}."),
    ("elsewhere", BodyTooLarge, "The server at {address} sent more than {told} bytes."),
    ("reach", socket.gaierror, "The name in {address} cannot be resolved: {told}."),
    ("reach", ConnectionRefusedError, "Nothing listens at {address}: connection refused."),
    ("reach", ConnectionError, "The connection to {address} failed: {told}."),
    ("reach", NoConnection, "There was no connection to {address} after {after:.1f} s."),
    ("slow", TimeoutError, "{service} at {address} had not answered in full after {after:.1f} s."),
    # The texts of these two would quote what was sent, which may be a part of a secret.
    ("reach", IncompleteRead, "The connection to {address} failed: its answer broke off."),
    ("elsewhere", BadStatusLine, "What answers at {address} does not speak HTTP."),
    (
        "files",
        (FileNotFoundError, IsADirectoryError, PermissionError),
        "TLS with {address} was not possible: {told}.",
    ),
    ("tls", ssl.SSLError, "TLS with {address} failed: {told}."),
)


def one_line(text: str, secrets: Iterable[str] = ()) -> str:
    """Return foreign text as it may be shown: one bounded line, printable, without secrets."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "[redacted]")
    text = _TOKENS.sub("[redacted]", text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= MAX_FOREIGN_TEXT else f"{text[: MAX_FOREIGN_TEXT - 1]}…"


@contextlib.contextmanager
def failures(address: str, started: float, advice: Advice) -> Iterator[None]:
    """Tell what went wrong below HTTP as `SourceUnavailable`; `started` is monotonic."""
    try:
        yield
    except (HTTPFailure, HTTPException, OSError, ValueError) as error:
        message, hint = _explained(error, address, time.monotonic() - started, advice)
        raise SourceUnavailable(message, hint=hint) from error


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, and what it came of."""
    met: set[int] = set()  # what is raised again can come of what it has caused itself
    while error is not None and id(error) not in met:
        yield error
        met.add(id(error))
        # urllib3 puts into an exception, and never raises, what fails behind a proxy.
        inside = next((each for each in error.args if isinstance(each, BaseException)), None)
        error = error.__cause__ or error.__context__ or inside


def _explained(error: Exception, address: str, after: float, advice: Advice) -> tuple[str, str]:
    """Return what happened, and its likely cause."""
    causes = list(chain(error))
    origin = one_line(str(causes[-1]))
    for topic, kind, message in _FAILURES:
        for cause in causes:
            if isinstance(cause, kind):
                told = one_line(getattr(cause, "verify_message", None) or str(cause))
                shown = message.format(
                    address=address, after=after, told=told, origin=origin, service=advice.service
                )
                return shown, getattr(advice, topic)
    return f"The connection to {address} failed: {origin}.", advice.reach
