"""A certificate that a gateway or a sidecar shows to its peers, for `kind: tls`.

pilot-agent reads the files with crypto/tls.LoadX509KeyPair and hands their bytes to Envoy: the
first certificate must be the key's, and what follows it is sent as it stands. Imported only where a
bundle is of this kind.
"""

from __future__ import annotations

from functools import cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from certagent.material.bundle import KeyCertBundle, refusal
from certagent.material.chains import is_tangled, issued
from certagent.material.endentity import findings, verify
from certagent.material.finding import Finding, Severity
from certagent.material.kinds import Kind
from certagent.material.parts import Parts, Reader
from certagent.material.raw import TLS_FILES
from certagent.material.roots import in_order
from certagent.material.rules import about
from certagent.material.succession import plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from certagent.material.certificates import Certificate
    from certagent.material.leaf import Usage
    from certagent.material.raw import RawBundle

GATEWAY = Reader(
    "a gateway", TLS_FILES, optional=frozenset({"chain", "roots"}), skips_parameters=True
)


@cache
def tls(usage: Usage = "server") -> Kind:
    """Return the kind of a certificate that is shown as a server's, as a client's, or as both."""
    return Kind(
        name="tls",
        reader=GATEWAY.name,
        usage=usage,
        files=TLS_FILES,
        fields=MappingProxyType(
            {"private_key": "tls_key", "certificate": "tls_cert", "roots": "ca_cert"}
        ),
        optional=frozenset({"roots"}),
        is_ca=False,
        decode=decode,
        verify=partial(verify, usage=usage),
        findings=partial(findings, usage=usage),
        plan=plan,
    )


def decode(raw: RawBundle) -> KeyCertBundle:
    """Read the parts, and put what is sent in order.

    The certificate is the one that was made for the key, wherever it stands; where none was, the
    first, for verification to refuse. Each issuer follows what it issued (RFC 8446, 4.4.2); one
    that is there twice is sent once. A root is sent where it was stored: no client needs it, and
    some may have been told to look for it (RFC 7671, 5.2.2). Raises `MaterialRefused` with all
    faults of all parts, and nothing else, for any bytes.
    """
    parts = Parts(GATEWAY)
    key = parts.private_key(raw.private_key)
    sent = [
        *parts.certificates(raw.certificate, "certificate"),
        *parts.certificates(raw.chain, "chain"),
    ]
    roots = parts.certificates(raw.roots, "roots")
    if parts.errors or key is None:
        raise refusal(tuple(parts.errors))
    if is_tangled(sent):
        message = "Too many of its certificates have the name of an issuer of others."
        hint = "Store the certificate, and each issuer once."
        raise refusal((about(sent[0], "too-many-paths", "certificate", message, hint),))
    leaf = next((each for each in sent if each.public_key_info == key.public_key_info), sent[0])
    path, left_out = _path(leaf, sent)
    notes = (*parts.warnings, *_notes(sent, path, left_out))
    return KeyCertBundle(key, leaf, path[1:], in_order(roots), notes=notes)


def _path(
    leaf: Certificate, sent: Sequence[Certificate]
) -> tuple[tuple[Certificate, ...], list[Certificate]]:
    """Return what is to be sent, in order, and what is left out: nothing that is sent needs it.

    An intermediate that has the name of a missing issuer, and did not sign, stays for verification
    to refuse: half of a new set was stored. Of roots such a one is left out: peers have their own.
    """
    path = [leaf]
    left = [each for each in dict.fromkeys(sent) if each != leaf]
    missing = set()
    for child in path:
        issuers = [each for each in left if issued(each, child)]
        left = [each for each in left if each not in issuers]
        if not any(issued(each, child) for each in (*path, *issuers)):
            missing.add(child.issuer_name)
        path += issuers
    impostors = [
        each
        for each in left
        if each.subject_name in missing and each.subject_name != each.issuer_name
    ]
    return (*path, *impostors), [each for each in left if each not in impostors]


def _notes(
    sent: Sequence[Certificate], path: Sequence[Certificate], left_out: Sequence[Certificate]
) -> Iterator[Finding]:
    if [each for each in sent if each not in left_out] != list(path):
        message = "Its certificates were not in the order of a handshake, or there twice."
        hint = "It was put right: the key's own first, then each issuer after what it issued."
        yield Finding("chain-repaired", Severity.WARNING, "certificate", message, hint)
    for each in left_out:
        message = f"{each.subject!r} is not on the way from the certificate to a root."
        hint = "It is left out. Remove it, or store the certificates between."
        yield about(each, "chain-unused", "certificate", message, hint, Severity.WARNING)
