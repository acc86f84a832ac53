"""The parts of a bundle as a store holds them: bytes that nobody has looked into yet."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec import Struct

from certagent.errors import MaterialRefused, one_line
from certagent.material.finding import Finding, Severity
from certagent.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PART_BYTES = 1 << 20
"""No part is larger: a chain of RSA 4096 certificates has some 10 kB, a Kubernetes Secret 1 MiB."""

CA_FILES: Mapping[str, str] = MappingProxyType(
    {
        "private_key": "ca-key.pem",
        "certificate": "ca-cert.pem",
        "chain": "cert-chain.pem",
        "roots": "root-cert.pem",
        "crls": "ca-crl.pem",
    }
)
"""The file that istiod reads each part from (security/pkg/pki/ca/ca.go); `crls` is optional."""

TLS_FILES: Mapping[str, str] = MappingProxyType(
    {"private_key": "tls.key", "certificate": "tls.crt", "roots": "ca.crt"}
)
"""The files of a gateway's certificate, as a kubernetes.io/tls Secret calls them; the chain follows
the certificate, and `roots` are optional."""


class RawBundle(Struct, frozen=True):
    """The parts of a bundle as PEM bytes, as they were found; a part that it lacks is empty."""

    private_key: bytes
    certificate: bytes
    chain: bytes = b""
    roots: bytes = b""
    crls: bytes = b""

    def __repr__(self) -> str:
        """Show what is neither secret nor long."""
        return shown(self)

    @classmethod
    def of(
        cls,
        parts: Mapping[str, object],
        names: Mapping[str, str],
        optional: frozenset[str] = frozenset({"crls"}),
    ) -> RawBundle:
        """Take the parts out of what a store returned.

        `parts` maps the store's names to values: text, or bytes; `names` maps this class's fields
        to the store's names. Raises `MaterialRefused` with a finding for each part that is missing,
        empty, larger than `MAX_PART_BYTES`, or neither text nor bytes; `optional` ones may be
        missing.
        """
        taken: dict[str, bytes] = {}
        findings: list[Finding] = []
        for part, name in names.items():
            if part in optional and parts.get(name) is None:
                continue
            try:
                taken[part] = _part(parts, name)
            except _Unusable as unusable:
                code, message = unusable.args
                hint = f"Store the PEM text of the {part.replace('_', ' ')} as {name!r}."
                findings.append(Finding(code, Severity.ERROR, part, message, hint))
        if findings:
            raise MaterialRefused(
                " ".join(finding.message for finding in findings),
                tuple(findings),
                hint=findings[0].hint,
            )
        return cls(**taken)


class _Unusable(Exception):
    """A part cannot be taken: its finding's code and message."""


def _part(parts: Mapping[str, object], name: str) -> bytes:
    if parts.get(name) is None:
        present = one_line(", ".join(sorted(map(str, parts))), 200) or "none"
        raise _Unusable("part-missing", f"There is no {name!r}; present: {present}.")
    value = parts[name]
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    if not isinstance(data, bytes):
        raise _Unusable("part-not-text", f"{name!r} is {type(value).__name__}, not PEM text.")
    if not data.strip():
        raise _Unusable("part-empty", f"{name!r} is empty.")
    if len(data) > MAX_PART_BYTES:
        size = f"{len(data)} bytes, over the limit of {MAX_PART_BYTES}"
        raise _Unusable("part-too-large", f"{name!r} has {size}.")
    return data
