"""The two layouts of a published directory, as far as its readers must know them.

For istiod, `..data` leads to `..<stamp>`, and `ca-key.pem` beside it to `..data/ca-key.pem`; what
the kubelet and CSI drivers mount looks the same, with stamps of their own. For gateways, `current`
leads to `v<N>`, and the files have no names beside it.
"""

from __future__ import annotations

import errno
import os
import re
from typing import NamedTuple

DATA = "..data"
CURRENT = "current"

NUMBERED = re.compile(r"v[1-9][0-9]{0,17}")
"""The names of the gateway layout's version directories."""


class Present(NamedTuple):
    """The link to the present set, and the version directory that it led to."""

    link: str
    version: str


def present(directory: int) -> Present | None:
    """Return where the present set of a directory is, or None where it has neither layout.

    A `current` that leads anywhere but to a `v<N>` beside it is somebody else's. Who has read a set
    asks again: the same answer means that nothing was swapped meanwhile, since no version's name is
    used twice. Raises `OSError`.
    """
    if version := target(DATA, directory):
        return Present(DATA, version)
    if NUMBERED.fullmatch(version := target(CURRENT, directory) or ""):
        return Present(CURRENT, version)
    return None


def target(name: str, directory: int) -> str | None:
    """Return where a link leads, an empty text for what is no link, None for nothing."""
    try:
        return os.readlink(name, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return ""
