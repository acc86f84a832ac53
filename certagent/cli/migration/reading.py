"""Where annotations of vault-agent's injector stand in a file, and what stands beside them.

Helm values, at any nesting; a Pod, a Deployment or anything else with a pod template; a List;
several documents in one file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from certagent.cli.migration.annotations import PREFIX
from certagent.config.yamltext import parse_all
from certagent.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 1 << 20
"""A chart's values have some hundred lines, a Deployment as the API server prints it some more."""

OPERATORS = "pilot"
"""Where an IstioOperator's values have istiod's: its chart reads them at the top level alone
(manifests/charts/istio-control/istio-discovery/values.yaml, 1.24), and leaves these out."""

MAPS = ("podAnnotations", "env")
"""What a chart's values have as maps, which Helm merges, and an overlay touches."""

_MAX_NODES = 100_000
_MAX_DEPTH = 60
_MOVED = {*MAPS, "volumes", "volumeMounts", "initContainers"}
_NOT_THE_PODS = {"deploymentAnnotations", "serviceAccountAnnotations", "serviceAnnotations"}
_HOW = "Give a chart's values, a Pod, or a Deployment, as `kubectl get -o yaml` prints it."


@dataclass(frozen=True, slots=True)
class Place:
    """Annotations of one pod, and what is known of it.

    `name` is how the file calls it. In a chart's values, `beside` are those of the same level,
    `nesting` the keys that lead there, and `head` begins the object that they are a part of, if it
    is one (a HelmRelease, say). Of a pod, `beside` is its spec, and `target` says which object it
    is: apiVersion, kind, name and namespace.

    `is_moved`: a chart's values have them under `pilot`, and the overlay has them at the top level,
    where the chart reads them; `beside` is then what both say, and the top level counts. `twice`
    are the keys at both, and `unread` those that stay under `pilot`, of no effect.
    """

    name: str
    annotations: Mapping[str, object]
    beside: Mapping[str, Any]
    nesting: tuple[str, ...] = ()
    head: Mapping[str, Any] = field(default_factory=dict)
    target: Mapping[str, str] = field(default_factory=dict)
    is_moved: bool = False
    twice: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def is_pod(self) -> bool:
        """Whether it is an object of Kubernetes, and not values of a chart."""
        return bool(self.target)

    def variable(self, name: str) -> str:
        """Return a variable of the reader's, as far as it is told here; else the empty text."""
        environs = [self.beside.get("env")]
        if self.is_pod:
            environs = [each.get("env") for each in _mappings(self.beside.get("containers"))]
        for environ in environs:
            if isinstance(environ, Mapping):
                return _text(environ.get(name))
            for variable in _mappings(environ):
                if variable.get("name") == name:
                    return _text(variable.get("value"))
        return ""

    def entries(self, key: str) -> list[Mapping[str, Any]]:
        """Return what a list beside the annotations holds: volumes, initContainers and so on."""
        return _mappings(self.beside.get(key))


def places(data: bytes, what: str) -> list[Place]:
    """Return every place; raises `ConfigurationError` for what is not YAML, or holds none."""
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{what} is larger than {MAX_BYTES} bytes.", hint=_HOW)
    found = [each for document in parse_all(data, what) for each in _read(document, what)]
    if not found:
        raise ConfigurationError(f"{what} has no annotation {PREFIX}….", hint=_HOW)
    return found


def choose(found: list[Place], name: str | None, what: str) -> Place:
    """Return the place of this name, or the only one; raises `UsageError`."""
    names = [place.name for place in found]
    if name is None and len(found) == 1:
        return found[0]
    if name is None:
        shown = ", ".join(repr(each) for each in names[:10])
        raise UsageError(
            f"{what} has annotations at {len(names)} places: {shown}.",
            hint="Choose one with --at: each becomes an overlay of its own.",
        )
    if names.count(name) != 1:
        why = "more than one such place" if name in names else "no such place"
        raise UsageError(
            f"{what} has {why}: {name!r}.",
            hint=f"It has: {', '.join(names[:10])}. Give the file of one pod alone.",
        )
    return found[names.index(name)]


def _read(document: object, what: str) -> list[Place]:
    """Return a document's places, without those that stand at a second place of no effect."""
    found = list(_places(document, what))
    is_read = any(each.name == "podAnnotations" for each in found)
    return [each for each in found if not (is_read and each.is_moved)]


