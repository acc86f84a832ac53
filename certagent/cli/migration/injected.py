"""The files that the injector would write, and the bundles that they make up."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

from certagent.cli.migration.annotations import truth
from certagent.cli.migration.templates import Lookup, NotConvertible, read_template
from certagent.material.kinds import CA, Kind
from certagent.material.serving import tls

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from certagent.cli.migration.annotations import Annotations

SECRETS_DIRECTORY = "/vault/secrets"
_SHOWN = 300

_KINDS = (CA, tls())
_KEYS = {"private_key": "privateKey"}  # the rest is called the same in the configuration


@dataclass(frozen=True, slots=True)
class InjectedFile:
    """A file that a template would write: where, and from which field."""

    directory: str
    file: str
    lookup: Lookup


@dataclass(frozen=True, slots=True)
class InjectedBundle:
    """The files of one directory, which are the parts of one bundle."""

    name: str
    kind: Kind
    directory: str
    mount: str
    path: str
    fields: Mapping[str, str]
    kv_version: int

    def configuration(self) -> dict[str, Any]:
        """Return the bundle as the configuration has it.

        A field is named where a default would not do: also the CA for clients, which may be missing
        unless somebody names it.
        """
        names = {
            _KEYS.get(part, part): field
            for part, field in self.fields.items()
            if field != self.kind.fields[part] or part in self.kind.optional - {"crls"}
        }
        source: dict[str, Any] = {"mount": self.mount, "path": self.path}
        return {
            "name": self.name,
            "kind": self.kind.name,
            "source": {"vaultKV": source | ({"fields": names} if names else {})},
            "output": {"directory": self.directory},
        }


def injected_files(given: Annotations, faults: list[str]) -> list[InjectedFile]:
    """Return the files whose templates are understood; add to `faults` why others are not."""
    secrets = {each.suffix: each.value for each in given.all if each.base == "agent-inject-secret"}
    templates = given.of("agent-inject-template")
    faults += [
        f"agent-inject-template-{name}: there is no agent-inject-secret-{name}"
        for name in sorted(templates.keys() - secrets.keys())
    ]
    found = []
    for name, path in secrets.items():
        try:
            lookup = _lookup(given, name, path)
        except NotConvertible as error:
            kind = "template" if name in templates else "secret"
            faults.append(f"agent-inject-{kind}-{name}: {error}")
        else:
            found.append(InjectedFile(*_file(given, name), lookup))
    return found


def _lookup(given: Annotations, name: str, path: str) -> Lookup:
    """Return what a secret's template prints; raises `NotConvertible` with all there is to say."""
    template = given.of("agent-inject-template").get(name)
    if template is None:
        raise NotConvertible(
            "without a template, the file has every field with its name before it: no reader takes"
            f" that; give agent-inject-template-{name}"
        )
    left = given.of("agent-template-left-delim").get(name, "{{")
    right = given.of("agent-template-right-delim").get(name, "}}")
    try:
        lookup = read_template(template, left, right)
    except NotConvertible as error:
        shown = f"{template[:_SHOWN]!r}{'…' if len(template) > _SHOWN else ''}"
        raise NotConvertible(f"not convertible, {error}: {shown}") from None
    if path and _plain(path) != _plain(lookup.path):
        raise NotConvertible(
            f"it reads {lookup.path!r}, and agent-inject-secret-{name} says {path!r}"
        )
    return lookup


def _plain(path: str) -> str:
    """Return a path as it reads with and without the `data/` of KV v2's API."""
    return path.strip("/").replace("/data/", "/", 1)


def _file(given: Annotations, name: str) -> tuple[str, str]:
    """Return directory and name of a secret's file, as the injector makes them."""
    kept = given.of("preserve-secret-case")
    is_kept = truth(kept.get(name) or kept.get("", "false"))
    file = given.of("agent-inject-file").get(name) or (name if is_kept else name.lower())
    directories = given.of("secret-volume-path")
    directory = directories.get(name) or directories.get("", SECRETS_DIRECTORY)
    # Go's filepath.Join: a leading slash is one more separator, and no way out of the volume.
    return posixpath.split(posixpath.normpath(f"{directory}/{file}"))


