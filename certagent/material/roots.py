"""The guard: how the roots of a plan become the bytes that its reader can follow.

istiod reloads a changed root-cert.pem only if one of the old and the new file contains the other:
as a run of bytes before 1.30 (handleEvent in pilot/pkg/bootstrap/istio_ca.go), as a set since. It
refuses the whole reload otherwise, the new signer included. Two rules keep every step within that:

- Bytes are a function of the set (`in_order`): oldest first, so that a new root is usually added at
  the end and an old one leaves at the front. Two agents that publish the same set publish the same
  bytes, whatever was on their volumes.
- Where that is not enough (one root comes as another goes, or one in the middle goes first), the
  two files joined are published in between: the `bridge`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from certagent.material import pem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from certagent.material.bundle import KeyCertBundle
    from certagent.material.certificates import Certificate, RevocationList
    from certagent.material.history import HistoricRevision
    from certagent.material.rotation import Plan

_T = TypeVar("_T")


def joined(plan: Plan[Certificate]) -> KeyCertBundle | None:
    """Return the set that a plan wants published, or None where it wants nothing new.

    Key, certificate and chain are the signer's own, all of them: a leaf that somebody else signed
    carries its own chain (C23). Roots and revocation lists are those of the plan.
    """
    if plan.signer is None or plan.signer.bundle is None:
        return None
    crls = union_of_crls(plan.kept)
    return replace(plan.signer.bundle.bundle, roots=in_order(plan.roots), crls=crls)


def in_order(roots: Iterable[Certificate]) -> tuple[Certificate, ...]:
    """Return a set of roots as it is published: by notBefore, then SHA-256, without duplicates."""
    return tuple(sorted(set(roots), key=lambda root: (root.not_before, root.fingerprint)))


def next_file(published: bytes, wanted: bytes) -> bytes:
    """Return the root-cert.pem that may follow the `published` one on the way to the `wanted` one.

    Both are canonical PEM, as `KeyCertBundle.canonical` writes it. Where the answer is another than
    `wanted`, that may follow once the reader has taken the answer. Duplicates in it are harmless:
    Envoy accepts them, istiod compares sets, and Go's pool drops them.
    """
    return b"".join(bridge(_blocks(published), _blocks(wanted)))


def bridge(published: Sequence[_T], wanted: Sequence[_T]) -> tuple[_T, ...]:
    """Return what to publish next: `wanted`, if one of the two contains the other as a run.

    Else the shortest sequence that begins with `published` and ends with `wanted`.
    """
    if _contains(published, wanted) or _contains(wanted, published):
        return tuple(wanted)
    shared = next(
        length
        for length in range(min(len(published), len(wanted)), -1, -1)
        if tuple(published[len(published) - length :]) == tuple(wanted[:length])
    )
    return (*published, *wanted[shared:])


def union_of_crls(
    revisions: Iterable[HistoricRevision[Certificate]],
) -> tuple[RevocationList, ...]:
    """Return the revocation lists of all revisions whose roots are kept, by issuer and time (C22).

    With lists of the one CA alone, Envoy refuses every certificate of the other.
    """
    lists = {crl for each in revisions if each.bundle for crl in each.bundle.bundle.crls}
    return tuple(sorted(lists, key=lambda crl: (crl.issuer, crl.this_update, crl.der)))


def _contains(outer: Sequence[_T], inner: Sequence[_T]) -> bool:
    size, run = len(inner), tuple(inner)
    return any(tuple(outer[start : start + size]) == run for start in range(len(outer) - size + 1))


def _blocks(data: bytes) -> list[bytes]:
    blocks, _ = pem.decode(data, "roots")
    return [pem.encode(block.label, block.der) for block in blocks]
