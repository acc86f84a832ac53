"""pilot-agent as far as a publisher can tell: how it watches and reads a gateway's files.

A re-creation of security/pkg/nodeagent/cache/secretcache.go with fsnotify 1.10.1, in three ages:

- 1.28 watches the certificate file, which is the inode that its path led to. When that is deleted
  it reads, and watches what the path leads to by then.
- 1.29.0 does so for plain files alone. Where a component of the path is a symlink, it watches what
  that leads to, the file's resolved path, and the symlink's directory. When the file is deleted,
  fsnotify says nothing where it also watches the file's directory, and the watch is lost.
- 1.31 (also 1.29.3 and 1.30.3) takes a new `..data` beside the file for a change too.

That these rules bring out what was measured with Istio's own code is tested in
`test_gateway_watch.py`. One of them is inferred: of several symlinks on the way, the one nearest to
the file counts.

Nothing happens by itself: at each `turn` the agent takes the events that have come, and reads. Who
cannot read a set reads again at the next turn, which stands for the agent's 10 s of retries.
"""

import os
from pathlib import Path
from typing import NamedTuple

from tests.support.inotify import (
    ATTRIB,
    CREATE,
    DELETE,
    DELETE_SELF,
    IGNORED,
    MODIFY,
    MOVE_SELF,
    MOVED_FROM,
    MOVED_TO,
    added,
    drained,
    opened,
)
from tests.support.publishing import generation

CERTIFICATE, ROOT = "file-cert", "file-root"

_OPERATIONS = {
    "create": CREATE | MOVED_TO,
    "write": MODIFY,
    "remove": DELETE | DELETE_SELF,
    "rename": MOVED_FROM | MOVE_SELF,
    "chmod": ATTRIB,
}


class Age(NamedTuple):
    """What a version of pilot-agent does about symlinks."""

    watches_symlinks: bool
    sees_kubelet: bool


AGES = {"1.28": Age(False, False), "1.29.0": Age(True, False), "1.31": Age(True, True)}


class Change(NamedTuple):
    """An event as fsnotify tells it: a path that is watched, or an entry of one."""

    path: str
    operations: frozenset[str]


class Fsnotify:
    """Watches by path, each on the inode that the path led to when it was added."""

    def __init__(self):
        self._descriptor = opened()
        self._numbers = {}
        self._paths = {}

    def close(self):
        os.close(self._descriptor)

    def add(self, path):
        number = added(self._descriptor, path)
        before = self._numbers.get(path, number)
        if before != number:
            self._paths.pop(before, None)
        self._numbers[path] = number
        # Two paths of one inode are one watch, and it bears the later path.
        self._paths[number] = path

    def changes(self):
        """Yield what happened since the last call."""
        for number, mask, name in drained(self._descriptor):
            path = self._paths.get(number)
            if path is None:
                continue
            if mask & (DELETE_SELF | MOVE_SELF | IGNORED):
                del self._paths[number]
                self._numbers.pop(path, None)
            # Whoever watches the directory too is told by that.
            if mask & DELETE_SELF and str(Path(path).parent) in self._numbers:
                continue
            operations = frozenset(kind for kind, bits in _OPERATIONS.items() if mask & bits)
            if operations:
                yield Change(f"{path}/{name}" if name else path, operations)


class Watched(NamedTuple):
    """A file that is watched for a resource, and through which symlink."""

    resource: str
    path: str
    symlink: str = ""
    target: str = ""


class PilotAgent:
    """Serves a certificate with its key, and a CA where one is asked for.

    `served` has the generations that each resource had, in order. `interrupt` is called between
    opening the certificate and opening the key.
    """

    def __init__(self, age, directory, *, mutual=False):
        self.served = {CERTIFICATE: []} | ({ROOT: []} if mutual else {})
        self.interrupt = lambda: None
        self._age = AGES[age]
        self._files = {CERTIFICATE: directory / "tls.crt", ROOT: directory / "ca.crt"}
        self._key = directory / "tls.key"
        self._watches = Fsnotify()
        self._watched = set()
        self._due = set(self.served)

    def __enter__(self):
        self.turn()
        return self

    def __exit__(self, *_):
        self._watches.close()

    def turn(self):
        """Take what happened, and read what is due."""
        for change in self._watches.changes():
            for watched in list(self._watched):
                if self._concerns(change, watched):
                    self._due.add(watched.resource)
                    if self._is_rearmed(change, watched):
                        self._watched.discard(watched)
        for resource in sorted(self._due):
            self._push(resource)

    def _concerns(self, change, watched):
        if self._is_kubelets(change, watched):
            return True
        kinds = {"create", "write", "remove"} | ({"chmod"} if watched.symlink else set())
        paths = {watched.path, watched.symlink, watched.target}
        return change.path in paths and bool(change.operations & kinds)

    def _is_rearmed(self, change, watched):
        """Whether the watch is made anew after the next reading."""
        if "remove" in change.operations:
            return change.path == watched.path
        return "create" in change.operations

    def _is_kubelets(self, change, watched):
        data = str(Path(watched.path).parent / "..data")
        return self._age.sees_kubelet and change.path == data and "create" in change.operations

    def _push(self, resource):
        number = self._load(resource)
        if number is None:
            return
        self._due.discard(resource)
        if not any(watched.resource == resource for watched in self._watched):
            self._watch(resource)
        if self.served[resource][-1:] != [number]:
            self.served[resource].append(number)

    def _load(self, resource):
        """Return the generation that is found, or None where no set can be made of the files."""
        try:
            number = generation(self._files[resource].read_bytes())
            if resource == CERTIFICATE:
                self.interrupt()
                if generation(self._key.read_bytes()) != number:
                    return None
        except (FileNotFoundError, ValueError):
            return None
        return number

    def _watch(self, resource):
        path = self._files[resource]
        symlink = _nearest_symlink(path) if self._age.watches_symlinks else None
        if symlink is None:
            self._watches.add(str(path))
            self._watched.add(Watched(resource, str(path)))
            return
        target = path.resolve()
        for each in (target, symlink, symlink.parent):
            self._watches.add(str(each))
        self._watched.add(Watched(resource, str(path), str(symlink), str(target)))


def _nearest_symlink(path):
    excepted = {Path("/var"), Path("/tmp"), Path("/usr")}
    on_the_way = (path, *path.parents)
    return next((each for each in on_the_way if each.is_symlink() and each not in excepted), None)
