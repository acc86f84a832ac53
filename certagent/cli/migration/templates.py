"""A vault-agent template: which field of which secret it prints, where it is one that prints one.

This much of Go's text/template and of consul-template's functions is understood:

    template = [ "{{ with" [ "$v :=" ] secret "}}" ] "{{" value "}}" [ "{{ end }}" ]
    secret   = "secret" STRING
    value    = command { "|" trim }
    command  = place | "(" command ")" | trim place | "index" place STRING { STRING }
    place    = ".Data.f" | "$v.Data.f" | "(" secret ")" ".Data.f"
    trim     = "trimSpace" | "trim" [ STRING ] | …         of white space, which PEM does not mind

with any white space, trim markers and comments around. `.Data.f` is KV v1's form, `.Data.data.f` KV
v2's. Whatever else a template does, it is not guessed at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_CHARACTERS = 4000
"""A template that prints a field has a hundred."""

_MAX_TOKENS = 64

_TOKEN = re.compile(
    r"""
      (?P<string>  "(?:[^"\\\n]|\\.)*" | `[^`]*` )
    | (?P<chain>   (?:\$\w*)?(?:\.\w+)+ )      # .Data.ca_key   $secret.Data.ca_key
    | (?P<variable>\$\w* )
    | (?P<close>   \)(?:\.\w+)* )              # the end of (secret "path").Data.ca_key
    | (?P<word>    \w+ )
    | (?P<sign>    := | \| | \( )
    """,
    re.VERBOSE,
)
_SPACE = " \t\r\n"
_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\r": "\r", r"\"": '"', "\\\\": "\\"}
_TRIMS = {"trimSpace", "trim", "trimSuffix", "trimPrefix", "sprig_trim"}
_WRITES = "it writes to Vault, or has a certificate issued: certagent only reads with it"


class NotConvertible(Exception):
    """The template is not one that prints one field; says why."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a template prints: the field of the secret at `path`, in the form of KV 1 or 2."""

    path: str
    field: str
    kv_version: int


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


_Action = tuple[_Token, ...]


def read_template(text: str, left: str = "{{", right: str = "}}") -> Lookup:
    """Return what a template prints; raises `NotConvertible` for any other than these."""
    if len(text) > MAX_CHARACTERS:
        raise NotConvertible(f"it has more than {MAX_CHARACTERS} characters")
    match tuple(_actions(text, left, right)):
        case (value,):
            return _lookup(value, {})
        case (opening, value, (_Token("word", "end"),)):
            return _lookup(value, _opened(opening))
        case ():
            raise NotConvertible("it prints no field")
        case _:
            raise NotConvertible("it does more than print one field")


# Text and actions, as text/template/parse/lex.go tells them apart.


def _actions(text: str, left: str, right: str) -> Iterator[_Action]:
    """Yield the actions; what stands between them must be white space."""
    at = 0
    while (start := text.find(left, at)) >= 0:
        _require_blank(text[at:start])
        at = start + len(left)
        if text[at : at + 1] == "-" and text[at + 1 : at + 2] in {*_SPACE}:
            at += 1
        if text[at:].lstrip(_SPACE).startswith("/*"):
            at = _after_comment(text, at, right)
            continue
        tokens: list[_Token] = []
        while not (closed := _closing(text, at, right)):
            at = _after_token(text, at, tokens)
            if len(tokens) > _MAX_TOKENS:
                raise NotConvertible("it does more than print one field")
        at = closed
        yield tuple(tokens)
    _require_blank(text[at:])


def _require_blank(text: str) -> None:
    if text.strip(_SPACE):
        raise NotConvertible("it prints text of its own")


def _after_comment(text: str, at: int, right: str) -> int:
    end = text.find("*/", at)
    if end < 0 or not (closed := _closing(text, end + 2, right)):
        raise NotConvertible("a comment is not closed")
    return closed


def _closing(text: str, at: int, right: str) -> int:
    """Return the place after the action's end, if it is next; else 0."""
    rest = text[at:]
    blank = len(rest) - len(rest.lstrip(_SPACE))
    trim = 1 if blank and rest[blank : blank + 1] == "-" else 0
    end = at + blank + trim
    return end + len(right) if text.startswith(right, end) else 0


def _after_token(text: str, at: int, tokens: list[_Token]) -> int:
    """Take one token; return the place after it."""
    while text[at : at + 1] in {*_SPACE}:
        at += 1
    found = _TOKEN.match(text, at)
    if not found or not found.lastgroup:
        what = repr(text[at]) if at < len(text) else "its end"
        raise NotConvertible(f"{what} was not expected at character {at + 1}")
    tokens.append(_Token(found.lastgroup, found[0]))
    return found.end()


# What the actions say.


def _opened(action: _Action) -> dict[str, str]:
    """Return the secret's path that `with` leads to: at "" as the dot, or at a variable."""
    match action:
        case (_Token("word", "with"), *secret):
            pass
        case _:
            raise NotConvertible("it is not `with secret`")
    variables = [""]
    match secret:
        case [_Token("variable", name), _Token("sign", ":="), *secret]:
            variables.append(name)
    return dict.fromkeys(variables, _secret(secret))


def _secret(tokens: Sequence[_Token]) -> str:
    match tokens:
        case [_Token("word", "secret"), _Token("string") as path]:
            return _string(path)
        case [_Token("word", "secret"), _Token("string"), *_] | [_Token("word", "pkiCert"), *_]:
            raise NotConvertible(_WRITES)
        case _:
            raise NotConvertible("it is not `secret` and a path")


def _lookup(action: _Action, opened: dict[str, str]) -> Lookup:
    pipeline: list[list[_Token]] = [[]]
    for token in action:
        if token == _Token("sign", "|"):
            pipeline.append([])
        else:
            pipeline[-1].append(token)
    command, *trims = pipeline
    for each in trims:
        _require_trim(each)
    path, keys = _command(command, opened)
    match keys:
        case ("Data", "data", field):
            return Lookup(path, field, 2)
        case ("Data", field) if field != "data":
            return Lookup(path, field, 1)
        case _:
            raise NotConvertible(f"it prints .{'.'.join(keys)}, which is no field of a secret")


def _command(tokens: Sequence[_Token], opened: dict[str, str]) -> tuple[str, tuple[str, ...]]:
    """Return the path of the secret that a command reads, and the keys down to what it prints."""
    match tokens:
        case [_Token("chain", text)]:
            variable, *keys = text.split(".")
            if variable not in opened:
                raise NotConvertible(f"{text} is not of a secret that it reads")
            return opened[variable], tuple(keys)
        case [_Token("sign", "("), *secret, _Token("close", end)] if end != ")":
            return _secret(secret), tuple(end.split(".")[1:])
        case [_Token("sign", "("), *inner, _Token("close", ")")]:
            return _command(inner, opened)
        case [_Token("word", "index"), *place, _Token("string") as key]:
            index = _Token("word", "index")
            more = place and place[-1].kind == "string"
            path, above = _command([index, *place] if more else place, opened)
            return path, (*above, _string(key))
        case [_Token("word", name), *arguments, place] if name in _TRIMS:
            _require_trim([_Token("word", name), *arguments])
            return _command([place], opened)
        case [_Token("word", "pkiCert"), *_]:
            raise NotConvertible(_WRITES)
        case _:
            raise _not_a_field(tokens)


def _require_trim(tokens: Sequence[_Token]) -> None:
    """Take a function that takes white space off an end, and no other."""
    match tokens:
        case [_Token("word", name)] if name in _TRIMS:
            return
        case [_Token("word", name), _Token("string") as what] if name in _TRIMS:
            if not _string(what).strip(_SPACE):
                return
    raise _not_a_field(tokens)


def _not_a_field(tokens: Sequence[_Token]) -> NotConvertible:
    shown = " ".join(token.text for token in tokens)[:60] or "nothing"
    return NotConvertible(f"`{shown}` does not print a field as it is")


def _string(token: _Token) -> str:
    """Return what a Go string says; raises `NotConvertible` for escapes that no path needs."""
    body = token.text[1:-1]
    if token.text.startswith("`"):
        return body

    def unescaped(escape: re.Match[str]) -> str:
        if escape[0] not in _ESCAPES:
            raise NotConvertible(f"the escape {escape[0]} in a string is not understood")
        return _ESCAPES[escape[0]]

    return re.sub(r"\\.", unescaped, body)
