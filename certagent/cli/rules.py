"""The rules of rotation that a configuration asks for: one reading for agents and operators."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from certagent.config.model import seconds
from certagent.material.history import Policy

if TYPE_CHECKING:
    from certagent.config.model import Config


def policy(config: Config) -> Policy:
    """Return the windows of a configuration."""
    rotation = config.rotation
    return Policy(
        distribute=timedelta(seconds=seconds(rotation.distribute)),
        retire=timedelta(seconds=seconds(rotation.retire)),
        slack=timedelta(seconds=seconds(rotation.slack)),
        immediate=rotation.strategy == "immediate",
    )


def pins(config: Config) -> frozenset[str]:
    """Return the SHA-256 (hex) of the roots that a configuration trusts; none means any."""
    return frozenset(root.removeprefix("sha256:") for root in config.trust.roots)
