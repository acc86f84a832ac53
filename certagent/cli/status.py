"""`certagent status`: what is published, read from the directories alone."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from certagent.cli.options import (
    add_configuration,
    add_format,
    add_kind,
    asked_kind,
    configuration,
)
from certagent.cli.rules import kind as kind_of
from certagent.cli.show import (
    bundle_object,
    days_left,
    finding_lines,
    finding_object,
    kind_lines,
    tree,
)
from certagent.errors import CertagentError, MaterialRefused, SecretNotFound
from certagent.material.kinds import CA
from certagent.material.raw import TLS_FILES
from certagent.sinks.reading import read_directory
from certagent.sources.files import read_directory_parts

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from certagent.material.kinds import Kind
    from certagent.material.leaf import Usage
    from certagent.sinks import Snapshot


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.description = (
        "Show what is published in a directory, or in every directory of a configuration: chain,"
        " roots, expiry, version. Exit 0 when all of it is good, 66 when nothing is published,"
        " 65 when what is there would be refused."
    )
    parser.add_argument("directory", metavar="DIR", nargs="?", help="default: ROOT_CA_DIR")
    add_kind(parser, "what the configuration or the published set says, else ca")
    add_configuration(parser)
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show every directory; the exit code is that of the first that is not good."""
    now = datetime.now(UTC)
    reports = [_report(*which, now) for which in _directories(arguments)]
    if arguments.format == "json":
        shown = [{key: report[key] for key in report if key != "lines"} for report in reports]
        sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(line for report in reports for line in report["lines"]) + "\n")
    return next((int(report["exitCode"]) for report in reports if report["exitCode"]), 0)


def _directories(arguments: argparse.Namespace) -> Iterator[tuple[str, str, Kind | None]]:
    """Yield the bundles to show: name, directory and kind, as far as they are known."""
    directory = arguments.directory or (not arguments.config and os.environ.get("ROOT_CA_DIR"))
    if directory:
        yield "", directory, asked_kind(arguments)
        return
    for bundle in configuration(arguments).bundles:
        yield bundle.name, bundle.output.directory, kind_of(bundle.kind, bundle.usage)


def _published_kind(snapshot: Snapshot | None) -> Kind:
    """Return the kind of a published set, by the names of its files and its record."""
    if snapshot is None or TLS_FILES["certificate"] not in snapshot.files:
        return CA
    return kind_of("tls", _USAGES.get(snapshot.record.get("usage", ""), "server"))


def _report(name: str, directory: str, kind: Kind | None, now: datetime) -> dict[str, Any]:
    """Return what there is to say about one directory: for a program, and as `lines`."""
    report: dict[str, Any] = {"name": name, "directory": directory, "exitCode": 0}
    heading = f"{name}: {directory}" if name else directory
    try:
        snapshot = read_directory(directory)
        kind = kind or _published_kind(snapshot)
        report["kind"] = kind.name
        if snapshot:
            report |= dict(snapshot.record)
            report["publishedAt"] = f"{snapshot.published_at:%FT%TZ}"
            # What belongs to the record, also where the set is swapped meanwhile.
            bundle = kind.bundle_of(snapshot.files)
        else:
            bundle = kind.decode(read_directory_parts(directory, kind))
        report |= bundle_object(bundle)
        verified = kind.verify(bundle, now)
    except MaterialRefused as refused:
        report |= {
            "exitCode": refused.exit_code,
            "findings": [finding_object(finding) for finding in refused.findings],
        }
        asked_instead = kind_lines(kind or CA, refused.findings)
        lines = [
            f"{heading}: REFUSED",
            *_indented(finding_lines(refused.findings)),
            *_indented(asked_instead),
        ]
    except SecretNotFound as missing:
        report |= {"exitCode": missing.exit_code, "error": missing.message}
        lines = [f"{heading}: nothing is published", f"  {missing.message}"]
    except CertagentError as error:
        report |= {"exitCode": error.exit_code, "error": error.message}
        lines = [f"{heading}: {error.message}", f"  {error.hint}"]
    else:
        report["findings"] = [finding_object(finding) for finding in verified.warnings]
        lines = [
            f"{heading}: good, {days_left(verified.not_after, now)}",
            *_indented(tree(kind, bundle, verified.path, now)),
            f"  sha256   {bundle.certificate.fingerprint}",
            f"  serial   {bundle.certificate.serial}",
            *(f"  {label:8} {report[key]}" for label, key in _RECORD if key in report),
            *_indented(finding_lines(verified.warnings)),
        ]
    return report | {"lines": lines}


_USAGES: Mapping[str, Usage] = {"client": "client", "both": "both"}
_RECORD = (("version", "version"), ("source", "source"), ("since", "publishedAt"))


def _indented(lines: Iterator[str]) -> list[str]:
    return [f"  {line}" for line in lines]
