"""What a set is for: the parts that it has, the files that its reader opens, and its rules."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from certagent.material.bundle import ISTIOD, KeyCertBundle
from certagent.material.raw import CA_FILES, RawBundle
from certagent.material.rotation import plan
from certagent.material.verification import findings, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from certagent.material.certificates import Certificate
    from certagent.material.finding import Finding
    from certagent.material.history import HistoricRevision, Policy
    from certagent.material.rotation import Plan
    from certagent.material.verification import VerifiedBundle


class PartNames(Struct, frozen=True):
    """What a store calls the parts of a bundle; `optional` are those that it may lack."""

    names: Mapping[str, str]
    optional: frozenset[str]

    def take(self, parts: Mapping[str, object]) -> RawBundle:
        """Take the parts out of what a store returned; raises as `RawBundle.of` does."""
        return RawBundle.of(parts, self.names, self.optional)

    def give(self, raw: RawBundle) -> dict[str, bytes]:
        """Return canonical parts under their names, without those that are empty.

        A chain that has no name of its own follows the certificate.
        """
        if "chain" not in self.names:
            raw = replace(raw, certificate=raw.certificate + raw.chain)
        parts = {name: getattr(raw, part) for part, name in self.names.items()}
        return {name: data for name, data in parts.items() if data}


class Kind(Struct, frozen=True):
    """One kind of bundle: everything that differs between istiod's CA and a gateway's certificate.

    `reader` is who opens its files; `files` and `fields` name each part as it is published, and as
    a store calls it by default; `optional` are the parts that may be missing. `is_ca`: it signs for
    others, so that a change of its roots is staged and guarded. `usage` says what it is shown as,
    where it is not. The functions raise what `KeyCertBundle.decode`, `verification.verify` and
    `rotation.plan` raise.
    """

    name: str
    reader: str
    files: Mapping[str, str]
    fields: Mapping[str, str]
    optional: frozenset[str]
    is_ca: bool
    decode: Callable[[RawBundle], KeyCertBundle]
    verify: Callable[[KeyCertBundle, datetime], VerifiedBundle]
    findings: Callable[[KeyCertBundle, datetime], tuple[Finding, ...]]
    plan: Callable[[Sequence[HistoricRevision[Certificate]], datetime, Policy], Plan[Certificate]]
    usage: str = ""

    @property
    def roots_file(self) -> str:
        """The file that its reader trusts."""
        return self.files["roots"]

    def named(self, given: Mapping[str, str]) -> PartNames:
        """Return the names of a store's parts; who names a part by hand must have it.

        Revocation lists are the exception: they are read where they exist.
        """
        return PartNames({**self.fields, **given}, self.optional - (given.keys() - {"crls"}))

    def files_of(self, bundle: KeyCertBundle) -> dict[str, bytes]:
        """Return a bundle under the names of its files; a part that is empty has no file."""
        return PartNames(self.files, self.optional).give(bundle.canonical())

    def bundle_of(self, files: Mapping[str, bytes]) -> KeyCertBundle:
        """Read a published set; raises `MaterialRefused`."""
        return self.decode(PartNames(self.files, self.optional).take(files))


CA = Kind(
    name="ca",
    reader=ISTIOD.name,
    files=CA_FILES,
    fields=MappingProxyType(
        {
            "private_key": "ca_key",
            "certificate": "ca_cert",
            "chain": "cert_chain",
            "roots": "root_cert",
            "crls": "ca_crl",
        }
    ),
    optional=frozenset({"crls"}),
    is_ca=True,
    decode=KeyCertBundle.decode,
    verify=verify,
    findings=findings,
    plan=plan,
)
"""The CA of a mesh, for istiod: ca-key.pem, ca-cert.pem, cert-chain.pem, root-cert.pem."""
