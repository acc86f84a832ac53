"""Credentials that lie in files, and are read afresh whenever one is needed."""

from __future__ import annotations

import base64
import errno
import json
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from certagent.errors import AccessDenied

MAX_CREDENTIAL_BYTES = 64 << 10
"""A service-account token has some 1 to 2 kB; servers refuse requests with larger headers."""
ATTEMPTED_AGAIN = "It is read again at the next attempt."

_REMEDIES = {
    errno.ENOENT: "Mount it into this container, or correct the path.",
    errno.EACCES: "This container's user may not read it: set fsGroup, or the volume's mode.",
    errno.ENOTDIR: "A part of the path is a file: correct it.",
    errno.EISDIR: "Add the file's name, or mount its volume as it is, without subPath.",
}

_LONGEST_BARE_NAME = 16
"""Characters: longer than `secret-id` or `token.txt`, and shorter than any id of Vault's."""


def read_credential(path: str, what: str) -> str:
    """Read a credential of one line from its file, without the space around it.

    Raises `AccessDenied`, which is tried again, also where a file is not usable yet: kubelet
    projects a token, and an operator delivers a secret, at a time of their own.
    """
    data = read_credential_bytes(path, what)
    return one_line_credential(data.decode("ascii", "replace"), f"The {what} in {path}")


def read_credential_bytes(path: str, what: str) -> bytes:
    """Read what a file holds, as it is; raises `AccessDenied`."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib cannot read a bounded part
            data = file.read(MAX_CREDENTIAL_BYTES + 1)
    except OSError as error:
        message = f"The {what} in {_shown(path)} cannot be read: {error.strerror}."
        if _shown(path) != path:
            hint = f"Give the path of a file, not the {what} itself."
        else:
            hint = " ".join(filter(None, (_REMEDIES.get(error.errno or 0), ATTEMPTED_AGAIN)))
        raise AccessDenied(message, hint=hint) from error
    if len(data) > MAX_CREDENTIAL_BYTES:
        raise AccessDenied(f"The {what} in {path} is too large.", hint=ATTEMPTED_AGAIN)
    return data


def one_line_credential(text: str, what: str) -> str:
    """Return a credential without the space around it; raises `AccessDenied` unless it is one."""
    text = text.strip()
    if not text:
        raise AccessDenied(f"{what} is empty.", hint=ATTEMPTED_AGAIN)
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise AccessDenied(f"{what} is not one line of text.", hint=ATTEMPTED_AGAIN)
    return text


class Claims(Struct, frozen=True):
    """What a service-account token says of itself, and nobody has verified: for messages alone.

    `account` is `<namespace>/<name>`. The times are aware; None where the token has none.
    """

    account: str
    audiences: tuple[str, ...]
    issued: datetime | None
    expires: datetime | None


def claims_of(jwt: str) -> Claims:
    """Return a JWT's claims; `unknown` and `none` stand for those that it does not have."""
    told = _payload(jwt) or {}
    account = str(told.get("sub", "unknown")).removeprefix("system:serviceaccount:")
    audience = told.get("aud", "none")
    audiences = audience if isinstance(audience, list) else [audience]
    return Claims(
        account.replace(":", "/"),
        tuple(map(str, audiences)),
        _moment(told.get("iat")),
        _moment(told.get("exp")),
    )


def is_jwt(text: str) -> bool:
    """Say whether a text has the form of a JWT, and claims."""
    return _payload(text) is not None


def _payload(jwt: str) -> dict[str, Any] | None:
    payload = jwt.split(".")[1] if jwt.count(".") == 2 else ""  # noqa: PLR2004 - RFC 7515, 3.1
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def _moment(seconds: object) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC) if isinstance(seconds, int | float) else None
    except (ValueError, OverflowError, OSError):
        return None


def _shown(path: str) -> str:
    """Return a path, or the beginning of what seems to be a credential that was given for one."""
    return path if "/" in path or len(path) <= _LONGEST_BARE_NAME else f"{path[:4]}…"
