"""What went wrong below HTTP, in words; and foreign text, made fit to be shown."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from typing import TYPE_CHECKING

import requests
from urllib3.exceptions import ProxySchemeUnknown

from certagent.errors import SourceUnavailable
from certagent.sources.vault.session import RedirectRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_FOREIGN_TEXT = 300

# What looks like a JWT, or like a token of Vault's, whoever's it may be.
_TOKENS = re.compile(r"eyJ[\w-]{8,}(?:\.[\w-]+)*|\b(?:hvs|hvb|hvr|s|b)\.[\w-]{20,}")

_REACH = "Check vault.address (VAULT_ADDR), network policies, and what captures traffic here."
# In the order of what tells most: one failure is a chain of several exceptions.
_FAILURES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, str], ...] = (
    (
        ssl.SSLCertVerificationError,
        "The certificate of {address} is not trusted: {told}.",
        "Set vault.caFile (VAULT_CACERT) to the CA that signed it; check its names and dates.",
    ),
    (
        (requests.exceptions.InvalidProxyURL, ProxySchemeUnknown),
        "The proxy on the way to {address} cannot be used: {told}.",
        "Set HTTPS_PROXY to http://HOST:PORT, or name Vault's host in NO_PROXY.",
    ),
    (
        requests.exceptions.ProxyError,
        "The proxy on the way to {address} failed.",
        "Check HTTPS_PROXY and NO_PROXY.",
    ),
    (
        RedirectRefused,
        "{address} redirects: {told}.",
        "Set vault.address to the cluster's own address.",
    ),
    (socket.gaierror, "The name in {address} cannot be resolved: {told}.", _REACH),
    (ConnectionRefusedError, "Nothing listens at {address}: connection refused.", _REACH),
    (requests.ConnectTimeout, "There was no connection to {address} after {after:.1f} s.", _REACH),
    (
        TimeoutError,
        "Vault at {address} had not answered in full after {after:.1f} s.",
        "It is overloaded or hangs; vault.requestTimeout says how long to wait.",
    ),
    (
        (FileNotFoundError, PermissionError),
        "TLS with {address} was not possible: {told}.",
        "Check vault.caFile (VAULT_CACERT) and the files of vault.auth.",
    ),
    (
        ssl.SSLError,
        "TLS with {address} failed: {told}.",
        "Does it speak TLS 1.2 or later, and are vault.caFile and the files of vault.auth PEM?",
    ),
)


def one_line(text: str, secrets: Iterable[str] = ()) -> str:
    """Return foreign text as it may be shown: one bounded line, printable, without secrets."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "[redacted]")
    text = _TOKENS.sub("[redacted]", text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= MAX_FOREIGN_TEXT else f"{text[: MAX_FOREIGN_TEXT - 1]}…"


@contextlib.contextmanager
def failures(address: str, started: float) -> Iterator[None]:
    """Tell what went wrong below HTTP as `SourceUnavailable`."""
    try:
        yield
    except (requests.RequestException, OSError, ValueError) as error:
        message, hint = _explained(error, address, time.monotonic() - started)
        raise SourceUnavailable(message, hint=hint) from error


def _explained(error: Exception, address: str, after: float) -> tuple[str, str]:
    """Return what happened, and its likely cause."""
    causes = list(_chain(error))
    for kind, message, hint in _FAILURES:
        for cause in causes:
            if isinstance(cause, kind):
                told = one_line(getattr(cause, "verify_message", None) or str(cause))
                return message.format(address=address, after=after, told=told), hint
    return f"The connection to {address} failed: {one_line(str(causes[-1]))}.", _REACH


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
