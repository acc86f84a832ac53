"""The agent's container, in a pod of Istio's: the same for every way to bring it there."""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from certagent.config.keyvault import WEBHOOK
from certagent.config.loopback import is_loopback
from certagent.config.model import SignalHook, seconds
from certagent.config.settings import SETTINGS
from certagent.errors import ConfigurationError
from certagent.kubernetes.istio import ISTIOD
from certagent.kubernetes.volumes import (
    CONFIG_DIRECTORY,
    CONFIG_FILE,
    Volume,
    token_file,
    unknown_files,
    volumes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from certagent.config.model import Config
    from certagent.kubernetes.istio import Reader
    from certagent.kubernetes.options import Options

NAME = "certagent"
PORT = 9089
"""Where `run` answers the probes unless it is told otherwise (cli/run.py)."""

_USER = 1337  # istiod's (pilot/docker/Dockerfile.pilot) and the proxies'
_WEBHOOK = tuple(WEBHOOK.values())
_MULTIROOT = "ISTIO_MULTIROOT_MESH"
_TRUE = {"1", "t", "T", "true", "TRUE", "True"}


class Agent:
    """The agent of one configuration in the pod of one reader.

    `environ` is what the configuration was read with: the agent is given the same variables. Raises
    `ConfigurationError` with everything that does not fit into the pod.
    """

    def __init__(
        self, config: Config, environ: Mapping[str, str], reader: Reader, options: Options
    ) -> None:
        self._config = config
        self._environ = environ
        self._reader = reader
        self._options = options
        self.volumes = volumes(config, reader, options)
        faults = list(_faults(config, reader, options, self.volumes))
        if faults:
            several = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
            raise ConfigurationError(
                f"The configuration does not fit into a pod of the {reader.chart} chart"
                f" ({several}):",
                tuple(faults),
            )

    @property
    def volume_definitions(self) -> list[dict[str, Any]]:
        """The pod's further volumes."""
        return [volume.definition for volume in self.volumes]

    @property
    def reader_mounts(self) -> list[dict[str, Any]]:
        """What the reader mounts: what is published, and it may not write there."""
        return [volume.mount(read_only=True) for volume in self.volumes if volume.published]

    @property
    def reader_environment(self) -> dict[str, str]:
        """What the reader is told."""
        if self._reader is not ISTIOD:
            return {}
        multiroot = {_MULTIROOT: "true"} if self._takes_roots else {}
        return {"ROOT_CA_DIR": self.volumes[0].path, **multiroot}

    @property
    def signals(self) -> bool:
        """Whether a hook signals processes of other containers."""
        hooks = [hook for bundle in self._config.bundles for hook in bundle.hooks]
        return any(isinstance(hook, SignalHook) for hook in hooks)

    def native_sidecar(self) -> dict[str, Any]:
        """Return the container that starts before the reader, and stays (Kubernetes 1.29)."""
        return self._container(NAME, "run", restart=True)

    def sidecar(self) -> dict[str, Any]:
        """Return the container that stays, beside an init container."""
        return self._container(NAME, "run")

    def init_container(self, name: str = NAME) -> dict[str, Any]:
        """Return the container that publishes once."""
        return self._container(name, "init")

    def _container(self, name: str, verb: str, *, restart: bool = False) -> dict[str, Any]:
        config = f"{CONFIG_DIRECTORY}/{CONFIG_FILE}"
        environment = self._environment()
        return {
            "name": name,
            "image": self._options.image,
            "args": [verb, "--config", config] if self._options.config_map else [verb],
            **({"restartPolicy": "Always"} if restart else {}),
            **({"env": environment} if environment else {}),
            **(self._server() if verb == "run" else {}),
            # Measured: about 40 MiB resident at its start, the most with a long history.
            "resources": {
                "requests": {"cpu": "10m", "memory": "64Mi"},
                "limits": {"memory": "128Mi"},
            },
            "securityContext": self._security_context(),
            "volumeMounts": [
                volume.mount(read_only=not volume.published) for volume in self.volumes
            ],
        }

    def _environment(self) -> list[dict[str, str]]:
        """Return the variables, those that others know first."""
        names = [setting.variable for setting in SETTINGS]
        given = {name: self._environ[name] for name in names if self._environ.get(name)}
        if any(volume.name == "azure-token" for volume in self.volumes):
            given |= {name: self._environ[name] for name in _WEBHOOK if self._environ.get(name)}
        elsewhere = token_file(self._config, self._options)
        if elsewhere:
            given["CERTAGENT_VAULT_TOKEN_FILE"] = elsewhere
        if self._reader is ISTIOD and self._takes_roots:
            given[_MULTIROOT] = "true"
        order = ("VAULT_", "AZURE_", "ROOT_CA_DIR", _MULTIROOT, "")
        known = [*names, *_WEBHOOK, _MULTIROOT]
        ranked = sorted(
            given,
            key=lambda name: (
                next(i for i, start in enumerate(order) if name.startswith(start)),
                known.index(name),
            ),
        )
        return [{"name": name, "value": given[name]} for name in ranked]

    @property
    def _takes_roots(self) -> bool:
        """Whether istiod reloads roots: so unless the configuration says that it cannot."""
        told = self._config.rotation.istiod
        return told == "hot" or (not told and self._environ.get(_MULTIROOT, "true") in _TRUE)

    def _server(self) -> dict[str, Any]:
        port = _port(self._config) or PORT
        deadline = math.ceil(seconds(self._config.init.deadline))
        return {
            # By its name, a PodMonitor finds the agent in the pods of others.
            "ports": [{"name": NAME, "containerPort": port, "protocol": "TCP"}],
            "startupProbe": {
                "httpGet": {"path": "/readyz", "port": port},
                "periodSeconds": 1,
                "failureThreshold": deadline,
            },
            "livenessProbe": {"httpGet": {"path": "/livez", "port": port}},
        }

    def _security_context(self) -> dict[str, Any]:
        user = {} if self._options.openshift else {"runAsUser": _USER, "runAsGroup": _USER}
        return {
            **user,
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }


def _faults(
    config: Config, reader: Reader, options: Options, mounted: Sequence[Volume]
) -> Iterator[str]:
    cas = [index for index, bundle in enumerate(config.bundles) if bundle.kind == "ca"]
    if reader is ISTIOD and len(cas) != 1:
        yield f"bundles: istiod reads one CA, and {len(cas)} are of kind ca"
    if reader is not ISTIOD:
        for index in cas:
            yield (
                f"bundles[{index}].kind: the key of a mesh's CA must not be in a gateway's pod;"
                " give bundles of kind tls in a file (--config)"
            )
    yield from unknown_files(config, reader, options)
    yield from _path_faults(reader, mounted)
    yield from _server_faults(config, reader)


def _path_faults(reader: Reader, mounted: Sequence[Volume]) -> Iterator[str]:
    """Yield one fault for each path that cannot be mounted."""
    for index, volume in enumerate(mounted):
        path = PurePosixPath(volume.path)
        istios = [taken for taken in sorted(reader.paths) if _overlap(path, PurePosixPath(taken))]
        others = [other for other in mounted[:index] if PurePosixPath(other.path) == path]
        # A colon: Kubernetes' ValidateVolumeMounts (pkg/apis/core/validation).
        if not path.is_absolute() or len(path.parts) == 1 or ":" in volume.path:
            yield f"{volume.key}: {volume.path} cannot be mounted: give one like /etc/istio-ca"
        elif istios and volume.published:
            yield (
                f"{volume.key}: {volume.path} meets Istio's own {istios[0]}: publish elsewhere,"
                " such as to /etc/istio-ca"
            )
        elif others:
            yield f"{volume.key}: {volume.path} is taken by {others[0].key}"


def _overlap(one: PurePosixPath, other: PurePosixPath) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _server_faults(config: Config, reader: Reader) -> Iterator[str]:
    address = config.server.address
    host = address.rpartition(":")[0] if isinstance(address, str) else ""
    port = _port(config)
    if address == "":
        yield "server.address: it is switched off, and kubelet could not ask whether a set is there"
    elif host and is_loopback(host.strip("[]")):
        yield f"server.address: kubelet asks at the pod's own address, and {host} is loopback"
    elif port in reader.ports:
        yield f"server.address: the port {port} is {reader.container}'s own"


def _port(config: Config) -> int | None:
    """Return the port of the probes; None where it is not told, or is no number."""
    address = config.server.address
    port = address.rpartition(":")[2] if isinstance(address, str) else ""
    return int(port) if port.isdecimal() else None
