"""What no output of the process may contain: the secrets that it holds at the moment."""

from __future__ import annotations

import re
import threading

CONCEALED = "[concealed]"
"""What stands in the place of a secret."""

SHORTEST_SECRET = 8
"""Characters of the shortest value that is concealed.

A shorter one (the token `root` of a dev server) is no secret, and would black out the log.
"""

MOST_SECRETS = 64
"""How many secrets are remembered: the last ones, because tokens are replaced for ever."""

_SHAPES = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<![\w-])hv[sbr]\.[\w-]{20,}"
    r"|(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",
    re.DOTALL,
)
"""Private keys in PEM, tokens of Vault, JWTs: known by sight, should one not be registered.

A match starts where a word does, so that the time for hostile text is linear in its length.
"""

_secrets: tuple[str, ...] = ()
_registering = threading.Lock()


def conceal(secret: str | bytes) -> None:
    """Keep a secret out of every line from now on, unless it is under `SHORTEST_SECRET`."""
    global _secrets  # noqa: PLW0603 - what a process must not say belongs to the process
    text = secret.decode("utf-8", "backslashreplace") if isinstance(secret, bytes) else secret
    text = text.strip()
    if len(text) < SHORTEST_SECRET:
        return
    with _registering:
        # Readers take the tuple as it is, so that writing a line needs no lock.
        others = [known for known in _secrets if known != text]
        _secrets = (*others, text)[-MOST_SECRETS:]


def concealed(text: str) -> str:
    """Return `text` with every known secret in it replaced, also as `repr` would write it."""
    # The longest first: another that is a part of it would leave the rest of it standing.
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, CONCEALED).replace(repr(secret)[1:-1], CONCEALED)
    return _SHAPES.sub(CONCEALED, text)
