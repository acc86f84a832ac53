"""`certagent push SOURCE --from DIR|-`: verify a set, show what it changes, and store it.

The change stages itself afterwards: the agents plan by the store's history. So what this verb shows
is what they will do, decided by the same functions.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from certagent.chronicle import Chronicle, judge
from certagent.cli.kubesecret import read_secret
from certagent.cli.options import add_configuration, add_format
from certagent.cli.proposal import Proposal
from certagent.cli.show import (
    bundle_object,
    certificate_object,
    finding_lines,
    finding_object,
    phase_lines,
    phase_objects,
    tree,
)
from certagent.cli.stores import add_source, writable
from certagent.errors import MaterialRefused, OutputError, SecretNotFound
from certagent.material.bundle import KeyCertBundle
from certagent.material.finding import Severity
from certagent.material.roots import in_order
from certagent.runtime.logs import conceal
from certagent.sources import Revision
from certagent.sources.files import read_directory_parts

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from certagent.chronicle import Judged
    from certagent.cli.stores import WritablePlace
    from certagent.material.certificates import Certificate
    from certagent.material.finding import Finding
    from certagent.material.raw import RawBundle
    from certagent.material.verification import VerifiedBundle
    from certagent.sources.vault.writing import Stored

NEW = "new"
"""What a version is called that the store will not number."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.description = (
        "Verify a CA, show what would change in the store and in the mesh, and store it. Exit 0"
        " when it is stored, or was there already; 65 when it is refused; 73 when somebody stored"
        " another version meanwhile."
    )
    add_source(parser)
    parser.add_argument(
        "--from",
        dest="origin",
        metavar="DIR",
        required=True,
        help="the files, as for ROOT_CA_DIR; `-`: a Kubernetes Secret on standard input",
    )
    parser.add_argument("--dry-run", action="store_true", help="show everything, store nothing")
    parser.add_argument(
        "--rollback", action="store_true", help="the set may be older than the one in the store"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="although roots or versions go that a change of roots may still need",
    )
    add_configuration(parser)
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    """Judge, show, store and confirm; raises what the store raises."""
    now = datetime.now(UTC)
    raw = _material(arguments.origin)
    with writable(arguments) as place:
        judged = judge(Revision(NEW, now, lambda: raw), now, place.pins)
        if judged.revision is None or judged.bundle is None:
            return _refused(arguments, judged.findings)
        before = place.source.read()
        proposal = _proposal(place, before, judged, now)
        findings = proposal.findings(force=arguments.force, rollback=arguments.rollback)
        wanted = place.source.fields(judged.bundle.bundle.canonical(), before)
        change = _Change(place.source.name, proposal, findings, _field_changes(before, wanted))
        show = _Json(change) if arguments.format == "json" else _Text(change)
        if any(finding.severity is Severity.ERROR for finding in findings):
            show.end("REFUSED: nothing was stored")
            return MaterialRefused.exit_code
        if proposal.is_identical:
            show.end("the store holds this set already: nothing was stored")
        elif arguments.dry_run:
            show.end("nothing was stored (--dry-run)")
        else:
            version = _store(place, before, wanted, judged.bundle)
            name = f"version {version}" if version else "the set"
            show.end(f"{name} is stored, and was read back", version=version or NEW)
    return 0


@dataclass(frozen=True, slots=True)
class _Change:
    """A push before its end: what is shown of it; `fields` says what becomes of each."""

    name: str
    proposal: Proposal
    findings: tuple[Finding, ...]
    fields: Mapping[str, str]

    @property
    def added(self) -> list[Certificate]:
        """The roots that the newest good set does not list."""
        known = self._known
        return [root for root in in_order(self.proposal.new.roots) if root not in known]

    @property
    def removed(self) -> list[Certificate]:
        """The roots that the newest good set lists, and this one does not."""
        return [root for root in in_order(self._known) if root not in self.proposal.new.roots]

    @property
    def _known(self) -> frozenset[Certificate]:
        newest = self.proposal.newest_good
        return newest.roots if newest else frozenset()

    @property
    def previous(self) -> str:
        """The newest version in the store; empty where there is none."""
        entries = self.proposal.entries
        return entries[0].version if entries else ""

    def published_until(self, root: Certificate) -> str:
        """Say how long the agents will publish a root that is removed."""
        for when, step in self.proposal.phases():
            if root not in step.roots:
                soon = when <= self.proposal.now
                return "goes at once" if soon else f"is published until {when:%FT%TZ}"
        return "stays published"


