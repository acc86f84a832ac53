"""`certagent plan`: the phases that the present history leads to; nothing is written."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from certagent.chronicle import Chronicle
from certagent.cli.options import add_configuration, add_format
from certagent.cli.show import finding_object, phase_lines, phase_objects, short, windows
from certagent.cli.stores import readable
from certagent.errors import UsageError
from certagent.material.rotation import forecast

if TYPE_CHECKING:
    from certagent.chronicle import Judged
    from certagent.cli.proposal import Step
    from certagent.cli.stores import Place


@dataclass(frozen=True, slots=True)
class _Outlook:
    """One source: what it holds, oldest first, and what follows from it."""

    place: Place
    entries: tuple[Judged, ...]
    phases: tuple[Step, ...]
    is_cut: bool


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.description = (
        "Print the history of each CA, and when the agents will publish what if nobody pushes:"
        " decided by the function that they decide by. Nothing is published. A gateway's"
        " certificate has no phases: its newest version is served."
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="vault:<mount>/<path>, azure:<vault name>[/<secret>] or file:<directory>; default: the"
        " CAs of the configuration",
    )
    parser.add_argument(
        "--at",
        type=_moment,
        metavar="TIME",
        help="as of this time (RFC 3339, 2026-07-01T12:00:00Z), of the versions stored by then",
    )
    add_configuration(parser)
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show every source; raises what reading it raises."""
    at: datetime = arguments.at or datetime.now(UTC)
    with readable(arguments) as places:
        outlooks = [_outlook(place, at) for place in places if place.kind.is_ca]
    if not outlooks:
        raise UsageError(
            "There is no CA to plan for: bundles of kind tls have no phases.",
            hint="Of those, the newest version is served; `certagent status` shows which it is.",
        )
    if arguments.format == "json":
        sys.stdout.write(json.dumps([_object(each) for each in outlooks], indent=2) + "\n")
    else:
        sys.stdout.write("\n".join("\n".join(_lines(each)) for each in outlooks) + "\n")
    return 0


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        in_utc = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time as 2026-07-01T12:00:00Z"
        ) from None
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no time zone; end it with Z for UTC")
    return in_utc


def _outlook(place: Place, at: datetime) -> _Outlook:
    chronicle = Chronicle(place.source, place.policy, place.pins)
    chronicle.read(at)
    entries = tuple(
        each
        for each in reversed(chronicle.entries)
        if each.created_at is None or each.created_at <= at
    )
    history = [each.revision for each in entries if each.revision]
    phases = tuple(forecast(history, at, place.policy))
    return _Outlook(place, entries, phases, chronicle.is_cut)


def _lines(outlook: _Outlook) -> list[str]:
    name = outlook.place.name
    lines = [f"{name}: {outlook.place.source.name}" if name else outlook.place.source.name]
    lines += [f"  {_entry(each)}" for each in outlook.entries]
    if outlook.is_cut:
        lines.append("  older versions are missing: what they signed is not known")
    lines.append(f"  phases, if nobody pushes ({windows(outlook.place.policy)}):")
    return [*lines, *(f"    {line}" for line in phase_lines(outlook.phases))]


def _entry(judged: Judged) -> str:
    stored = f"{judged.created_at:%FT%TZ}" if judged.created_at else "at an unknown time"
    told = f"version {judged.version}  {stored}"
    if judged.withdrawn:
        return f"{told}  {judged.withdrawn}"
    if judged.bundle is None:
        first = judged.findings[0]
        return f"{told}  REFUSED {first.code} ({first.part}): {first.message}"
    bundle = judged.bundle.bundle
    return f"{told}  {bundle.certificate.subject}  roots {short(bundle.roots)}"


def _object(outlook: _Outlook) -> dict[str, Any]:
    return {
        "name": outlook.place.name,
        "source": outlook.place.source.name,
        "cut": outlook.is_cut,
        "history": [_history_object(each) for each in outlook.entries],
        "phases": phase_objects(outlook.phases),
    }


def _history_object(judged: Judged) -> dict[str, Any]:
    bundle = judged.bundle.bundle if judged.bundle else None
    return {
        "version": judged.version,
        "storedAt": f"{judged.created_at:%FT%TZ}" if judged.created_at else None,
        "good": bundle is not None,
        "subject": bundle.certificate.subject if bundle else None,
        "sha256": bundle.certificate.fingerprint if bundle else None,
        "roots": [root.fingerprint for root in bundle.roots] if bundle else [],
        "withdrawn": judged.withdrawn,
        "findings": [finding_object(finding) for finding in judged.findings],
    }
