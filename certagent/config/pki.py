"""What types cannot say about certificates that Vault issues."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from certagent.config.model import seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from certagent.config.model import RefreshConfig, VaultPKISource

LONGEST_COMMON_NAME = 64
"""In bytes (RFC 5280, appendix A.1: ub-common-name)."""

_LONGEST = 20 * 366 * 86400.0
_NAME = re.compile(r"\w([\w.-]*\w)?", re.ASCII)
"""Names of roles and issuers: Vault's framework.GenericNameRegex."""

_POLLS = 3
"""A certificate is renewed at two thirds of its lifetime: a poll must fall into the last third."""


def pki_faults(pki: VaultPKISource, kind: str, refresh: RefreshConfig) -> Iterator[str]:
    """Yield each fault, as `.key: what is wrong`; `kind` is the bundle's."""
    yield from _faults_of_a_ca(pki) if kind == "ca" else _faults_of_a_leaf(pki)
    ttl, interval = seconds(pki.ttl), seconds(refresh.interval)
    if not 0 < ttl <= _LONGEST:
        yield f".ttl: expected more than nothing and at most 20 years, got {pki.ttl[:40]}"
    elif ttl < _POLLS * interval:
        yield (
            f".ttl: {pki.ttl} is shorter than three times refresh.interval, {refresh.interval}:"
            " it could not be renewed in time"
        )
    yield from _faults_of_names(pki)
    if ".." in pki.mount:
        yield f".mount: expected a name, got {pki.mount[:80]!r}"
    for key, text in (("role", pki.role), ("issuer", pki.issuer)):
        if text and not _NAME.fullmatch(text):
            yield f".{key}: expected a name, got {text[:80]!r}"


def _faults_of_names(pki: VaultPKISource) -> Iterator[str]:
    if len(pki.common_name.encode()) > LONGEST_COMMON_NAME:
        yield f".commonName: expected at most {LONGEST_COMMON_NAME} bytes, got {pki.common_name!r}"
    for index, name in enumerate(pki.dns_names):
        if not name.isascii() or "," in name or " " in name:
            yield f".dnsNames[{index}]: expected a DNS name in ASCII, got {name[:80]!r}"
    for index, uri in enumerate(pki.uri_sans):
        if not uri.isascii() or "," in uri or ":" not in uri:
            yield f".uriSans[{index}]: expected a URI in ASCII without commas, got {uri[:80]!r}"
    for index, address in enumerate(pki.ip_sans):
        if not _is_address(address):
            yield f".ipSans[{index}]: expected an IP address, got {address[:80]!r}"


def _faults_of_a_ca(pki: VaultPKISource) -> Iterator[str]:
    if pki.role:
        yield ".role: for kind: tls; without one, Vault signs an intermediate CA"
    elif not pki.common_name:
        yield ".commonName: missing; it is the CA's subject"
    given = {"dnsNames": pki.dns_names, "uriSans": pki.uri_sans, "ipSans": pki.ip_sans}
    yield from (f".{key}: a CA has no alternative names" for key, names in given.items() if names)


def _faults_of_a_leaf(pki: VaultPKISource) -> Iterator[str]:
    if not pki.role:
        yield ".role: missing; Vault signs a certificate of kind: tls as a role allows"
    if not (pki.dns_names or pki.uri_sans or pki.ip_sans):
        yield ".dnsNames: missing; clients look for a name there, or in uriSans or ipSans"
    if pki.path_length:
        yield ".pathLength: for kind: ca"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
