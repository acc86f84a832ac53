"""`certagent`: finds the verb, runs it, and turns what it raises into a message and exit code."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from certagent import __version__
from certagent.errors import CertagentError, OutputError, UsageError
from certagent.runtime.loading import lean_msgspec, sparingly

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERBS: Mapping[str, str] = {
    "init": "publish once, then exit (init container)",
    "run": "publish, then poll and swap (sidecar, native sidecar)",
    "check": "would istiod, or a gateway, take this directory?",
    "status": "what is published: chain, roots, expiry, version",
    "doctor": "what an agent of this configuration would meet, each finding with its fix",
    "plan": "the timeline of phases that the history of a CA leads to",
    "push": "verify a set, show what it changes, and store it",
    "retire": "destroy superseded keys of a CA in the store, once nothing needs them",
    "ca": "make a mesh's root and intermediate CAs, as Istio's tools/certs does",
    "migrate": "from vault-agent's annotations to certagent's overlay",
    "overlay": "what Helm or kustomize needs to bring the agent into Istio's pods",
    "vault": "set up login, policy and role for each cluster, or print the commands",
    "demo": "a dev Vault, a mesh CA and a live rotation, on this machine",
    "schema": "the configuration's JSON schema",
}

EXIT_CODES = """\
exit codes:
  0 done   64 usage   65 material refused   66 no such secret
  69 store unreachable   70 a bug in certagent   73 cannot write the output
  77 login or permission refused   78 configuration
"""

_BUG = 70
_WIDTH = 80
"""Columns of the help."""

_CANNOT_WRITE = {errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT, errno.EFBIG}
_TAKES_SIGNALS = {"init", "run"}
"""The verbs that take signals when they are ready for them: see `runtime.signals`."""


class _Formatter(argparse.HelpFormatter):
    """Has a width of its own: argparse makes a formatter for each flag, and asks shutil for it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_WIDTH)


class _Verbatim(_Formatter, argparse.RawDescriptionHelpFormatter):
    """Leaves the lines of a description as they are."""


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would exit with 2, so that every error ends the same way."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": _Formatter, **options})

    def error(self, message: str) -> NoReturn:
        told = f"{message[:1].upper()}{message[1:]}"
        raise UsageError(f"{told.rstrip('.')}.", hint=f"See `{self.prog} --help`.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code that `certagent --help` names."""
    words = list(sys.argv[1:] if argv is None else argv)
    _prepare(words)
    try:
        with sparingly():
            lean_msgspec()
            _configure_log(words)
            parser = _parser(words)
        code = _outcome(parser, words)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last place to report it
        return _reported(error)
    return code


def _outcome(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Run the verb, or what argparse does itself: `--help` and `--version`."""
    try:
        arguments = parser.parse_args(words)
    except SystemExit as told:
        return int(told.code or 0)
    return int(arguments.run(arguments))


def _reported(error: BaseException) -> int:
    """Say what ended a verb, and return the exit code for it."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if isinstance(error, OSError) and error.errno in {errno.EPIPE, *_CANNOT_WRITE}:
        # What is still in the buffer must not be tried once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            return 128 + signal.SIGPIPE  # whoever read our output has seen enough
        error = OutputError(f"The output cannot be written: {error.strerror}.")
    from certagent.runtime.logs import fatal  # noqa: PLC0415 - only where something failed

    fatal(error)
    return error.exit_code if isinstance(error, CertagentError) else _BUG


def _prepare(words: Sequence[str]) -> None:
    """Make the process fit to run: streams that can be written to, and no signal that is missed."""
    if words and words[0] in _TAKES_SIGNALS:
        # From now on and not after the imports: PID 1 would never hear of a stop meanwhile.
        stops = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Closed: the next file that is opened must not become somebody's stderr.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - they stay open to the end
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - they stay open to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character must not fail a verb.
            stream.reconfigure(errors="backslashreplace")


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """Build the parser; of the verbs, only the one that is called for is imported."""
    parser = _Parser(
        prog="certagent",
        description="Brings a mesh's CA to istiod, and certificates to its gateways:\n"
        "verified, each set in one swap.",
        epilog=EXIT_CODES,
        formatter_class=_Verbatim,
    )
    parser.add_argument("--version", action="version", version=f"certagent {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, dest="verb")
    called = next((word for word in words if not word.startswith("-")), "")
    # A parser for each verb costs more than all of its work: the others are for `--help`.
    wanted = {called: VERBS[called]} if called in VERBS and words[0] == called else VERBS
    for verb, summary in wanted.items():
        verb_parser = verbs.add_parser(verb, help=summary, description=summary)
        if verb == called:
            module = importlib.import_module(f"certagent.cli.{verb}")
            module.configure(verb_parser)
            verb_parser.set_defaults(run=module.run)
    return parser


def _configure_log(words: Sequence[str]) -> None:
    """Set the log's format before anything can fail, so that with JSON every line is JSON.

    The flag is looked for by hand, because the parser itself may refuse the words.
    """
    format_ = os.environ.get("CERTAGENT_LOG_FORMAT", "")
    for index, word in enumerate(words):
        name, _, value = word.partition("=")
        if name == "--log-format":
            format_ = value or "".join(words[index + 1 : index + 2])
    if format_ == "json":
        from certagent.runtime.logs import configure  # noqa: PLC0415 - most verbs log nothing

        configure("json")
