"""How a push looks: what it changes in the store and in the mesh, for reading and for programs."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from certagent.cli.show import (
    bundle_object,
    certificate_object,
    finding_lines,
    finding_object,
    phase_lines,
    phase_objects,
    tree,
    windows,
)
from certagent.material.roots import in_order

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from certagent.cli.proposal import Proposal
    from certagent.material.certificates import Certificate
    from certagent.material.finding import Finding


@dataclass(frozen=True, slots=True)
class Change:
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
        if not self.proposal.kind.is_ca:
            return "goes at once"
        for when, step in self.proposal.phases():
            if root not in step.roots:
                soon = when <= self.proposal.now
                return "goes at once" if soon else f"is published until {when:%FT%TZ}"
        return "stays published"


class TextReport:
    """Shows a change for reading: all of it before it is stored, because storing may fail."""

    def __init__(self, change: Change) -> None:
        self._name = change.name
        sys.stdout.write("\n".join(_lines(change)) + "\n")
        sys.stdout.flush()

    def end(self, outcome: str, *, stored: bool) -> None:  # noqa: ARG002 - as `JsonReport.end`
        """Say how it ended."""
        sys.stdout.write(f"{self._name}: {outcome}.\n")


class JsonReport:
    """Shows a change for a program: one object, at its end."""

    def __init__(self, change: Change) -> None:
        self._change = change

    def end(self, outcome: str, *, stored: bool) -> None:
        """Show it, and how it ended."""
        document = _document(self._change) | {"stored": stored, "outcome": outcome}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _lines(change: Change) -> Iterator[str]:
    proposal, verified = change.proposal, change.proposal.new.bundle
    assert verified is not None  # noqa: S101 - a proposal is of a good set
    yield f"{change.name}: version {change.previous or 'none'} -> {proposal.new.version}"
    yield from (
        f"  {line}" for line in tree(proposal.kind, verified.bundle, verified.path, proposal.now)
    )
    yield f"  sha256  {verified.bundle.certificate.fingerprint}"
    for root in change.added:
        yield f"  + root  {root.subject}  sha256 {root.fingerprint}"
    for root in change.removed:
        fate = change.published_until(root)
        yield f"  - root  {root.subject}  sha256 {root.fingerprint}  {fate}"
    told = ", ".join(f"{name} {what}" for name, what in change.fields.items())
    yield f"  fields  {told}"
    if proposal.kind.is_ca:
        yield f"  phases, if nobody pushes meanwhile ({windows(proposal.policy)}):"
        yield from (f"    {line}" for line in phase_lines(proposal.phases()))
    else:
        yield f"  served from {max(proposal.now, proposal.new.start):%FT%TZ}, at each agent's poll"
    yield from (f"  {line}" for line in finding_lines(change.findings))


def _document(change: Change) -> dict[str, Any]:
    proposal, verified = change.proposal, change.proposal.new.bundle
    assert verified is not None  # noqa: S101 - a proposal is of a good set
    return {
        "source": change.name,
        "previous": change.previous or None,
        "version": proposal.new.version,
        "kind": proposal.kind.name,
        **bundle_object(verified.bundle),
        "rootsAdded": [certificate_object(root) for root in change.added],
        "rootsRemoved": [certificate_object(root) for root in change.removed],
        "fields": dict(change.fields),
        "phases": phase_objects(proposal.phases()),
        "findings": [finding_object(finding) for finding in change.findings],
    }
