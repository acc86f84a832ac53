"""The checks of one store in their order: what cannot be asked is said to be skipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from certagent.cli.diagnosis.result import About, attempt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from certagent.cli.diagnosis.result import Result

CREDENTIAL = About("credential")
SERVER = About("server")
LOGIN = About("login")
READ = "read"


@dataclass(frozen=True, slots=True)
class Steps:
    """Checks that have not begun: what the pod has, the store itself, the login, each bundle."""

    credential: Iterator[Result]
    server: Iterator[Result]
    login: Iterator[Result]
    bundles: Mapping[str, Iterator[Result]]


def in_turn(steps: Steps) -> Iterator[Result]:
    """Yield the results of the checks; a bundle's one has to run its own parts with `attempt`."""
    has_credential = yield from attempt(CREDENTIAL, steps.credential)
    answers = yield from attempt(SERVER, steps.server)
    is_logged_in = False
    if has_credential and answers:
        is_logged_in = yield from attempt(LOGIN, steps.login)
    else:
        missing = "usable credential" if answers else "server"
        yield LOGIN.skipped(f"There is no {missing} to log in with.")
    for bundle, check in steps.bundles.items():
        if is_logged_in:
            yield from check
        else:
            yield About(READ, bundle).skipped("There is no login.")
