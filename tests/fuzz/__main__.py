"""One target under atheris, which finds by coverage what to try next: `python -m tests.fuzz pem`.

The options after it are libFuzzer's. What it finds worth keeping goes into a temporary directory,
which is named at the start; what breaks something is written to `crash-…` beside it, and belongs
into the corpus. The tests do without atheris.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.fuzz.judging import CORPUS


def main() -> None:
    target, *options = sys.argv[1:] or ["-"]
    if not (CORPUS / target).is_dir():
        sys.exit(
            f"usage: python -m tests.fuzz {{{','.join(sorted(p.name for p in CORPUS.iterdir()))}}}"
        )
    import atheris  # noqa: PLC0415 - a tool of whoever runs this, no dependency

    with atheris.instrument_imports(include=["certagent", "yaml"]):
        module = importlib.import_module(f"tests.fuzz.test_{target}")
    found = Path(tempfile.mkdtemp(prefix=f"fuzz-{target}-"))
    sys.stderr.write(f"New inputs are kept in {found}\n")
    arguments = [
        sys.argv[0],
        *options,
        f"-artifact_prefix={found}/",
        str(found),
        str(CORPUS / target),
    ]
    for number, data in enumerate(module.examples()):
        (found / f"example-{number}").write_bytes(data)
    with ExitStack() as stack:
        attempt = module.attempt
        if target == "vault":  # it asks a server
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            attempt = partial(attempt, tried=stack.enter_context(module.vault(folder)))
        atheris.Setup(arguments, attempt)
        atheris.Fuzz()


main()
