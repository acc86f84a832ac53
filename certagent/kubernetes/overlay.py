"""The agent in Istio's pods, as what Helm and kustomize take: values, patches, a template.

All of it is plain data, in the order in which people read it. Functions raise `UsageError` where a
version of Istio or Kubernetes cannot do what is asked for, and `ConfigurationError` where the
configuration does not fit into the pod.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from certagent.config.settings import SETTINGS
from certagent.errors import UsageError
from certagent.kubernetes.agent import NAME, Agent
from certagent.kubernetes.istio import GATEWAY, ISTIOD, OLDEST
from certagent.kubernetes.options import Options
from certagent.kubernetes.volumes import CONFIG_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from certagent.config.model import Config
    from certagent.kubernetes.istio import Reader

INIT = f"{NAME}-init"
"""The init container, where the agent is a second container as well."""

_DEFAULTS = Options()


def istiod_values(
    config: Config, environ: Mapping[str, str], options: Options = _DEFAULTS
) -> dict[str, Any]:
    """Return values for Istio's `istiod` chart, 1.24 or newer.

    `environ` is what the configuration was read with, as `decoding.load` takes it. Before
    Kubernetes 1.29 the agent publishes once, at the start: this chart takes no further container.
    """
    _require_init_containers(ISTIOD, options, "--kustomize prints a patch of the Deployment.")
    agent = Agent(config, environ, ISTIOD, options)
    _require_own_processes(agent)
    _require_no_templates(environ, options)
    container = agent.native_sidecar() if options.native else agent.init_container()
    return {"env": agent.reader_environment, **_shared(agent), "initContainers": [container]}


def gateway_values(
    config: Config, environ: Mapping[str, str], options: Options = _DEFAULTS
) -> dict[str, Any]:
    """Return values for Istio's `gateway` chart, 1.27 or newer."""
    _require_init_containers(
        GATEWAY,
        options,
        "--injection-template prints values for the istiod chart that do the same, --kustomize a"
        " patch of the Deployment.",
    )
    agent = Agent(config, environ, GATEWAY, options)
    _require_own_processes(agent)
    if options.native:
        return {**_shared(agent), "initContainers": [agent.native_sidecar()]}
    return {
        **_shared(agent),
        "initContainers": [agent.init_container(INIT)],
        "additionalContainers": [agent.sidecar()],
    }


def patch(
    reader: Reader,
    config: Config,
    environ: Mapping[str, str],
    options: Options,
    *,
    name: str,
    namespace: str,
) -> dict[str, Any]:
    """Return a strategic merge patch of the reader's Deployment, for any version of the chart."""
    _require_known(options)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "template": {"spec": _pod(Agent(config, environ, reader, options), reader, options)}
        },
    }


def injection_template(
    config: Config, environ: Mapping[str, str], options: Options = _DEFAULTS
) -> dict[str, Any]:
    """Return an injection template of the name `certagent`, as the pod's specification.

    A gateway of any chart gets it by the annotation `inject.istio.io/templates: gateway,certagent`.
    """
    _require_known(options)
    _require_no_templates(environ, options)
    return {"spec": _pod(Agent(config, environ, GATEWAY, options), GATEWAY, options)}


def config_map(text: str, *, name: str, namespace: str) -> dict[str, Any]:
    """Return the ConfigMap that brings a configuration file to the agent."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {CONFIG_FILE: text},
    }


def _shared(agent: Agent) -> dict[str, Any]:
    return {"volumes": agent.volume_definitions, "volumeMounts": agent.reader_mounts}


def _pod(agent: Agent, reader: Reader, options: Options) -> dict[str, Any]:
    """Return what is added to the pod's specification."""
    told = [{"name": name, "value": value} for name, value in agent.reader_environment.items()]
    container = {
        "name": reader.container,
        **({"env": told} if told else {}),
        "volumeMounts": agent.reader_mounts,
    }
    init, *beside = (
        [agent.native_sidecar()]
        if options.native
        else [agent.init_container(INIT), agent.sidecar()]
    )
    return {
        **({"shareProcessNamespace": True} if agent.signals else {}),
        "volumes": agent.volume_definitions,
        "initContainers": [init],
        "containers": [container, *beside],
    }


def _require_known(options: Options) -> None:
    if options.istio < OLDEST:
        raise UsageError(
            f"Istio {options.istio} takes no new roots while it runs: certagent needs {OLDEST}.",
            hint="Update Istio first; `certagent check` judges its cacerts meanwhile.",
        )


def _require_init_containers(reader: Reader, options: Options, instead: str) -> None:
    _require_known(options)
    if options.istio < reader.init_containers:
        raise UsageError(
            f"The {reader.chart} chart of Istio {options.istio} takes no initContainers: they came"
            f" with {reader.init_containers}.",
            hint=instead,
        )


def _require_own_processes(agent: Agent) -> None:
    if agent.signals:
        raise UsageError(
            "A hook signals a process of another container, and Istio's charts cannot share the"
            " pod's processes.",
            hint="--kustomize prints a patch that sets shareProcessNamespace; or use another hook.",
        )


def _require_no_templates(environ: Mapping[str, str], options: Options) -> None:
    """Refuse what the istiod chart (`tpl`), or the injector, would take for a template."""
    given = {setting.variable: environ.get(setting.variable, "") for setting in SETTINGS}
    given |= {"--image": options.image, "--audience": options.audience}
    found = [name for name, value in given.items() if "{{" in value]
    if found:
        raise UsageError(
            f"{found[0]} contains {{{{, which Istio would take for a template.",
            hint="Write the setting into a file, and give it with --config.",
        )
