"""Every fault of a configuration in one go: msgspec stops at the first, an operator wants all.

Imported only when a configuration has been refused.
"""

from __future__ import annotations

import difflib
import types
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator


def structural_faults(value: object, kind: Any, path: str = "") -> Iterator[str]:
    """Yield each place where `value` is not a `kind`, as `path: what is wrong`.

    `value` is made of YAML's plain types, `kind` is a struct of the model or the type of one of its
    fields.
    """
    constraints = [arg for arg in get_args(kind)[1:] if isinstance(arg, msgspec.Meta)]
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(plain) in {Union, types.UnionType}:
        yield from _union_faults(value, plain, path)
    elif isinstance(plain, type) and issubclass(plain, msgspec.Struct):
        yield from _struct_faults(value, plain, path)
    elif get_origin(plain) is tuple and isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from structural_faults(item, get_args(plain)[0], f"{path}[{index}]")
    else:
        yield from _scalar_faults(value, kind, constraints, path)


def _union_faults(value: object, union: Any, path: str) -> Iterator[str]:
    arms = [arm for arm in get_args(union) if arm is not msgspec.UnsetType]
    if len(arms) == 1:
        yield from structural_faults(value, arms[0], path)
        return
    # A name that stands for an arm has become that arm before it comes here.
    arms = [arm for arm in arms if get_origin(arm) is not Literal]
    if not isinstance(value, dict):
        yield f"{path}: expected a mapping, got {_shown(value)}"
        return
    tag_field = arms[0].__struct_config__.tag_field
    by_tag = {arm.__struct_config__.tag: arm for arm in arms}
    tag = value.get(tag_field)
    if not isinstance(tag, str) or tag not in by_tag:
        yield f"{path}.{tag_field}: expected one of {', '.join(by_tag)}, got {_shown(tag)}"
        return
    rest = {key: item for key, item in value.items() if key != tag_field}
    yield from _struct_faults(rest, by_tag[tag], path)


def _struct_faults(value: object, struct: type[msgspec.Struct], path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path or 'the configuration'}: expected a mapping, got {_shown(value)}"
        return
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    at = f"{path}." if path else ""
    for key in value.keys() - fields.keys():
        near = difflib.get_close_matches(str(key), fields, n=1)
        meant = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(fields)}"
        yield f"{at}{key}: unknown key; {meant}"
    for name, field in fields.items():
        if name in value:
            yield from structural_faults(value[name], field.type, at + name)
        elif field.required:
            yield f"{at}{name}: missing"


def _scalar_faults(
    value: object, kind: Any, constraints: list[msgspec.Meta], path: str
) -> Iterator[str]:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        wanted = [meta.description for meta in constraints if meta.description]
        what = f"expected {wanted[0]}" if wanted else str(error).replace("Expected", "expected")
        yield f"{path}: {what}, got {_shown(value)}"


def _shown(value: object) -> str:
    """Return a value as an operator would recognise it, cut short."""
    if value is None:
        return "nothing"
    text = repr(value)
    return f"{type(value).__name__} {text[:60]}{'…' if len(text) > 60 else ''}"  # noqa: PLR2004
