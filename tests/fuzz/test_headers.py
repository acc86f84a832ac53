"""Headers that tell a time: Retry-After, and Date."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certagent.runtime.schedule import LONGEST_RETRY_AFTER, Schedule
from certagent.sources.http.answers import http_date, retry_delay
from tests.fuzz.judging import corpus
from tests.support.effort import effort

PIECES = st.sampled_from(
    [
        *(
            "Sun",
            "Mon,",
            "06",
            "32",
            "Nov",
            "Foo",
            "1994",
            "94",
            "0001",
            "9999",
            "99999",
            "08:49:37",
        ),
        *(
            "24:60:61",
            "08.49.37",
            "08:49",
            ":",
            "::",
            "GMT",
            "UTC",
            "EST",
            "+0000",
            "-2400",
            "+99999999999",
        ),
        *(
            " ",
            ",",
            "-",
            "(",
            ")",
            ";",
            "\x00",
            "é",
            "٣",
            "7",
            "0.5",
            "-3",
            "9" * 400,
            "1e3",
            "nan",
            "inf",
        ),
    ]
)


def examples() -> list[bytes]:
    """What atheris starts from, beside the corpus: made anew, for it has keys."""
    return [b"120", b"Sun, 06 Nov 1994 08:49:37 GMT"]


def attempt(data: bytes) -> None:
    """Read the bytes as either header."""
    text = data.decode("latin-1")
    delay, moment = retry_delay(text), http_date(text)
    assert delay is None or delay >= 0
    assert moment is None or moment.tzinfo
    pause = Schedule(30, lambda: 0.5).after_failure(3, delay)
    assert 0 < pause <= 1.1 * LONGEST_RETRY_AFTER
    assert math.isfinite(pause)


@pytest.mark.parametrize("data", corpus("headers"))
def test_whatever_has_been_found_is_a_wait_or_none(data):
    attempt(data)


@settings(max_examples=effort(150, 200_000))
@given(
    st.lists(PIECES, max_size=10).map(lambda pieces: " ".join(pieces).encode("latin-1", "replace"))
)
def test_any_header_is_a_bounded_wait_or_none(data):
    attempt(data)
