"""What verification has to say about a bundle."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Severity(StrEnum):
    """Whether a finding refuses a bundle or is only shown."""

    ERROR = "error"
    WARNING = "warning"


class Finding(Struct, frozen=True):
    """One reason why a bundle would break a mesh (an error), or may one day (a warning).

    `code` is stable: metrics, tests and runbooks name it. `part` is the part of the bundle that it
    is about (`private_key`, `certificate`, `chain`, `roots`, `crls`). `subject` (RFC 4514) and
    `fingerprint` (SHA-256 of the DER, lower-case hex) name the certificate, where there is one.
    """

    code: str
    severity: Severity
    part: str
    message: str
    hint: str
    subject: str = ""
    fingerprint: str = ""
