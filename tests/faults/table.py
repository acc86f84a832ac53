"""What can go wrong between an agent and its store: the table that the tests here go through."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.azure.faults import (
    answers,
    closes,
    drips,
    floods,
    halves,
    hangs,
    redirects,
    resets,
)
from tests.support.effort import is_long

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal

    from tests.support.azure.faults import How
    from tests.support.front import Shown

MISSING, UNAVAILABLE, DENIED = 66, 69, 77

ERRORS = {MISSING: "SecretNotFound", UNAVAILABLE: "SourceUnavailable", DENIED: "AccessDenied"}
"""What the log calls the error of an exit code."""


@dataclass(frozen=True)
class Fault:
    """One way for requests to go wrong, and what an agent is to make of it.

    `code` is the exit code of `init`. `shown` is a server's certificate, instead of `how` requests
    are met; `where` says which: all, those to log in, or those for the secret. `patience` is how
    long a request may take. `most` is how many times the requests of an attempt it may cost.
    """

    name: str
    how: How = field(default=closes, repr=False)
    code: int = UNAVAILABLE
    shown: Shown | None = None
    where: Literal["all", "login", "secret"] = "all"
    patience: str = "10s"
    most: int = 1

    def __str__(self) -> str:
        return self.name


def _says(status: int, **headers: str) -> How:
    return answers(status, {"errors": ["on purpose"]}, **headers)


ON_THE_WIRE = (
    Fault("reset", resets),
    Fault("closed without an answer", closes),
    Fault("hang", hangs, patience="300ms"),
    Fault("slow drip", drips(0.02), patience="300ms"),
    Fault("half a body", halves),
    Fault("100 MiB", floods()),
)
"""What a network does, or a proxy on it."""

ANSWERS = (
    Fault("403", _says(403), DENIED, most=2),
    Fault("404", _says(404), MISSING, where="secret", most=2),
    Fault("429", _says(429)),
    Fault("429 with Retry-After", _says(429, Retry_After="1")),
    Fault("472", _says(472)),
    Fault("473", _says(473)),
    Fault("500", _says(500)),
    Fault("503", _says(503)),
    Fault("503 with Retry-After", _says(503, Retry_After="1")),
    Fault("502 in HTML", answers(502, b"<html>Bad gateway</html>")),
)
"""What a server says that cannot, or will not."""

NONSENSE = (
    Fault("no JSON", answers(200, b"<html>Welcome to the hotel's network</html>")),
    Fault("half a JSON", answers(200, b'{"data": {"data": {"ca_key": "---')),
    Fault("a list", answers(200, [1, 2])),
    Fault("an empty object", answers(200, {})),
    Fault("JSON of another shape", answers(200, {"data": [1], "auth": "x", "value": {"a": 1}})),
)
"""What somebody answers who is not the store."""

CIRCLES = "redirect in circles"
REDIRECTS = (
    Fault("redirect to plain http", redirects("http://localhost:1")),
    Fault(CIRCLES, redirects(""), most=4),
)
"""Where a request must not be sent."""

CERTIFICATES = (
    Fault("expired certificate", shown="expired"),
    Fault("certificate of another authority", shown="untrusted"),
    Fault("certificate of another name", shown="wrong name"),
    Fault("no handshake", shown="no handshake"),
)
"""What a server shows of itself."""

FAULTS = (*ON_THE_WIRE, *ANSWERS, *NONSENSE, *REDIRECTS, *CERTIFICATES)

# In the usual run each kind of fault is met once, here or there; with `--long` all, at every store.
USUAL = {
    "vault": (
        *("reset", "hang", "half a body", "403", "404", "503", "429 with Retry-After"),
        *("JSON of another shape", "expired certificate"),
    ),
    "kv1": ("429", "500"),
    "keyvault": ("403", "429"),
}
USUAL_AT_INIT = {
    "vault": (
        *("slow drip", "403", "404", "472", "473", "no JSON", "redirect in circles"),
        "no handshake",
    ),
    "keyvault": ("half a body",),
}


def _is_met_at(store: str, fault: Fault) -> bool:
    """Whether there is such a thing: a Key Vault's redirects are none, and TLS is its proxy's."""
    return store != "keyvault" or (fault.shown != "no handshake" and fault.name != CIRCLES)


def rows(usual: Mapping[str, Sequence[str]]) -> list[tuple[str, Fault]]:
    """Return stores with the faults that are to be met there."""
    return [
        (store, fault)
        for store, names in usual.items()
        for fault in FAULTS
        if _is_met_at(store, fault) and (is_long() or fault.name in names)
    ]
