"""`certagent ca root|intermediate`: a mesh's CAs, as Istio's tools/certs makes them.

Every set is verified as istiod would verify it before its first file is written. Existing files are
replaced only with `--force`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certagent.cli.newfiles import NewFile, refuse_existing, write
from certagent.cli.options import add_format
from certagent.cli.show import certificate_object, days_left, finding_lines, finding_object
from certagent.errors import AccessDenied, MaterialRefused, SecretNotFound, UsageError
from certagent.material import issuing
from certagent.material.bundle import KeyCertBundle
from certagent.material.issuing import Authority, KeyType, Validity
from certagent.material.raw import CA_FILES, MAX_PART_BYTES, RawBundle
from certagent.material.verification import VerifiedBundle, verify

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT_KEY, ROOT_CERT = "root-key.pem", "root-cert.pem"
"""As Makefile.selfsigned.mk names them."""

_CLUSTER = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LONGEST = 100 * 365  # days
_SET_FILES = {part: name for part, name in CA_FILES.items() if part != "crls"}


@dataclass(frozen=True, slots=True)
class _Made:
    """A CA that was made: what it is called, its files, and what verification says about it."""

    name: str
    files: tuple[NewFile, ...]
    verified: VerifiedBundle
    clamped: bool = False


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the two things that can be made, each with its arguments."""
    parser.description = (
        "Make the CAs of a mesh with the profiles of Istio's tools/certs: one root, and under it"
        " one intermediate for each cluster."
    )
    kinds = parser.add_subparsers(title="what to make", metavar="KIND", required=True)
    root = kinds.add_parser("root", help=f"{ROOT_KEY} and {ROOT_CERT}")
    root.set_defaults(make=_root)
    intermediate = kinds.add_parser(
        "intermediate", help="the four files of istiod's ROOT_CA_DIR, for each cluster"
    )
    intermediate.set_defaults(make=_intermediates)
    intermediate.add_argument(
        "clusters", metavar="CLUSTER", nargs="+", help="becomes a directory, and the subject's L"
    )
    intermediate.add_argument(
        "--root", metavar="DIR", required=True, help=f"where {ROOT_KEY} and {ROOT_CERT} are"
    )
    for kind in (root, intermediate):
        kind.add_argument("--out", metavar="DIR", required=True, help="made where it is missing")
        kind.add_argument(
            "--key",
            metavar="TYPE",
            choices=[str(each) for each in KeyType],
            default=str(KeyType.RSA4096),
            help=f"{', '.join(KeyType)}; default %(default)s",
        )
        kind.add_argument("--days", type=_days, default=3650, help="default %(default)s")
        kind.add_argument(
            "--crl-sign", action="store_true", help="may sign CRLs: a ca-crl.pem needs it"
        )
        kind.add_argument("--force", action="store_true", help="replace files that exist")
        add_format(kind)


def run(arguments: argparse.Namespace) -> int:
    """Make, verify, write and show; raises `OutputError` where nothing could be written."""
    now = datetime.now(UTC).replace(microsecond=0)
    made: list[_Made] = arguments.make(arguments, now)
    write([file for each in made for file in each.files], force=arguments.force)
    show = _json if arguments.format == "json" else _text
    sys.stdout.write(show(made, now))
    return 0


def _root(arguments: argparse.Namespace, now: datetime) -> list[_Made]:
    out = Path(arguments.out)
    _refuse_existing(arguments, [out / ROOT_KEY, out / ROOT_CERT])
    authority = issuing.root(
        _validity(now, arguments.days), key_type=KeyType(arguments.key), crl_sign=arguments.crl_sign
    )
    files = (
        NewFile(out / ROOT_KEY, authority.key_pem, private=True),
        NewFile(out / ROOT_CERT, authority.certificate_pem),
    )
    # istiod takes a root as its signing certificate too, so one set of rules judges both.
    return [_Made("root", files, _verified(authority.bundle(), now))]


def _intermediates(arguments: argparse.Namespace, now: datetime) -> list[_Made]:
    out = Path(arguments.out)
    _require_names(arguments.clusters)
    paths = [out / each / name for each in arguments.clusters for name in _SET_FILES.values()]
    _refuse_existing(arguments, paths)
    root = load_root(arguments.root, now)
    asked = _validity(now, arguments.days)
    validity = Validity(now, min(asked.not_after, root.certificate.not_valid_after_utc))
    # A root of as many days, made a minute ago, costs a minute: nothing to talk about.
    clamped = asked.not_after - validity.not_after >= timedelta(days=1)
    made = []
    for cluster in arguments.clusters:
        authority = root.intermediate(
            cluster, validity, key_type=KeyType(arguments.key), crl_sign=arguments.crl_sign
        )
        raw = authority.bundle()
        files = tuple(
            NewFile(out / cluster / name, getattr(raw, part), private=part == "private_key")
            for part, name in _SET_FILES.items()
        )
        made.append(_Made(cluster, files, _verified(raw, now), clamped))
    return made


