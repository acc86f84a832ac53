"""The rules that a configuration asks for: one reading for agents and operators."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from certagent.config.model import seconds
from certagent.material.history import Policy
from certagent.material.kinds import CA, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from msgspec import UnsetType

    from certagent.config.model import Config
    from certagent.material.leaf import Usage

IstiodMode = Literal["hot", "restart", "hold"]


def kind(name: str, usage: Usage | UnsetType | None) -> Kind:
    """Return a kind by its name; `usage` is of kind tls alone, a server's if it is not given."""
    if name == CA.name:
        return CA
    from certagent.material.serving import tls  # noqa: PLC0415 - not for an agent of a CA

    return tls(usage or "server")


def policy(config: Config, of: Kind = CA) -> Policy:
    """Return the windows of a configuration; what is not a CA has none."""
    if not of.is_ca:
        return Policy(immediate=True)
    rotation = config.rotation
    return Policy(
        distribute=timedelta(seconds=seconds(rotation.distribute)),
        retire=timedelta(seconds=seconds(rotation.retire)),
        slack=timedelta(seconds=seconds(rotation.slack)),
        immediate=rotation.strategy == "immediate",
    )


def takes_roots(config: Config, environ: Mapping[str, str]) -> IstiodMode:
    """Return what istiod can do with a change of roots: as told, or as its own switch says."""
    return config.rotation.istiod or ("hot" if is_multiroot(environ) else "hold")


def is_multiroot(environ: Mapping[str, str]) -> bool:
    """Say whether an environment lets istiod take several roots.

    pilot/pkg/features/pilot.go: ISTIO_MULTIROOT_MESH, read with strconv.ParseBool.
    """
    return environ.get("ISTIO_MULTIROOT_MESH", "") in {"1", "t", "T", "true", "TRUE", "True"}


def pins(config: Config) -> frozenset[str]:
    """Return the SHA-256 (hex) of the roots that a configuration trusts; none means any."""
    return frozenset(root.removeprefix("sha256:") for root in config.trust.roots)
