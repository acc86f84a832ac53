"""What every answer is subject to: a limit of its size, and a wait that it may ask for."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from certagent.errors import SourceUnavailable

if TYPE_CHECKING:
    import requests

MAX_BODY_BYTES = 16 << 20
"""No answer is larger. A store's own limit for a secret is 1 MiB or less; this is far above it, so
that a part that is too large is refused by its name, and not as an answer that is."""


def bounded_body(response: requests.Response, address: str, hint: str) -> bytes:
    """Read a body to its end, and let go of its connection; raises `SourceUnavailable`."""
    body = bytearray()
    with contextlib.closing(response):
        for chunk in response.iter_content(1 << 16):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise SourceUnavailable(
                    f"The server at {address} sent more than {MAX_BODY_BYTES} bytes.", hint=hint
                )
    return bytes(body)


def retry_delay(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3), or None."""
    if retry_after is None:
        return None
    if re.fullmatch(r"-?[0-9]+([.][0-9]+)?", retry_after.strip()):
        return max(0.0, float(retry_after))
    moment = http_date(retry_after)
    return None if moment is None else max(0.0, (moment - datetime.now(UTC)).total_seconds())


def http_date(text: str | None) -> datetime | None:
    """Return the moment that a header tells (RFC 9110, 5.6.7), or None."""
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):  # the latter for the zone of a date that is none
        return None
    # RFC 9110 has only GMT; a date without a zone is taken for it.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
