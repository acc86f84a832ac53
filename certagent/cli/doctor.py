"""`certagent doctor`: what an agent of this configuration would meet, each finding with its fix.

It logs in and reads as an agent does, and gives the login back, also when it is stopped. It
publishes nothing, takes no lock and writes no file, so that it runs beside the agent of a pod as
well as on a laptop.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from contextlib import closing, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from certagent.cli.diagnosis import surroundings, volume
from certagent.cli.diagnosis.mounts import mounts
from certagent.cli.diagnosis.result import About, Verdict, attempt
from certagent.cli.options import add_configuration, add_format, configuration
from certagent.errors import ConfigurationError, Stopping
from certagent.runtime import logs
from certagent.runtime.concealment import concealed
from certagent.runtime.hardening import harden
from certagent.runtime.signals import Signals

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Generator, Iterator, Sequence

    from certagent.cli.diagnosis.mounts import Mount
    from certagent.cli.diagnosis.result import Result
    from certagent.config.model import BundleConfig, Config

_log = logging.getLogger("certagent.doctor")
_CONFIGURATION = About("configuration")
_CORRECT_IT = "Correct the file, or the variable; `certagent schema` tells what may be there."
_STOPPED = 128 + signal.SIGTERM
"""The exit code of a process that SIGTERM ended, as a shell has it."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.description = (
        "Look at everything that an agent of this configuration needs: credential, server, clock,"
        " login, permissions, history, the newest version, the output directory, what is published,"
        " istiod's switch, the probes' port. Nothing is changed: run it in the pod, beside the"
        " agent. Exit with the code of the first failure, 0 without one; warnings are none."
    )
    add_configuration(parser)
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show each result as it comes, or all of them as JSON.

    A stop waits for the request that is under way: a login whose token nobody has read yet could
    not be given back.
    """
    harden()
    shown: list[Result] = []
    # Closed whatever happens: a login is given back.
    with Signals() as signals, closing(_results(arguments, signals.stop_pending)) as results:
        with suppress(Stopping):
            for result in results:
                shown.append(result)
                if arguments.format == "text":
                    sys.stdout.write(_lines(result))
                    sys.stdout.flush()
                if signals.stop_pending():
                    break
        is_stopped = signals.stop_pending()
    if is_stopped:
        _log.error("stopped before everything was looked at")
        return _STOPPED
    code = next((each.exit_code for each in shown if each.verdict is Verdict.FAILURE), 0)
    sys.stdout.write(_summary(shown) if arguments.format == "text" else _json(shown, code))
    return code


def _results(arguments: argparse.Namespace, stopping: Callable[[], bool]) -> Generator[Result]:
    """Yield all results, in the order in which an agent meets what they are about."""
    try:
        config = configuration(arguments)
    except ConfigurationError as error:
        yield from _misconfigured(error)
        return
    # What an agent would log as a warning is a result here.
    logs.configure(config.log.format, "debug" if config.log.level == "debug" else "error")
    now, table = datetime.now(UTC), mounts()
    yield from attempt(_CONFIGURATION, _understood(config))
    if config.vault:
        from certagent.cli.diagnosis import vault  # noqa: PLC0415 - only for Vault

        yield from vault.results(config, now, table, stopping)
    if config.azure:
        from certagent.cli.diagnosis import azure  # noqa: PLC0415 - only for Azure

        yield from azure.results(config, now, table, stopping)
    for bundle in config.bundles:
        yield from _of_bundle(bundle, config, now, table)
    yield from attempt(surroundings.ISTIOD, surroundings.istiod(config, os.environ))
    yield from attempt(surroundings.PROBES, surroundings.probes(config))


def _misconfigured(error: ConfigurationError) -> Iterator[Result]:
    """Yield each fault of a configuration, since each has to be corrected."""
    for fault in error.faults or (error.message,):
        yield _CONFIGURATION.failure(ConfigurationError(fault, hint=error.hint or _CORRECT_IT))


def _understood(config: Config) -> Iterator[Result]:
    """Yield that the configuration is understood, also by those who follow publications."""
    asked = [bundle for bundle in config.bundles if bundle.hooks or bundle.confirm]
    if asked:
        from certagent.cli.following import followers  # noqa: PLC0415 - ssl, and threads

        for follower in followers(asked):
            follower.close()
    names = ", ".join(bundle.name for bundle in config.bundles)
    yield _CONFIGURATION.ok(f"It is understood; its bundles are {names}.")


def _of_bundle(
    bundle: BundleConfig, config: Config, now: datetime, table: Sequence[Mount]
) -> Iterator[Result]:
    """Yield what there is to say of a bundle's directories."""
    if bundle.source.files:
        from certagent.cli.diagnosis.material import stored  # noqa: PLC0415 - only for directories
        from certagent.cli.rules import kind  # noqa: PLC0415 - likewise
        from certagent.sources.files import DirectorySource  # noqa: PLC0415 - likewise

        source = DirectorySource(bundle.source.files.directory, kind(bundle.kind, bundle.usage))
        yield from attempt(About("read", bundle.name), stored(bundle, source, config, now))
    yield from volume.results(bundle, tuple(table))
    yield from attempt(About("published", bundle.name), volume.published(bundle, now))


def _lines(result: Result) -> str:
    """Return a result as a person reads it: what was found, and below it what to do."""
    what = f"{result.name} ({result.bundle})" if result.bundle else result.name
    lines = [f"{result.verdict:8} {what}: {_one_line(result.message)}"]
    if result.fix:
        lines.append(f"{'':8} fix: {_one_line(result.fix)}")
    return concealed("\n".join(lines)) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _summary(results: Sequence[Result]) -> str:
    """Return how many of each verdict there are: `9 ok, 1 warning, 2 skipped`."""
    counted = []
    for verdict in Verdict:
        count = sum(result.verdict is verdict for result in results)
        plural = "s" if count > 1 and verdict in (Verdict.WARNING, Verdict.FAILURE) else ""
        counted += [f"{count} {verdict}{plural}"] if count else []
    return ", ".join(counted) + "\n"


def _json(results: Sequence[Result], code: int) -> str:
    document = {"exitCode": code, "checks": [_object(each) for each in results]}
    return concealed(json.dumps(document, indent=2)) + "\n"


def _object(result: Result) -> dict[str, Any]:
    told = asdict(result)
    return {
        "name": told["name"],
        "bundle": told["bundle"],
        "verdict": told["verdict"].value,
        "message": _one_line(told["message"]),
        "fix": _one_line(told["fix"]),
        "exitCode": told["exit_code"],
    }
