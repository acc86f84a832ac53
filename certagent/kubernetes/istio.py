"""What Istio's pods have already, and since which version their charts take more."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

_VERSION = re.compile(r"v?(\d{1,3})\.(\d{1,3})(\.\d+)?([-+].*)?", re.ASCII)


class Version(NamedTuple):
    """A minor version of Istio or Kubernetes: features come with these."""

    major: int
    minor: int

    def __str__(self) -> str:
        """Return it as both projects write it: `1.29`."""
        return f"{self.major}.{self.minor}"


def version(text: str) -> Version:
    """Read `1.29`, `v1.29.3` or `1.29.3-eks`; raises `ValueError`."""
    match = _VERSION.fullmatch(text)
    if not match:
        raise ValueError(f"expected a version such as 1.29, got {text!r}")
    return Version(int(match[1]), int(match[2]))


OLDEST = Version(1, 20)
"""The first Istio whose istiod reloads roots while it runs (pilot/pkg/bootstrap/istio_ca.go)."""

NATIVE_SIDECARS = Version(1, 29)
"""The first Kubernetes with the feature SidecarContainers on by default."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A pod of Istio's that reads what the agent publishes.

    `container` is the one that reads. `paths` and `ports` are what the pod has of its own: its
    chart cannot be told otherwise. The chart takes `initContainers` from the version
    `init_containers` on. What is published lies in the volume `volume`, in memory, of this `size`
    at most: a gateway has many certificates.
    """

    chart: str
    container: str
    init_containers: Version
    paths: frozenset[str]
    ports: frozenset[int]
    volume: str
    size: str


ISTIOD = Reader(
    chart="istiod",
    container="discovery",
    init_containers=Version(1, 24),
    paths=frozenset(
        {
            "/etc/cacerts",
            "/var/run/secrets/istio-dns",
            "/var/run/secrets/istiod/ca",
            "/var/run/secrets/istiod/tls",
            "/var/run/secrets/kubernetes.io/serviceaccount",
            "/var/run/secrets/remote",
            "/var/run/secrets/tokens",
        }
    ),
    ports=frozenset({8080, 9876, 15010, 15012, 15014, 15017}),
    volume="istio-ca",
    size="1Mi",
)
"""manifests/charts/istio-control/istio-discovery/templates/deployment.yaml, since 1.20."""

GATEWAY = Reader(
    chart="gateway",
    container="istio-proxy",
    init_containers=Version(1, 27),
    paths=frozenset(
        {
            "/etc/istio/pod",
            "/etc/istio/proxy",
            "/var/lib/istio/data",
            "/var/run/secrets/credential-uds",
            "/var/run/secrets/istio",
            "/var/run/secrets/kubernetes.io/serviceaccount",
            "/var/run/secrets/tokens",
            "/var/run/secrets/workload-spiffe-credentials",
            "/var/run/secrets/workload-spiffe-uds",
        }
    ),
    ports=frozenset({15000, 15001, 15004, 15006, 15008, 15020, 15021, 15053, 15090}),
    volume="gateway-tls",
    size="4Mi",
)
"""manifests/charts/gateway, with what files/gateway-injection-template.yaml adds to its pods."""
