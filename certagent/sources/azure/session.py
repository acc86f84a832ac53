"""The HTTP under Azure's SDK: whole requests bounded in time and size, and each answer noted.

The SDK's own timeouts bound each read and not the sum of them, its retries obey any Retry-After,
and its exceptions lose what was answered on the way through MSAL. Here every request of its
clients and credentials passes one session, whose last answer tells what they met.
"""

from __future__ import annotations

import io
import logging
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from azure.core.pipeline.transport import RequestsTransport
from urllib3 import HTTPResponse

from certagent.config.model import seconds
from certagent.errors import Stopping
from certagent.sources.azure.failures import LOGIN, MACHINE, VAULT
from certagent.sources.azure.timed import TimedSession, bounded_body
from certagent.sources.http.answers import http_date
from certagent.sources.http.failures import failures

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from certagent.config.model import AzureConfig
    from certagent.sources.http.failures import Advice

_LOG = logging.getLogger("certagent.azure")
_BAD_REQUEST = 400


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered; `challenged` tells that the request bore no token yet.

    `date` is when, by the server's own clock.
    """

    host: str
    status: int
    body: bytes = field(repr=False, default=b"")
    retry_after: str | None = None
    date: datetime | None = None
    challenged: bool = False

    @property
    def refuses(self) -> bool:
        """Whether it is an error's."""
        return self.status >= _BAD_REQUEST


class AzureSession(TimedSession):
    """One session for the vault and the login; `on_answer` is told each answer, or None, and whose.

    `stopping` tells that the agent is to end: then nothing more is sent. Raises what TimedSession
    does as `SourceUnavailable`, and `Stopping`; the SDK passes them on, or wraps them.
    """

    def __init__(
        self,
        config: AzureConfig,
        on_answer: Callable[[Answer | None, str], None],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(seconds(config.request_timeout))
        self._vault = (urlsplit(config.vault_url).hostname or "").lower()
        self._on_answer = on_answer
        self._stopping = stopping

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request, and read its answer whole."""
        if self._stopping():
            raise Stopping("The agent is stopping.")
        url = urlsplit(request.url or "")
        host = (url.hostname or "").lower()
        address = f"{url.scheme}://{url.netloc}"
        started = time.monotonic()
        answer: Answer | None = None
        try:
            with failures(address, started, self._advice(host, url.scheme)):
                response = super().send(request, **kwargs)
                body = bounded_body(response)
            answer = Answer(
                host,
                response.status_code,
                body,
                response.headers.get("Retry-After"),
                http_date(response.headers.get("Date")),
                challenged=response.status_code == requests.codes.unauthorized
                and "Authorization" not in request.headers,
            )
        finally:
            self._on_answer(answer, host)
            taken = (time.monotonic() - started) * 1000
            status = "no answer" if answer is None else answer.status
            # Without the query, where the SDK puts nothing that helps.
            _LOG.debug("%s %s%s: %s, %d ms", request.method, address, url.path, status, taken)
        return _again(response, body)

    def _advice(self, host: str, scheme: str) -> Advice:
        if host == self._vault:
            return VAULT
        return LOGIN if scheme == "https" else MACHINE


def transport(session: AzureSession, config: AzureConfig) -> RequestsTransport:
    """Return the SDK's transport over a session, for all of its clients and credentials."""
    return RequestsTransport(
        session=session,
        session_owner=False,
        connection_timeout=seconds(config.connect_timeout),
        read_timeout=seconds(config.request_timeout),
        connection_verify=os.environ.get("REQUESTS_CA_BUNDLE") or True,
    )


def _again(response: requests.Response, body: bytes) -> requests.Response:
    """Return an answer that has been read as one that is still to be read."""
    fresh = requests.Response()
    fresh.status_code, fresh.reason, fresh.url = response.status_code, response.reason, response.url
    fresh.headers, fresh.request = response.headers, response.request
    fresh.encoding = response.encoding
    fresh.raw = HTTPResponse(io.BytesIO(body), status=response.status_code, preload_content=False)
    return fresh