def injected_bundles(
    files: Sequence[InjectedFile], mount: str, faults: list[str]
) -> list[InjectedBundle]:
    """Return what the files of each directory make up; add to `faults` what makes up nothing.

    `mount` is the secrets engine's, where it has more than one name and no template tells.
    """
    directories = dict.fromkeys(each.directory for each in files)
    found: list[InjectedBundle] = []
    for directory in directories:
        here = [each for each in files if each.directory == directory]
        try:
            bundle = _bundle(directory, here, mount)
        except ValueError as error:
            faults.append(f"{directory}: {error}")
            continue
        if bundle.name in {each.name for each in found}:
            bundle = replace(bundle, name=f"{bundle.name}-{len(found) + 1}")
        found.append(bundle)
    if len(cas := [each.directory for each in found if each.kind.is_ca]) > 1:
        faults.append(f"{', '.join(cas)}: istiod reads one CA, and these are {len(cas)}")
    for one, other in permutations(directories, 2):
        if other.startswith(f"{one}/"):
            faults.append(f"{other}: it lies in {one}, which has files of its own")
    return found


def _bundle(directory: str, files: Sequence[InjectedFile], mount: str) -> InjectedBundle:
    """Return the bundle of a directory; raises `ValueError` with why there is none."""
    kind, by_part = _parts(files)
    secrets = {each.file: _split(each.lookup, mount) for each in files}
    if len(set(secrets.values())) > 1:
        told = ", ".join(f"{file} from {'/'.join(where)}" for file, where in secrets.items())
        raise ValueError(
            "one set needs one secret, for two are read at two moments; store the parts as fields"
            f" of one: {told}"
        )
    versions = {each.lookup.kv_version for each in files}
    if len(versions) > 1:
        raise ValueError("some templates have the form of KV v1 (.Data.x), others KV v2's")
    (mount, path) = secrets[files[0].file]
    name = "istiod-ca" if kind.is_ca else _name(directory)
    fields = {part: each.lookup.field for part, each in by_part.items()}
    return InjectedBundle(name, kind, directory, mount, path, fields, versions.pop())


def _parts(files: Sequence[InjectedFile]) -> tuple[Kind, dict[str, InjectedFile]]:
    """Return the kind of bundle, and the file of each part."""
    known = {name for kind in _KINDS for name in kind.files.values()}
    if strange := [each for each in files if each.file not in known]:
        raise ValueError(
            f"{', '.join(each.file for each in strange)} is no part of a CA"
            f" ({', '.join(_KINDS[0].files.values())}) nor of a gateway's certificate"
            f" ({', '.join(_KINDS[1].files.values())})"
        )
    names = [each.file for each in files]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two secrets write {', '.join(twice)}")
    kinds = [kind for kind in _KINDS if {*kind.files.values()} & {*names}]
    if len(kinds) > 1:
        raise ValueError("it has files of a CA and of a gateway: istiod would read tls.crt")
    (kind,) = kinds
    by_part = {
        part: each for part, name in kind.files.items() for each in files if each.file == name
    }
    if missing := kind.files.keys() - by_part.keys() - kind.optional:
        lacking = ", ".join(sorted(kind.files[part] for part in missing))
        raise ValueError(f"no annotation writes {lacking}: a set without is of no use")
    return kind, by_part


def _split(lookup: Lookup, mount: str) -> tuple[str, str]:
    """Return a secret's mount and its path below; raises `ValueError` for a path without both.

    A template may have the path of KV v2's API, `mount/data/path`, or leave `data/` to the agent.
    A mount of more than one name is told by that `data/`, or by hand.
    """
    path = lookup.path.strip("/")
    if "?" in path:
        raise ValueError(f"{path} pins a version, where certagent follows the newest good one")
    names = path.split("/")
    if mount and path.startswith(f"{mount}/"):
        given, below = mount, path.removeprefix(f"{mount}/")
        below = below.removeprefix("data/") if lookup.kv_version == 2 else below  # noqa: PLR2004
    elif "data" in names[1:-1] and lookup.kv_version == 1:
        raise ValueError(
            f"{path} is a path of KV v2, where .Data.{lookup.field} is nothing: is it"
            f" .Data.data.{lookup.field}?"
        )
    elif "data" in names[1:-1]:
        at = names.index("data", 1)
        given, below = "/".join(names[:at]), "/".join(names[at + 1 :])
    else:
        given, _, below = path.partition("/")
    if not given or not below or "" in names:
        raise ValueError(f"{path!r} is not a mount and a path below it")
    return given, below


def _name(directory: str) -> str:
    last = re.sub("[^a-z0-9]+", "-", posixpath.basename(directory).lower()).strip("-")
    return last[:63].strip("-") if last and directory != SECRETS_DIRECTORY else "gateway"