def _places(document: object, what: str) -> Iterator[Place]:
    """Walk a document."""
    nodes = 0
    stack: list[tuple[tuple[tuple[str, Any], ...], Any]] = [((), document)]
    while stack:
        path, node = stack.pop()
        nodes += 1
        if nodes > _MAX_NODES or len(path) > _MAX_DEPTH:
            raise ConfigurationError(f"{what} nests more than values do.", hint=_HOW)
        if isinstance(node, dict):
            if any(isinstance(key, str) and key.startswith(PREFIX) for key in node):
                yield _place(path, node)
                continue
            inner = [(str(key), value) for key, value in node.items()]
        elif isinstance(node, list):
            inner = [(f"[{index}]", value) for index, value in enumerate(node)]
        else:
            continue
        stack += [((*path, (key, node)), value) for key, value in reversed(inner)]


def _place(path: tuple[tuple[str, Any], ...], annotations: dict[Any, object]) -> Place:
    """Return a place by its path: each key, with what it is a key of."""
    given = {str(key): value for key, value in annotations.items()}
    if tuple(key for key, _ in path[-2:]) == ("metadata", "annotations"):
        return _pod(path, given)
    start, owner = _object(path)
    keys = tuple(key for key, _ in path[start:])
    target = _target(owner) if owner else {}
    name = " ".join(filter(None, [_called(target), ".".join(keys) or "annotations"]))
    if keys and keys[-1] in _NOT_THE_PODS:
        raise ConfigurationError(
            f"{name} does not reach the Pod, where the injector looks.",
            hint="The injector reads podAnnotations.",
        )
    if any(key.startswith("[") for key in keys) or "k8s" in keys:
        raise ConfigurationError(
            f"{name} is where no overlay reaches: a list, or an IstioOperator's k8s settings.",
            hint="Give the values of Istio's chart alone; its podAnnotations do the same.",
        )
    beside = path[-1][1] if path else {}
    if path and not owner and keys[:-1] in {(), (OPERATORS,)}:
        return _at_the_top(Place(name, given, beside, keys[:-1]), path[0][1])
    head: dict[str, Any] = {}
    if owner:
        head = {key: target[key] for key in ("apiVersion", "kind")}
        names = {key: target[key] for key in ("name", "namespace") if target[key]}
        head["metadata"] = names
    return Place(name, given, beside, keys[:-1], head)


def _at_the_top(place: Place, top: dict[Any, Any]) -> Place:
    """Return a place in a chart's values where the chart reads it, beside all of its values."""
    under = top.get(OPERATORS)
    if not isinstance(under, dict):
        return place
    said = {key: value for key, value in top.items() if value is not None}
    both = {**under, **said}
    twice = []
    for key in (each for each in under if each in said):
        if key in MAPS and isinstance(under[key], dict) and isinstance(said[key], dict):
            both[key] = {**under[key], **said[key]}
            if not under[key].keys() & said[key].keys():
                continue
        twice.append(str(key))
    place = replace(place, twice=tuple(twice))
    if not place.nesting:
        return place
    unread = tuple(str(key) for key in under if key not in _MOVED and key not in said)
    return replace(place, beside=both, nesting=(), is_moved=True, unread=unread)


def _pod(path: tuple[tuple[str, Any], ...], annotations: dict[str, object]) -> Place:
    """Return the place of a pod, or of a pod template, whose annotations these are."""
    start, owner = _object(path)
    target = _target(owner or {"kind": "pod", "metadata": {"name": "template"}})
    name = _called(target)
    spec = path[-2][1].get("spec")
    if owner and tuple(key for key, _ in path[start:-2]) not in {(), ("spec", "template")}:
        raise ConfigurationError(
            f"{name} has its Pods' template where no Deployment has it: a patch would not reach"
            " it.",
            hint="istiod and gateways are Deployments, or of a kind with the same spec.template.",
        )
    if not (isinstance(spec, dict) and _mappings(spec.get("containers"))):
        raise ConfigurationError(
            f"{name} has the annotations on itself; the injector looks at those of its Pods.",
            hint="Give an object with a pod template that has them (spec.template.metadata).",
        )
    return Place(name, annotations, spec, target=target)


def _object(path: tuple[tuple[str, Any], ...]) -> tuple[int, dict[str, Any] | None]:
    """Return the nearest object of Kubernetes that a place is in, and where its keys begin."""
    for index in reversed(range(len(path))):
        owner = path[index][1]
        if isinstance(owner, dict) and isinstance(owner.get("kind"), str):
            return index, owner
    return 0, None


def _target(owner: Mapping[str, Any]) -> dict[str, str]:
    metadata = owner.get("metadata")
    told = metadata if isinstance(metadata, dict) else {}
    return {
        "apiVersion": str(owner.get("apiVersion") or ""),
        "kind": owner["kind"],
        "name": str(told.get("name") or ""),
        "namespace": str(told.get("namespace") or ""),
    }


def _called(target: Mapping[str, str]) -> str:
    return f"{target['kind']} {target['name'] or '(unnamed)'}" if target else ""


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value or "")


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
