"""YAML as operators write it: a key that is given twice is a fault, and `on` is a word.

What a document can grow to is bounded: nine lines of aliases of aliases are a billion values.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from certagent.config.decoding import is_text
from certagent.errors import ConfigurationError, one_line

_LARGEST = 4 << 20
"""Characters and values of a document with all aliases written out: far above what text says that
is read here (1 MiB, a Secret of 4 MiB)."""

_LONGEST_NUMBER = 100
"""Characters. Python takes the square of their count to read a number, and shows no huge one."""

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

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self._size = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, and count what it stands for; an alias of what it is in has no end."""
        is_alias = self.check_event(yaml.AliasEvent)
        before = self._size
        node = super().compose_node(parent, index)
        if is_alias:
            self._size += self._sizes.get(id(node), _LARGEST)
        else:
            self._size += 1 + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
            self._sizes[id(node)] = self._size - before
        if node and self._size > _LARGEST:
            raise yaml.composer.ComposerError(
                None, None, "it is too large with its aliases written out", node.start_mark
            )
        return node

    def construct_number(self, node: yaml.ScalarNode) -> int:
        if len(str(node.value)) > _LONGEST_NUMBER:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of more than {_LONGEST_NUMBER} digits", node.start_mark
            )
        return self.construct_yaml_int(node)

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
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)

_RAISED = (
    yaml.YAMLError,
    RecursionError,
    # PyYAML takes text under a tag for what the tag says: `!!int ""`, `!!bool x`, `!!set [x]`,
    # `!!timestamp x`; and an escape for a character: `"\UFFFFFFFF"`.
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


class Unreadable(Exception):
    """The text is no YAML: `line` and `column` say where, the message what; it may quote it."""

    def __init__(self, problem: str, line: int | None, column: int | None) -> None:
        super().__init__(problem)
        self.line = line
        self.column = column


def documents(data: bytes) -> list[object]:
    """Return what each document holds; raises `Unreadable`."""
    try:
        return list(yaml.load_all(data, _Loader))
    except _RAISED as error:
        mark = getattr(error, "problem_mark", None)
        place = (mark.line + 1, mark.column + 1) if mark else (None, None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise Unreadable(one_line(str(problem)), *place) from None


def parse_all(data: bytes, what: str) -> list[object]:
    """Return what each document holds; `what` names them in the `ConfigurationError` raised."""
    try:
        return documents(data)
    except Unreadable as error:
        at = f" at line {error.line}, column {error.column}" if error.line else ""
        raise ConfigurationError(f"{what} is not valid YAML{at}: {error}.") from None