class _Text:
    """Shows a change for reading: all of it before it is stored, because storing may fail."""

    def __init__(self, change: _Change) -> None:
        self._name = change.name
        sys.stdout.write("\n".join(_lines(change)) + "\n")
        sys.stdout.flush()

    def end(self, outcome: str, *, version: str = "") -> None:  # noqa: ARG002 - as `_Json.end`
        sys.stdout.write(f"{self._name}: {outcome}.\n")


class _Json:
    """Shows a change for a program: one object, at its end."""

    def __init__(self, change: _Change) -> None:
        self._change = change

    def end(self, outcome: str, *, version: str = "") -> None:
        document = _document(self._change) | {"stored": bool(version), "outcome": outcome}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _lines(change: _Change) -> Iterator[str]:
    proposal, verified = change.proposal, change.proposal.new.bundle
    assert verified is not None  # noqa: S101 - a proposal is of a good set
    yield f"{change.name}: version {change.previous or 'none'} -> {proposal.new.version}"
    yield from (f"  {line}" for line in tree(verified.bundle, verified.path, proposal.now))
    yield f"  sha256  {verified.bundle.fingerprint}"
    for root in change.added:
        yield f"  + root  {root.subject}  sha256 {root.fingerprint}"
    for root in change.removed:
        fate = change.published_until(root)
        yield f"  - root  {root.subject}  sha256 {root.fingerprint}  {fate}"
    told = ", ".join(f"{name} {what}" for name, what in change.fields.items())
    yield f"  fields  {told}"
    yield "  phases, if nobody pushes meanwhile:"
    yield from (f"    {line}" for line in phase_lines(proposal.phases()))
    yield from (f"  {line}" for line in finding_lines(change.findings))


def _document(change: _Change) -> dict[str, Any]:
    proposal, verified = change.proposal, change.proposal.new.bundle
    assert verified is not None  # noqa: S101 - a proposal is of a good set
    return {
        "source": change.name,
        "previous": change.previous or None,
        "version": proposal.new.version,
        **bundle_object(verified.bundle),
        "rootsAdded": [certificate_object(root) for root in change.added],
        "rootsRemoved": [certificate_object(root) for root in change.removed],
        "fields": dict(change.fields),
        "phases": phase_objects(proposal.phases()),
        "findings": [finding_object(finding) for finding in change.findings],
    }


def _material(origin: str) -> RawBundle:
    return read_secret(sys.stdin.buffer) if origin == "-" else read_directory_parts(origin)


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
    chronicle = Chronicle(place.source, place.policy, place.pins)
    try:
        chronicle.read(now)
    except SecretNotFound:
        if before.version or before.fields:
            raise
    if place.source.engine == 1:
        return Proposal(
            judged.revision,
            chronicle.entries,
            now,
            place.policy,
            remembers=False,
            notes=judged.findings,
        )
    newest = chronicle.entries[0].version if chronicle.entries else "0"
    if newest != str(before.version):
        raise place.source.conflict(newest)
    return Proposal(
        replace(judged.revision, version=str(before.version + 1)),
        chronicle.entries,
        now,
        place.policy,
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
    found = KeyCertBundle.decode(place.source.load(version))
    if found.canonical() != verified.bundle.canonical():
        raise OutputError(
            f"{place.source.name} does not hold what was stored.",
            hint="Somebody stored another set at the same moment? Look at it, and push again.",
        )
    return version
