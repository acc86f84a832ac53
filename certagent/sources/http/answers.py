"""What connections and answers are subject to: limits, and a wait that an answer may ask for."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_BODY_BYTES = 16 << 20
"""No answer is larger. A store's own limit for a secret is 1 MiB or less; this is far above it, so
that a part that is too large is refused by its name, and not as an answer that is."""

MAX_IDLE = 60.0
"""Seconds after which a kept connection is not used any more: load balancers forget one that idles
for minutes, some without a word."""


def retry_delay(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3), or None."""
    if retry_after is None:
        return None
    number = retry_after.strip()
    if re.fullmatch(r"-?[0-9]+([.][0-9]+)?", number):
        return max(0.0, float(number))
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
