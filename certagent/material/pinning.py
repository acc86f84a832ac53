"""Which roots may be published, whoever wrote them to the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from certagent.material.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from certagent.material.bundle import KeyCertBundle


def unpinned(bundle: KeyCertBundle, pins: frozenset[str]) -> Iterator[Finding]:
    """Yield an error for each root that is not pinned; `pins` are SHA-256 in hex, none: any."""
    for root in bundle.roots:
        if pins and root.fingerprint not in pins:
            yield Finding(
                "root-not-pinned",
                Severity.ERROR,
                "roots",
                f"The root {root.subject!r} is not among those that trust.roots lists.",
                f"If you mean it, add sha256:{root.fingerprint} to trust.roots of every agent. If"
                " not, somebody else can write to the store.",
                root.subject,
                root.fingerprint,
            )
