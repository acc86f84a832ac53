"""`certagent check DIR`: whether istiod or a gateway would take a directory, and work with it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from certagent.cli.options import add_format, add_kind, asked_kind
from certagent.cli.show import bundle_object, finding_lines, finding_object, kind_lines, tree
from certagent.errors import MaterialRefused
from certagent.material.kinds import CA
from certagent.sources.files import read_directory_parts

if TYPE_CHECKING:
    import argparse

    from certagent.material.finding import Finding
    from certagent.material.kinds import Kind
    from certagent.material.verification import VerifiedBundle


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.description = (
        "Judge the files of a directory as istiod would find them, and more strictly: a workload"
        " certificate signed with them must verify too. With --kind tls, as a gateway and its"
        " clients would: tls.crt, tls.key and perhaps ca.crt. Exit 0 when they are good, 65 when"
        " not."
    )
    parser.add_argument(
        "directory", metavar="DIR", help="as for ROOT_CA_DIR, or a gateway's directory"
    )
    add_kind(parser, "ca")
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show the verdict; raises what reading the directory raises."""
    now = datetime.now(UTC)
    kind = asked_kind(arguments) or CA
    verified = None
    try:
        verified = kind.verify(kind.decode(read_directory_parts(arguments.directory, kind)), now)
        findings = verified.warnings
    except MaterialRefused as refused:
        findings = refused.findings
    show = _json if arguments.format == "json" else _text
    sys.stdout.write(show(arguments.directory, kind, verified, findings, now))
    return 0 if verified else MaterialRefused.exit_code


def _text(
    directory: str,
    kind: Kind,
    verified: VerifiedBundle | None,
    findings: tuple[Finding, ...],
    now: datetime,
) -> str:
    verdict = (
        f"{kind.reader} would take this set" if verified else "REFUSED: this set would not work"
    )
    lines = [f"{directory}: {verdict}."]
    if verified:
        lines += [f"  {line}" for line in tree(kind, verified.bundle, verified.path, now)]
        lines.append(f"  sha256 {verified.bundle.certificate.fingerprint}")
    lines += [f"  {line}" for line in (*finding_lines(findings), *kind_lines(kind, findings))]
    return "\n".join(lines) + "\n"


def _json(
    directory: str,
    kind: Kind,
    verified: VerifiedBundle | None,
    findings: tuple[Finding, ...],
    now: datetime,  # noqa: ARG001 - the same shape as `_text`
) -> str:
    document = {
        "directory": directory,
        "kind": kind.name,
        "ok": verified is not None,
        "findings": [finding_object(finding) for finding in findings],
        **(bundle_object(verified.bundle) if verified else {}),
    }
    return json.dumps(document, indent=2) + "\n"
