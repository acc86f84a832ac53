"""Istio's Deployments: what an overlay makes of them, and whether the pod would work.

`charts/` has charts shaped like Istio's own: the values that they take, and the volumes, mounts and
security contexts that they have already. They are rendered by Helm's own engine.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import helm_python
import kubernetes_validate
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CHARTS = Path(__file__).parent / "charts"
READERS = {"istiod": "discovery", "gateway": "istio-proxy"}
"""The container of each chart that reads what the agent publishes."""

_NEWEST = int(kubernetes_validate.latest_version().split(".")[1])
KUBERNETES = tuple(f"1.{minor}" for minor in range(29, _NEWEST + 1))
"""The versions whose schemas a Deployment is held against: all with native sidecars."""

_MERGE_KEYS = {
    "volumes": "name",
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumeMounts": "mountPath",
}
"""By which key a strategic merge patch knows an element of a list (Kubernetes' API types)."""


@cache
def _chart(name: str) -> helm_python.Chart:
    return helm_python.Chart.load(CHARTS / name)


def rendered(
    chart: str, values: Mapping[str, Any], *, name: str = "", namespace: str = "istio-system"
) -> dict[str, Any]:
    """Return the Deployment that the chart makes of these values."""
    (text,) = _chart(chart).render(dict(values), name=name or chart, namespace=namespace).values()
    return yaml.safe_load(text)


def merged(value: Any, patch: Any, key: str = "") -> Any:
    """Return what a strategic merge patch makes of a value, as kubectl and kustomize do it."""
    if isinstance(value, dict) and isinstance(patch, dict):
        both = {name: merged(value.get(name), part, name) for name, part in patch.items()}
        return {**value, **both}
    if isinstance(value, list) and isinstance(patch, list) and key in _MERGE_KEYS:
        by = _MERGE_KEYS[key]
        news = {each[by]: each for each in patch}
        olds = [merged(each, news.pop(each[by], {})) for each in value]
        return [*olds, *news.values()]
    return patch


def validate(document: Mapping[str, Any], versions: Sequence[str] = KUBERNETES) -> None:
    """Hold a resource strictly against Kubernetes' schemas; raises `ValidationError`."""
    for version in versions:
        kubernetes_validate.validate(dict(document), version, strict=True)


def pod(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """The specification of the Deployment's pods."""
    return deployment["spec"]["template"]["spec"]


def container(deployment: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The container of this name, wherever it is."""
    (found,) = [each for each in _containers(pod(deployment)) if each["name"] == name]
    return found


def environment(of: Mapping[str, Any]) -> dict[str, str]:
    """The variables of a container that have a value."""
    return {each["name"]: each["value"] for each in of.get("env", ()) if "value" in each}


def covering(of: Mapping[str, Any], path: str) -> dict[str, Any] | None:
    """The mount of a container that a path lies on: the innermost."""
    mounts = [each for each in of["volumeMounts"] if _lies_on(path, each["mountPath"])]
    return max(mounts, key=lambda each: len(each["mountPath"]), default=None)


def faults(deployment: Mapping[str, Any], agent: str = "certagent") -> list[str]:
    """Tell why a pod would not start, or its reader not find what the agent publishes."""
    spec = pod(deployment)
    return [*_name_faults(spec), *_mount_faults(spec), *_sharing_faults(spec, agent)]


def _containers(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", ()), *spec["containers"]]


def _lies_on(path: str, mount: str) -> bool:
    return PurePosixPath(path).is_relative_to(mount)


def _twice(what: str, names: Sequence[str]) -> Iterator[str]:
    yield from (f"{what} {name!r} twice" for name, count in Counter(names).items() if count > 1)


def _name_faults(spec: Mapping[str, Any]) -> Iterator[str]:
    yield from _twice("volume", [each["name"] for each in spec["volumes"]])
    yield from _twice("container", [each["name"] for each in _containers(spec)])
    for each in _containers(spec):
        yield from _twice(f"{each['name']}: variable", [one["name"] for one in each.get("env", ())])


def _mount_faults(spec: Mapping[str, Any]) -> Iterator[str]:
    volumes = {each["name"] for each in spec["volumes"]}
    for each in _containers(spec):
        mounts = each.get("volumeMounts", ())
        yield from _twice(f"{each['name']}: mount", [mount["mountPath"] for mount in mounts])
        for mount in mounts:
            if mount["name"] not in volumes:
                yield f"{each['name']}: no volume {mount['name']!r}"
            if "subPath" in mount:
                yield f"{each['name']}: {mount['mountPath']} by subPath never changes"


def _sharing_faults(spec: Mapping[str, Any], agent: str) -> Iterator[str]:
    """The agent starts before its reader, writes, and is the only one that does."""
    inits = [each["name"] for each in spec.get("initContainers", ())]
    if not any(name.startswith(agent) for name in inits):
        yield f"{agent} does not start before its reader"
    written = {
        mount["name"]
        for each in _containers(spec)
        if each["name"].startswith(agent)
        for mount in each["volumeMounts"]
        if not mount.get("readOnly")
    }
    if not written:
        yield f"{agent} can write nowhere"
    readers = [each for each in _containers(spec) if not each["name"].startswith(agent)]
    mounts = [(each["name"], mount) for each in readers for mount in each["volumeMounts"]]
    for name, mount in mounts:
        if mount["name"] in written and not mount.get("readOnly"):
            yield f"{name}: may write to {mount['mountPath']}"
    if not written <= {mount["name"] for _, mount in mounts}:
        yield f"nobody reads what {agent} writes"
