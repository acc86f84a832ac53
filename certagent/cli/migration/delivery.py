"""The overlay of a migration: the configuration's own, and what the annotations say of the pod."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from certagent.cli.migration.annotations import PREFIX, not_convertible
from certagent.cli.migration.reading import MAPS, OPERATORS
from certagent.cli.migration.resources import reserved
from certagent.errors import UsageError
from certagent.kubernetes import overlay
from certagent.kubernetes.agent import NAME
from certagent.kubernetes.istio import ISTIOD

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from certagent.cli.migration.reading import Place
    from certagent.cli.migration.translation import Migration
    from certagent.kubernetes.options import Options

MULTIROOT = "ISTIO_MULTIROOT_MESH"
_OFF = {f"{PREFIX}agent-inject": "false"}
_CONTAINERS = ("initContainers", "additionalContainers", "containers")
_LISTS = ("volumes", "volumeMounts", "initContainers", "additionalContainers")
_INJECTED = ("vault-secrets", "home-init", "home-sidecar")
"""The injector's own volumes, which a running pod has, and which go with it."""


def values(migration: Migration, options: Options) -> dict[str, Any]:
    """Return values to be given after those with the annotations, nested as the chart reads them.

    Helm replaces lists, so they begin with what stands beside the annotations. Raises
    `ConfigurationError` where a name or a path is taken, and what the overlay raises.
    """
    if "gateways" in migration.place.nesting[:-1]:
        raise UsageError(
            f"{migration.place.name} are values of Istio's old gateway charts, which take no"
            " initContainers.",
            hint="--kustomize prints a patch of the Deployment; the chart `gateway` takes values.",
        )
    make = overlay.istiod_values if migration.reader is ISTIOD else overlay.gateway_values
    made = make(migration.config, _environ(migration), _options(migration, options))
    _adapt(made, migration)
    if migration.is_once:
        made.pop("additionalContainers", None)
    _require_no_clash(made, migration)
    for key in _LISTS:
        theirs = [_plain(each, key) for each in migration.place.entries(key)]
        if theirs and key in made:
            last = key == "initContainers" and not migration.is_first
            made[key] = [*theirs, *made[key]] if last else [*made[key], *theirs]
    made = {"podAnnotations": _OFF, **made}
    if migration.place.is_moved:
        made = _moved(made, migration.place)
    for key in reversed(migration.place.nesting):
        made = {key: made}
    return {**migration.place.head, **made}


def _moved(made: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Return values for the top level, with what `pilot` has of the same maps.

    The annotations are off under `pilot` too, for what still reads them there.
    """
    moved = dict(made)
    for key in MAPS:
        theirs = place.beside.get(key)
        if isinstance(theirs, dict):
            kept = {name: value for name, value in theirs.items() if _is_kept(name, value)}
            moved[key] = {**_plain(kept, key), **made.get(key, {})}
    return {**moved, OPERATORS: {"podAnnotations": _OFF}}


def _is_kept(name: object, value: object) -> bool:
    """Tell whether Helm would set it, and the overlay does not switch it off."""
    return value is not None and not str(name).startswith(PREFIX)


def patch(migration: Migration, options: Options, *, name: str, namespace: str) -> dict[str, Any]:
    """Return a strategic merge patch of the annotated object; raises as `values` does."""
    made = overlay.patch(
        migration.reader,
        migration.config,
        _environ(migration),
        _options(migration, options),
        name=name,
        namespace=namespace,
    )
    target = migration.place.target
    if target and target["kind"] != "Pod":
        made |= {"apiVersion": target["apiVersion"], "kind": target["kind"]}
    spec = made["spec"]["template"]["spec"]
    _adapt(spec, migration)
    if migration.is_once:
        spec["containers"] = spec["containers"][:1]
    _require_no_clash(spec, migration)
    made["spec"]["template"] = {"metadata": {"annotations": _OFF}, "spec": spec}
    return made


def stays(migration: Migration, options: Options, *, is_patch: bool) -> bool:
    """Return whether the agent goes on after the start: istiod's chart takes no second container.

    Before native sidecars only a patch, or a gateway's values, can bring one beside its reader.
    """
    return not migration.is_once and (options.native or is_patch or migration.reader is not ISTIOD)


def _environ(migration: Migration) -> dict[str, str]:
    """Return what the agent is told, and what istiod is told already about roots."""
    told = migration.place.variable(MULTIROOT)
    return {**migration.environ, **({MULTIROOT: told} if told else {})}


def _options(migration: Migration, options: Options) -> Options:
    return replace(
        options,
        audience=migration.audience,
        config_map="" if migration.environ else options.config_map or _name(migration),
        secrets={**migration.secrets, **options.secrets},
    )


def _name(migration: Migration) -> str:
    return f"{NAME}-{migration.reader.chart}"


def _ours(made: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return certagent's containers; a patch also names the reader's."""
    containers = [each for key in _CONTAINERS for each in made.get(key, ())]
    return [each for each in containers if each["name"].startswith(NAME)]


def _adapt(made: dict[str, Any], migration: Migration) -> None:
    """Give certagent's containers what the annotations ask for."""
    for container in _ours(made):
        if migration.proxy:
            proxy = {"name": "HTTPS_PROXY", "value": migration.proxy}
            container["env"] = [*container.get("env", ()), proxy]
        container["resources"] = reserved(container["resources"], migration.resources)
        if migration.is_once:
            container["args"][0] = "init"
            for key in ("restartPolicy", "startupProbe", "livenessProbe"):
                container.pop(key, None)


def _require_no_clash(made: Mapping[str, Any], migration: Migration) -> None:
    faults = list(_clashes(made, migration))
    if faults:
        raise not_convertible(faults)


def _clashes(made: Mapping[str, Any], migration: Migration) -> Iterator[str]:
    """Yield the names and paths of the overlay that the pod has already."""
    place = migration.place
    where = place.name
    taken = {str(each.get("name")) for each in place.entries("volumes")}
    for volume in made["volumes"]:
        if volume["name"] in taken:
            yield f"{where}: a volume is named {volume['name']} already; give yours another name"
    containers = {str(each.get("name")) for key in _CONTAINERS for each in place.entries(key)}
    reader = migration.reader.container
    if place.is_pod and reader not in containers:
        yield f"{where}: it has no container {reader}, which would read the files"
    for container in _ours(made):
        if container["name"] in containers:
            yield f"{where}: a container is named {container['name']} already: is it migrated?"
    mounts = place.entries("volumeMounts")
    if place.is_pod:
        mounts = [mount for each in place.entries("containers") for mount in _mounts(each)]
    paths = {
        str(each.get("mountPath")).rstrip("/")
        for each in mounts
        if not str(each.get("name")).startswith(_INJECTED)
    }
    for bundle in migration.bundles:
        if bundle.directory in paths:
            yield f"{where}: another volume is mounted at {bundle.directory}"


def _mounts(container: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    mounts = container.get("volumeMounts")
    return [each for each in mounts if isinstance(each, dict)] if isinstance(mounts, list) else []


def _plain(value: Mapping[str, Any], key: str) -> Any:
    """Return a copy of what is plain data, as all values are; raises `ConfigurationError`."""
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        raise not_convertible([f"{key}: it has what only YAML can say (!!binary, !!set)"]) from None
    return deepcopy(value)
