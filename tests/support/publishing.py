"""Sets to publish, what a reader may find of them, and system calls that fail when told to.

A set is told by its `version`: every file's content names it, so that a mixture shows.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import certagent.layouts
import certagent.sinks.layouts
from certagent.sinks import Publication, Snapshot, directory, held, reading, version

KEY = "ca-key.pem"
CRL = "ca-crl.pem"
FOUR = (KEY, "ca-cert.pem", "cert-chain.pem", "root-cert.pem")
FIVE = (*FOUR, CRL)
TLS_KEY = "tls.key"
TLS = (TLS_KEY, "tls.crt")
MUTUAL_TLS = (*TLS, "ca.crt")


def publication(number, names=FOUR, size=0):
    """A set whose files all say `number`, and have at least `size` bytes."""
    files = {name: f"{number} {name} ".encode().ljust(size, b".") for name in names}
    return Publication(files, frozenset({KEY, TLS_KEY} & set(names)), {"version": str(number)})


def generation(data):
    """The number that a file's content names."""
    return int(data.split(b" ", 1)[0])


def links_at_top(path):
    """What istiod finds: the files it can open by their own names, with their generations."""
    return _generations(Path(path), FIVE)


def files_in_current(path):
    """What a gateway finds: the files it can open through `current`, with their generations."""
    return _generations(Path(path) / "current", MUTUAL_TLS)


def _generations(path, names):
    found = {}
    for name in names:
        try:
            found[name] = generation((path / name).read_bytes())
        except FileNotFoundError:
            continue
    return found


def entries(path):
    """The names at the top of the directory."""
    return sorted(entry.name for entry in Path(path).iterdir())


def versions(path):
    """The version directories, oldest first."""
    return [name for name in entries(path) if re.match(r"\.\.[0-9]", name)]


def current(path):
    """The version directory that is published."""
    return path / (path / "..data").readlink()


def expected_entries(path, names=FOUR):
    """All that may stand at the top of a directory that is at rest."""
    return sorted([current(path).name, "..data", *names])


def same(snapshot: Snapshot | None, wanted: Publication | None) -> bool:
    """Whether what was found is this set, whole."""
    if snapshot is None or wanted is None:
        return snapshot is wanted
    return snapshot.files == wanted.files and snapshot.record == wanted.record


class Crash(BaseException):
    """The process is gone: nothing after this runs."""


class FaultyOs:
    """The module `os`, but for one system call: at the call number `at` (from 1) it fails.

    `failure` is an exception to raise instead of the call. A `Crash` is raised again by each later
    call, but for `close`, which the kernel does for the dead. With `for_good`, each later call of
    those that `failure` fails too. `short` makes writes take one byte.
    """

    CALLS = (
        *("open", "close", "mkdir", "write", "fchmod", "fsync", "symlink", "rename", "unlink"),
        *("rmdir", "readlink", "stat", "lstat", "fstat", "listdir"),
    )

    def __init__(self, at=0, failure=None, *, calls=CALLS, for_good=False, short=False):
        self.at = at
        self.failure = failure
        self.for_good = for_good
        self.short = short
        self.count = 0
        self.trail = []
        for name in calls:
            setattr(self, name, self._wrapped(name))

    def __getattr__(self, name):
        return getattr(os, name)

    @property
    def failed(self):
        return bool(self.at) and self.count >= self.at

    def _wrapped(self, name):
        def call(*args, **kwargs):
            self.count += 1
            self.trail.append(name)
            is_crashed = self.failed and isinstance(self.failure, Crash)
            fails = self.count == self.at or (self.failed and (self.for_good or is_crashed))
            if name == "close":
                os.close(*args)
                if fails and not is_crashed:
                    raise self.failure
                return None
            if fails:
                raise self.failure
            if name == "write" and self.short:
                return os.write(args[0], args[1][:1])
            return getattr(os, name)(*args, **kwargs)

        return call


def install(monkeypatch, faulty):
    """Let the publishing modules make their system calls through `faulty`."""
    ours = (directory, held, reading, version, certagent.layouts, certagent.sinks.layouts)
    for module in ours:
        monkeypatch.setattr(module, "os", faulty)
