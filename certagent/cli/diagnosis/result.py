"""What a check finds, and how checks are run so that none hides what another has to say."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from certagent.errors import CertagentError, MaterialRefused, Stopping
from certagent.material.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from certagent.material.finding import Finding

_log = logging.getLogger("certagent.doctor")


class Verdict(StrEnum):
    """How a check ended: only a failure keeps an agent from its work."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the report.

    `name` is the check's, `bundle` the bundle that it is about, if it is about one. `fix` says what
    to do about a failure or a warning. `exit_code` is that of the failure, as `errors` has them.
    """

    name: str
    verdict: Verdict
    message: str
    fix: str = ""
    bundle: str = ""
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class About:
    """What a check is called, and its bundle; makes the results of it."""

    name: str
    bundle: str = ""

    def ok(self, message: str) -> Result:
        """Return that all is well, and what was seen."""
        return Result(self.name, Verdict.OK, message, bundle=self.bundle)

    def warning(self, message: str, fix: str) -> Result:
        """Return what an agent works with, and somebody should look at."""
        return Result(self.name, Verdict.WARNING, message, fix, self.bundle)

    def skipped(self, message: str) -> Result:
        """Return why there was nothing to look at."""
        return Result(self.name, Verdict.SKIPPED, message, bundle=self.bundle)

    def failure(self, error: CertagentError) -> Result:
        """Return what an agent would fail with."""
        fix = error.hint.replace("\n", " ")
        return Result(self.name, Verdict.FAILURE, error.message, fix, self.bundle, error.exit_code)

    def findings(self, found: Iterable[Finding], prefix: str = "") -> Iterator[Result]:
        """Yield what verification has to say of a set, each finding as a result."""
        for each in found:
            message = f"{prefix}{each.code} ({each.part}): {each.message}"
            if each.severity is Severity.ERROR:
                code = MaterialRefused.exit_code
                yield Result(self.name, Verdict.FAILURE, message, each.hint, self.bundle, code)
            else:
                yield self.warning(message, each.hint)


def attempt(about: About, check: Iterable[Result]) -> Generator[Result, None, bool]:
    """Yield what a check finds, whatever it raises; return whether what it is about can be used.

    Results of other names, which it finds on its way, do not count. Only `Stopping` is passed on.
    """
    usable = True
    try:
        for result in check:
            if result.name == about.name and result.verdict in (Verdict.FAILURE, Verdict.SKIPPED):
                usable = False
            yield result
    except Stopping:
        raise
    except CertagentError as error:
        usable = False
        yield about.failure(error)
    except Exception as error:  # noqa: BLE001 - a bug in one check must not hide the others
        usable = False
        _log.exception("the check %s could not be completed", about.name)
        bug = CertagentError(
            f"This check met a bug in certagent ({type(error).__name__}).",
            hint="The traceback on stderr belongs into an issue.",
        )
        yield about.failure(bug)
    return usable
