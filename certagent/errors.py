"""What can go wrong, as one tree; each branch is an exit code and says whether waiting may help.

    CertagentError              70  a bug in certagent
    +-- UsageError              64  the command line cannot be understood
    +-- MaterialRefused         65  the material is there, and would break the mesh
    +-- PublicationHeld         65  the material is good, and must not be published now
    +-- SecretNotFound          66  the store has no such secret, or it was withdrawn
    +-- SourceUnavailable       69  the store cannot be reached, or is not able to answer
    |   +-- Stopping                (it was not asked, because the process is to end)
    +-- OutputError             73  the output directory cannot be written, or must not be
    +-- AccessDenied            77  the store refused the login, or the read
    +-- ConfigurationError      78  the configuration is wrong, each fault in a line of its own

The codes are those of sysexits.h. `transient` errors are tried again, by `run` for ever and by
`init` until its deadline; the others end a process at its start. A message has at most three lines:
what happened, the likely cause, what to do. No error carries a key, a token or a secret's value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from certagent.material.finding import Finding

LONGEST_LINE = 400
"""Characters of a line of a message that quotes what somebody else wrote."""


def one_line(text: str, longest: int = LONGEST_LINE) -> str:
    """Return foreign text as a message may quote it: one line, printable, cut short."""
    start = text[: longest + 1]  # nothing of the rest is shown
    shown = "".join(each if each.isprintable() else repr(each)[1:-1] for each in start)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


class CertagentError(Exception):
    """The root of all errors that certagent raises on purpose.

    `message` says what happened, `hint` the likely cause and what to do about it.
    """

    exit_code: ClassVar[int] = 70
    transient: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return the message and, in lines of its own, the hint."""
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(CertagentError):
    """The command line cannot be understood."""

    exit_code = 64


class MaterialRefused(CertagentError):
    """The material would not work; `findings` lists every reason, errors first."""

    exit_code = 65
    transient = True

    def __init__(self, message: str, findings: tuple[Finding, ...], *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.findings = findings


class PublicationHeld(CertagentError):
    """The material is good, and publishing it now would do harm: what is published stays."""

    exit_code = 65
    transient = True


class SecretNotFound(CertagentError):
    """The store answered that it has no such secret, or that its newest version was withdrawn."""

    exit_code = 66
    transient = True


class SourceUnavailable(CertagentError):
    """The store cannot be reached, or is not able to answer now.

    `retry_after` is what the store asked for, in seconds, or None.
    """

    exit_code = 69
    transient = True

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class Stopping(SourceUnavailable):
    """The process is to end, so the store is asked nothing more; that is no fault of anybody's."""


class OutputError(CertagentError):
    """The output directory cannot be written, or is not what it must be."""

    exit_code = 73
    transient = True


class AccessDenied(CertagentError):
    """The store refused the login or the read.

    Transient, because Vault answers 403 also while its token reviewer is unreachable, and because
    a role or a policy is often created minutes after the pod that needs it.
    """

    exit_code = 77
    transient = True


class ConfigurationError(CertagentError):
    """The configuration is wrong; `faults` lists every fault, each with the path of its key.

    `log_format` is what it asks for, as far as it can be read: its faults are told so.
    """

    exit_code = 78

    def __init__(
        self,
        message: str,
        faults: tuple[str, ...] = (),
        *,
        hint: str = "",
        log_format: Literal["text", "json"] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.faults = tuple(map(one_line, faults))
        self.log_format = log_format

    def __str__(self) -> str:
        """Return the message, each fault in a line of its own, and the hint."""
        lines = [self.message, *(f"  {fault}" for fault in self.faults)]
        return "\n".join([*lines, self.hint] if self.hint else lines)