def load_root(directory: str | Path, now: datetime) -> Authority:
    """Read a root that can sign.

    Raises `SecretNotFound` where a file is missing, `AccessDenied`, and `MaterialRefused` where key
    and certificate do not fit, or are not those of a CA that is valid now.
    """
    key, certificate = (_read(Path(directory) / name) for name in (ROOT_KEY, ROOT_CERT))
    raw = RawBundle(private_key=key, certificate=certificate, chain=certificate, roots=certificate)
    bundle = _verified(raw, now, f"The root in {directory} cannot sign").bundle
    signing, issuer = bundle.private_key.key, bundle.certificate
    if not isinstance(signing, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise MaterialRefused(
            f"The root in {directory} has a key that is neither RSA nor EC.",
            (),
            hint="Envoy takes no certificate of its kind. Make a root with `certagent ca root`.",
        )
    if issuer.subject != issuer.issuer:
        raise MaterialRefused(
            f"{directory}/{ROOT_CERT} is not a root: {issuer.issuer!r} issued it.",
            (),
            hint=f"Name the directory of the root that has {ROOT_KEY} and {ROOT_CERT}.",
        )
    if issuer.extension(x509.SubjectKeyIdentifier) is None:
        raise MaterialRefused(
            f"{directory}/{ROOT_CERT} has no subject key identifier.",
            (),
            hint="RFC 5280 (4.2.1.2) demands it of a CA. Make a root with `certagent ca root`.",
        )
    return Authority(issuer.x509, signing)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_PART_BYTES + 1)
    except FileNotFoundError:
        raise SecretNotFound(
            f"There is no {path}.", hint="Make a root with `certagent ca root --out DIR`."
        ) from None
    except OSError as error:
        raise AccessDenied(
            f"{path} cannot be read: {error.strerror}.",
            hint="The root's key belongs to whoever made it: run this as that user.",
        ) from error


def _verified(raw: RawBundle, now: datetime, context: str = "It was not written") -> VerifiedBundle:
    try:
        return verify(KeyCertBundle.decode(raw), now)
    except MaterialRefused as refused:
        message = f"{context}: {refused.message}"
        raise MaterialRefused(message, refused.findings, hint=refused.hint) from None


def _validity(now: datetime, days: int) -> Validity:
    return Validity(now, now + timedelta(days=days))


def _days(text: str) -> int:
    days = int(text) if text.isdecimal() else 0
    if not 0 < days <= _LONGEST:
        raise argparse.ArgumentTypeError(f"expected 1 to {_LONGEST} days, not {text}")
    return days


def _require_names(clusters: Sequence[str]) -> None:
    for cluster in clusters:
        if not _CLUSTER.fullmatch(cluster):
            raise UsageError(
                f"{cluster!r} cannot be a cluster's name: it becomes a directory.",
                hint="Use letters, digits, dots, dashes and underscores, 63 at most.",
            )
    if len(set(clusters)) < len(clusters):
        raise UsageError(
            "A cluster is named twice.", hint="Each cluster has one intermediate: name it once."
        )


def _refuse_existing(arguments: argparse.Namespace, paths: Sequence[Path]) -> None:
    """Look before keys are made: RSA 4096 takes seconds."""
    if not arguments.force:
        refuse_existing(paths)


def _text(made: Sequence[_Made], now: datetime) -> str:
    lines = []
    for each in made:
        certificate = each.verified.bundle.certificate
        expiry = f"{certificate.not_after:%F}, {days_left(certificate.not_after, now)}"
        clamp = " (with its root: fewer than --days asks for)" if each.clamped else ""
        lines += [
            f"{each.name}: {certificate.subject}",
            f"  sha256   {certificate.fingerprint}",
            f"  expires  {expiry}{clamp}",
            *(f"  {file.mode:04o}     {file.path}" for file in each.files),
            *(f"  {line}" for line in finding_lines(each.verified.warnings)),
        ]
    return "\n".join(lines) + "\n"


def _json(made: Sequence[_Made], now: datetime) -> str:  # noqa: ARG001 - the same shape as `_text`
    def document(each: _Made) -> dict[str, Any]:
        return {
            "name": each.name,
            "certificate": certificate_object(each.verified.bundle.certificate),
            "clampedToRoot": each.clamped,
            "files": [{"path": str(file.path), "mode": f"{file.mode:04o}"} for file in each.files],
            "findings": [finding_object(finding) for finding in each.verified.warnings],
        }

    return json.dumps([document(each) for each in made], indent=2) + "\n"
