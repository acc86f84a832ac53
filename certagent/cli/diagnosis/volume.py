"""The place that a bundle is published to, looked at without a lock and without writing."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from certagent.cli.diagnosis.mounts import covering
from certagent.cli.diagnosis.result import About, attempt
from certagent.cli.rules import kind
from certagent.cli.show import days_left
from certagent.cli.wiring import crossed, sink
from certagent.config.model import permissions
from certagent.errors import MaterialRefused, OutputError
from certagent.sinks.held import explained
from certagent.sinks.reading import read_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from certagent.cli.diagnosis.mounts import Mount
    from certagent.cli.diagnosis.result import Result
    from certagent.config.model import BundleConfig

_SET = 64 << 10
"""Bytes that a set takes at most in all likelihood: four or five files, in blocks of 4 KiB."""

_SPARE = 3
"""Sets for which there should be room: the present one, the new one, and a CA that has grown."""

_INODES = 16
"""Files, links and directories of one set."""

_ROOT = 0


def results(bundle: BundleConfig, table: tuple[Mount, ...]) -> Iterator[Result]:
    """Yield what there is to say of a bundle's output directory."""
    name, path = bundle.name, Path(bundle.output.directory)
    about = About("directory", name)
    if not (yield from attempt(about, _place(about, bundle, path))):
        return
    where = _nearest(path)
    mount, owner, space = (About(each, name) for each in ("mount", "owner", "space"))
    yield from attempt(mount, _mount(mount, where, table))
    yield from attempt(owner, _owner(owner, bundle, where))
    yield from attempt(space, _space(space, where))


def _place(about: About, bundle: BundleConfig, path: Path) -> Iterator[Result]:
    """Yield whether the directory is what it must be; raises `OutputError`."""
    if told := crossed(bundle):
        yield about.warning(f"{told[0][0].upper()}{told[0][1:]}.", told[1])
    if not _exists(path):
        nearest = _nearest(path)
        _require_writable(nearest, f"{path} does not exist, and cannot be made")
        yield about.warning(
            f"{path} does not exist: certagent would make it in {nearest}.",
            "Mount the volume there that its reader mounts: else the reader never sees it.",
        )
        return
    sink(bundle).examine(kind(bundle.kind, bundle.usage).files.values())
    _require_writable(path, f"Cannot publish to {path}")
    yield about.ok(f"{path} can be published to; nothing was written.")


def _exists(path: Path) -> bool:
    """Say whether something is there; raises `OutputError` where nobody may look."""
    with explained(f"Cannot publish to {path}"):
        try:
            path.lstat()
        except FileNotFoundError:
            return False
    return True


def _nearest(path: Path) -> Path:
    """Return the directory, or the nearest one above it that exists."""
    return next(each for each in (path, *path.parents) if each.is_dir())


def _require_writable(path: Path, what: str) -> None:
    """Raise `OutputError` where a file could not be made; asked of the kernel, and not tried."""
    with explained(what):
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def _mount(about: About, path: Path, table: tuple[Mount, ...]) -> Iterator[Result]:
    """Yield what kind of volume a directory is on, and whether it is a volume's part."""
    mount = covering(path, table)
    if mount is None:
        yield about.skipped("The kernel does not tell what is mounted there.")
        return
    if mount.is_part:
        yield about.warning(
            f"{mount.point} is a part of a volume (subPath: {mount.root}).",
            "Mount the volume itself, here and in the reader: a file that is mounted by subPath"
            " stays what it was, and its reader sees no rotation.",
        )
    if mount.is_memory:
        yield about.ok(f"{path} is in memory ({mount.filesystem}, mounted at {mount.point}).")
    else:
        yield about.warning(
            f"{path} is not in memory ({mount.filesystem}, mounted at {mount.point}): the key would"
            " be written to a disk.",
            "Use an emptyDir with `medium: Memory` and a sizeLimit.",
        )


def _owner(about: About, bundle: BundleConfig, path: Path) -> Iterator[Result]:
    """Yield whose the directory is, and who will be able to read the key in it."""
    found, user = path.stat(), os.geteuid()
    key_mode = permissions(bundle.output.key_mode)
    if key_mode & stat.S_IROTH:
        yield about.warning(
            f"output.keyMode {bundle.output.key_mode} lets everybody read the key who sees the"
            " volume.",
            'Leave it at "0600", and run certagent as its reader\'s user; or "0640" with fsGroup.',
        )
    elif user == _ROOT and not key_mode & stat.S_IRGRP:
        yield about.warning(
            "certagent runs as root, and the key will be root's alone: its reader could not read"
            " it.",
            "Run as the reader's user (runAsUser: 1337, Istio's own).",
        )
    else:
        yield about.ok(
            f"{path} is {found.st_uid}:{found.st_gid}'s, mode {stat.S_IMODE(found.st_mode):04o};"
            f" the key will be user {user}'s, mode {key_mode:04o}."
        )


def _space(about: About, path: Path) -> Iterator[Result]:
    """Yield whether there is room for a set; raises `OutputError`."""
    volume = os.statvfs(path)
    free = volume.f_bavail * volume.f_frsize
    out_of_inodes = bool(volume.f_files) and volume.f_favail < _INODES
    if free < _SET or out_of_inodes:
        left = f"{volume.f_favail} files" if out_of_inodes else f"{free >> 10} KiB"
        raise OutputError(
            f"The volume of {path} has {left} left: a set needs {_SET >> 10} KiB and {_INODES}"
            " files.",
            hint="Raise its sizeLimit (a memory-backed one counts against the memory limit), or"
            " free space.",
        )
    told = f"The volume of {path} has {free / (1 << 20):.1f} MiB left"
    if free < _SPARE * _SET:
        yield about.warning(
            f"{told}: a new set stands beside the present one for a while.",
            "Raise its sizeLimit to 1Mi.",
        )
    else:
        yield about.ok(f"{told}.")


def published(bundle: BundleConfig, now: datetime) -> Iterator[Result]:
    """Yield whether the set that a reader finds now is a good one; raises `OutputError`."""
    about, of = About("published", bundle.name), kind(bundle.kind, bundle.usage)
    snapshot = read_directory(bundle.output.directory)
    if snapshot is None:
        yield about.warning(
            f"No set is published in {bundle.output.directory}.",
            "Before the first `certagent run` that is so; beside a running one, its log tells why.",
        )
        return
    version = snapshot.record.get("version", "?")
    prefix = f"version {version}: "
    try:
        verified = of.verify(of.bundle_of(snapshot.files), now)
    except MaterialRefused as refused:
        yield from about.findings(refused.findings, prefix)
        return
    yield from about.findings(verified.warnings, prefix)
    if not verified.warnings:
        left = days_left(verified.not_after, now)
        subject = verified.bundle.certificate.subject
        yield about.ok(
            f"{prefix}{subject!r} is published since {snapshot.published_at:%FT%TZ}, {left}."
        )
