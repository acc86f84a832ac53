"""What a configuration does not say about the pod that it is for."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from certagent import __version__
from certagent.kubernetes.istio import GATEWAY, NATIVE_SIDECARS, Version

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACEHOLDER = f"registry.example.com/certagent:{__version__}"
"""An image that nobody has: whoever installs names their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The cluster, the image, and what lies in Secrets.

    `audience` is that of the token for Vault; with an empty one the pod's own token is used.
    `config_map` holds the configuration as `certagent.yaml`; without it the environment is all.
    `secrets` names the Secret of each directory that the configuration reads files from.
    `openshift`: the cluster gives all containers of a namespace one user.
    """

    image: str = PLACEHOLDER
    istio: Version = GATEWAY.init_containers
    kubernetes: Version = NATIVE_SIDECARS
    audience: str = "vault"
    config_map: str = ""
    secrets: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    openshift: bool = False

    @property
    def native(self) -> bool:
        """Whether the agent can be a native sidecar: it starts before its reader, and stays."""
        return self.kubernetes >= NATIVE_SIDECARS
