"""`certagent push SOURCE --from DIR|-`: verify a set, show what it changes, and store it.

The change stages itself afterwards: the agents plan by the store's history. So what this verb shows
is what they will do, decided by the same functions.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from certagent.chronicle import Chronicle, judge
from certagent.cli.change import Change, JsonReport, TextReport
from certagent.cli.kubesecret import read_secret
from certagent.cli.options import add_configuration, add_format, add_kind
from certagent.cli.proposal import Proposal
from certagent.cli.show import finding_lines, finding_object
from certagent.cli.stores import add_source, writable
from certagent.errors import MaterialRefused, OutputError, SecretNotFound, UsageError
from certagent.material.finding import Severity
from certagent.runtime.logs import conceal
from certagent.sources import Revision
from certagent.sources.files import read_directory_parts
from certagent.sources.writing import NEW

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from certagent.chronicle import Judged
    from certagent.cli.stores import WritablePlace
    from certagent.material.finding import Finding
    from certagent.material.kinds import Kind
    from certagent.material.raw import RawBundle
    from certagent.material.verification import VerifiedBundle
    from certagent.sources.writing import Stored


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.description = (
        "Verify a CA, or a gateway's certificate (--kind tls), show what would change in the store"
        " and in the mesh, and store it. Exit 0"
        " when it is stored, or was there already; 65 when it is refused; 73 when somebody stored"
        " another version meanwhile."
    )
    add_source(parser, "vault:<mount>/<path> or azure:<vault name>[/<secret>]")
    parser.add_argument(
        "--from",
        dest="origin",
        metavar="DIR",
        required=True,
        help="the files, as for ROOT_CA_DIR or as a gateway reads them; `-`: a Kubernetes Secret on"
        " standard input",
    )
    add_kind(parser, "what the configuration says of SOURCE, else ca")
    parser.add_argument("--dry-run", action="store_true", help="show everything, store nothing")
    parser.add_argument(
        "--rollback", action="store_true", help="the set may be older than the one in the store"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="although roots, versions or lists are missing that a change of roots needs",
    )
    add_configuration(parser)
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    """Judge, show, store and confirm; raises what the store raises."""
    now = datetime.now(UTC)
    with writable(arguments) as place:
        raw = _material(arguments.origin, place.kind)
        judged = judge(Revision(NEW, now, lambda: raw), now, place.pins, place.kind)
        if judged.revision is None or judged.bundle is None:
            return _refused(arguments, judged.findings)
        before = place.source.read()
        proposal = _proposal(place, before, judged, now)
        findings = proposal.findings(force=arguments.force, rollback=arguments.rollback)
        wanted = place.source.fields(judged.bundle.bundle.canonical(), before)
        change = Change(place.source.name, proposal, findings, _field_changes(before, wanted))
        show = JsonReport(change) if arguments.format == "json" else TextReport(change)
        if any(finding.severity is Severity.ERROR for finding in findings):
            show.end("REFUSED: nothing was stored", stored=False)
            return MaterialRefused.exit_code
        if proposal.is_identical:
            show.end("the store holds this set already, nothing was stored", stored=False)
        elif arguments.dry_run:
            show.end("nothing was stored (--dry-run)", stored=False)
        else:
            version = _store(place, before, wanted, judged.bundle)
            name = f"version {version}" if version else "the set"
            show.end(f"{name} is stored, and was read back", stored=True)
    return 0


def _material(origin: str, kind: Kind) -> RawBundle:
    if origin != "-":
        return read_directory_parts(origin, kind)
    if sys.stdin is None:
        raise UsageError(
            "Standard input is closed.",
            hint="Pipe a Secret in: `kubectl get secret -n istio-system cacerts -o json | …`.",
        )
    return read_secret(sys.stdin.buffer, kind)


def _refused(arguments: argparse.Namespace, findings: tuple[Finding, ...]) -> int:
    """Show why a set would not work, as `check` does."""
    outcome = "REFUSED: this set would not work, nothing was stored"
    if arguments.format == "json":
        told = [finding_object(finding) for finding in findings]
        document = {"source": arguments.source, "findings": told, "stored": False}
        sys.stdout.write(json.dumps(document | {"outcome": outcome}, indent=2) + "\n")
    else:
        lines = "\n".join(f"  {line}" for line in finding_lines(findings))
        sys.stdout.write(f"{arguments.source}: {outcome}.\n{lines}\n")
    return MaterialRefused.exit_code


def _proposal(place: WritablePlace, before: Stored, judged: Judged, now: datetime) -> Proposal:
    """Read the history that the set would follow."""
    assert judged.revision  # noqa: S101 - a refused one is proposed to nobody
    chronicle = Chronicle(place.source, place.policy, place.pins, place.kind)
    with suppress(SecretNotFound):  # the first set of a secret
        chronicle.read(now)
    newest = chronicle.entries[0].version if chronicle.entries else ""
    if place.source.keeps_history and newest != before.version:
        raise place.source.conflict(newest)
    return Proposal(
        replace(judged.revision, version=before.following),
        chronicle.entries,
        now,
        place.policy,
        kind=place.kind,
        remembers=place.source.keeps_history,
        is_cut=chronicle.is_cut and bool(chronicle.entries),
        retention=place.source.retention(),
        notes=judged.findings,
    )


def _field_changes(before: Stored, wanted: Mapping[str, object]) -> dict[str, str]:
    """Say of each field what becomes of it, never what is in it."""

    def becomes(name: str) -> str:
        if name not in before.fields:
            return "added"
        if name not in wanted:
            return "removed"
        return "kept" if before.fields[name] == wanted[name] else "changed"

    return {name: becomes(name) for name in sorted(before.fields.keys() | wanted.keys())}


def _store(
    place: WritablePlace, before: Stored, wanted: Mapping[str, object], verified: VerifiedBundle
) -> str:
    """Store the fields and return the version, once it has been read back."""
    for value in wanted.values():
        conceal(str(value))
    version = place.source.write(wanted, before)
    found = place.kind.decode(place.source.load(version))
    if found.canonical() != verified.bundle.canonical():
        raise OutputError(
            f"{place.source.name} does not hold what was stored.",
            hint="Somebody stored another set at the same moment? Look at it, and push again.",
        )
    return version
