"""YAML as operators write it: a key that is given twice is a fault, and `on` is a word."""

from __future__ import annotations

import re
from typing import Any

import yaml

from certagent.config.decoding import is_text
from certagent.errors import ConfigurationError

_BOOLEAN_TAG = "tag:yaml.org,2002:bool"
_OF_YAML_1_1 = {_BOOLEAN_TAG, "tag:yaml.org,2002:timestamp"}


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, where PyYAML would let the last one win."""

    # YAML 1.1 reads the key `on`, which hooks have, as a truth; YAML 1.2 knows two of them alone,
    # and takes a date for text.
    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way
        first: [(tag, regexp) for tag, regexp in known if tag not in _OF_YAML_1_1]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        if isinstance(node.value, str) and not is_text(node.value):
            raise yaml.constructor.ConstructorError(
                None, None, "half of a surrogate pair is not text", node.start_mark
            )
        return super().construct_scalar(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if isinstance(key, str) and key in seen:
                mark = key_node.start_mark
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", mark
                )
            seen.add(str(key))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(_BOOLEAN_TAG, re.compile("^(?:true|false)$"), list("tf"))


def parse_all(data: bytes, what: str) -> list[object]:
    """Return what each document holds; `what` names them in the `ConfigurationError` raised."""
    try:
        return list(yaml.load_all(data, _Loader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise ConfigurationError(f"{what} is not valid YAML{at}: {problem}.") from None
