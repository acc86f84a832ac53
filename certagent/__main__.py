"""The process that `certagent` and `python -m certagent` start."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn

from certagent.runtime.loading import sparingly


def command() -> NoReturn:
    """Run the verb of this process, and end it.

    At its end Python takes apart all that it has loaded, which is a twentieth of what an init
    container takes. The kernel does it at once.
    """
    with sparingly():
        from certagent.cli.main import main  # noqa: PLC0415 - argparse is the first to be spared
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # what can be done about it is done already
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    command()
