"""The chart of certagent: rendered by Helm's own engine, and what of it is generated.

    python -m tests.support.chart        # write values.schema.json, and the README's table

The schema's part for `config` is the configuration's own; the rest, which only the chart knows, is
here. The table is made of the comments in values.yaml that begin with `# --`.
"""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import helm_python
import yaml

from certagent.config.model import json_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CHART = Path(__file__).parents[2] / "charts" / "certagent"
SCHEMA, README, VALUES = CHART / "values.schema.json", CHART / "README.md", CHART / "values.yaml"
_INCLUDING = Path(__file__).parent / "charts" / "including"
DASHBOARD = CHART / "dashboards" / "certagent.json"

# What the chart says about itself


def _strings() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": {"type": "string"}}


def _an_object(*required: str, **properties: Any) -> dict[str, Any]:
    rest: dict[str, Any] = {"required": list(required)} if required else {}
    return {"type": "object", "properties": properties, "additionalProperties": False, **rest}


def _a_list(items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


_TEXT = {"type": "string"}
_SWITCH = {"type": "boolean"}
_NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}
_PATH = {"type": "string", "pattern": "^/[^:,{}]+$"}
# What Kubernetes itself knows: its API server tells what is wrong with it.
_KUBERNETES = {"type": "object"}
_NAMED = {"type": "object", "required": ["name"], "properties": {"name": _TEXT}}
# `valueFrom` is Kubernetes' own. A bare `true` is no text, and its API server would refuse the pod.
_VARIABLE = {"type": "object", "required": ["name"], "properties": {"name": _TEXT, "value": _TEXT}}
_MOUNT = {
    "type": "object",
    "required": ["name", "mountPath"],
    "properties": {"name": _TEXT, "mountPath": _PATH},
}
_PROBE = {"type": "object", "properties": {"httpGet": False, "exec": False, "tcpSocket": False}}

_OWN: dict[str, Any] = {
    "fullnameOverride": {"type": "string", "pattern": "^([a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?)?$"},
    "image": _an_object(
        "repository",
        repository={"type": "string", "pattern": "^[^\\s@]+$"},
        tag={"type": "string", "pattern": "^[\\w.-]{0,128}$"},
        digest={"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
        pullPolicy={"enum": ["", "Always", "IfNotPresent", "Never"]},
    ),
    "env": _a_list(_VARIABLE),
    "outputs": _a_list(
        _an_object(
            "name",
            "mountPath",
            "sizeLimit",
            name=_NAME,
            mountPath=_PATH,
            sizeLimit={"type": "string", "pattern": "^[0-9]+(Ki|Mi|Gi)$"},
        ),
        minItems=1,
    ),
    "tokens": _a_list(
        _an_object(
            "name",
            "mountPath",
            "path",
            "audience",
            "expirationSeconds",
            name=_NAME,
            mountPath=_PATH,
            path={"type": "string", "pattern": "^[^/:,{}]+$"},
            audience={"type": "string", "minLength": 1},
            # Kubernetes' own bounds: ten minutes at least.
            expirationSeconds={"type": "integer", "minimum": 600, "maximum": 1 << 32},
        )
    ),
    "extraVolumes": _a_list(_NAMED),
    "extraVolumeMounts": _a_list(_MOUNT),
    "startupProbe": _PROBE,
    "livenessProbe": _PROBE,
    "readinessProbe": _PROBE,
    "resources": _KUBERNETES,
    "securityContext": _KUBERNETES,
    # What is required here has a default: `null` has taken it out.
    "podMonitor": _an_object(
        "matchLabels",
        "interval",
        enabled=_SWITCH,
        labels=_strings(),
        matchLabels={**_strings(), "minProperties": 1},
        interval={"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
    ),
    "prometheusRule": _an_object(
        "clusterLabel",
        enabled=_SWITCH,
        labels=_strings(),
        clusterLabel={"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"},
        expiry=_a_list(
            _an_object(
                "days",
                "severity",
                days={"type": "integer", "minimum": 1},
                severity={"type": "string", "minLength": 1},
            )
        ),
    ),
    "dashboard": _an_object(enabled=_SWITCH, labels=_strings(), annotations=_strings()),
    # Helm's own: what charts share, and what an including chart's `condition` reads.
    "global": {"type": "object"},
    "enabled": _SWITCH,
}


def values_schema() -> dict[str, Any]:
    """The schema of values.yaml, in the draft that every Helm 3 reads, too."""
    text = json.dumps(json_schema()).replace("#/$defs/", "#/definitions/")
    configuration = json.loads(text)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of certagent's chart",
        "type": "object",
        "properties": {**_OWN, "config": {"$ref": configuration["$ref"]}},
        "required": ["config", "image", "outputs"],
        "additionalProperties": False,
        "definitions": configuration["$defs"],
    }


# What its README says


def documented() -> Iterator[tuple[str, str]]:
    """Each value that values.yaml explains: its path, and what is said."""
    path: list[str] = []
    told = ""
    for line in VALUES.read_text().splitlines():
        comment = re.match(r" *# (--)?(.*)", line)
        key = re.match(r"( *)(\w+):", line)
        if comment and (comment[1] or told):
            told = f"{told} {comment[2].strip()}".strip()
        elif key:
            path[len(key[1]) // 2 :] = [key[2]]
            if told:
                yield ".".join(path), told
            told = ""


def values_table() -> str:
    """The README's table: value, default, meaning."""
    values = yaml.safe_load(VALUES.read_text())
    rows = [
        f"| `{path}` | {_shown(_at(values, path))} | {told.replace('|', chr(92) + '|')} |"
        for path, told in documented()
    ]
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *rows])


def _at(values: Any, path: str) -> Any:
    for key in path.split("."):
        values = values[key]
    return values


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return f"`{text}`" if len(text) <= 60 else "see values.yaml"


def with_table(readme: str) -> str:
    """A README with the present table between its marks."""
    begin, end = "<!-- values: begin -->\n", "<!-- values: end -->"
    head, _, rest = readme.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}{values_table()}\n{end}{tail}"


def schema_text() -> str:
    """values.schema.json as a file."""
    return json.dumps(values_schema(), indent=2) + "\n"


# Rendering


@cache
def chart() -> helm_python.Chart:
    """The chart itself."""
    return helm_python.Chart.load(CHART)


def rendered(values: Mapping[str, Any] | None = None, *, name: str = "certagent") -> dict[str, Any]:
    """The chart's resources, as `Kind/name`; what is off is not there."""
    texts = chart().render(dict(values or {}), name=name, namespace="istio-system").values()
    documents = [document for text in texts for document in yaml.safe_load_all(text) if document]
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in documents}


class Including:
    """A chart that has certagent's as a dependency, and prints what its templates make of it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "including"
        shutil.copytree(_INCLUDING, self.path)
        shutil.copytree(CHART, self.path / "charts" / "certagent")
        self._chart = helm_python.Chart.load(self.path)

    def text(self, **certagent: Any) -> str:
        """What the templates print, one after the other, each under its name."""
        texts = self._chart.render(
            {"certagent": certagent}, name="istiod", namespace="istio-system"
        )
        return texts["including/templates/templates.yaml"]

    def templates(self, **certagent: Any) -> dict[str, list[dict[str, Any]]]:
        """The lists, by the templates' names."""
        return yaml.safe_load(self.text(**certagent))


if __name__ == "__main__":
    SCHEMA.write_text(schema_text())
    README.write_text(with_table(README.read_text()))
