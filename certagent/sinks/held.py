"""A directory that one process holds: opened once, locked, and still the one at its path."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from certagent.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_FULL = (
    "the volume is full",
    "Raise its sizeLimit (a memory-backed one counts against the memory limit), or free space.",
)
_FORBIDDEN = (
    "user {user} has no permission",
    "Run certagent as the user that owns the volume (1337:1337 beside Istio's), or set fsGroup.",
)
_READ_ONLY = (
    "it is on a read-only file system",
    "Mount the volume without readOnly in certagent's container; only its readers get it so.",
)
_CAUSES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _READ_ONLY,
    errno.EIO: ("the disk failed (input/output error)", "Look at the node's disk and kernel log."),
}


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an `OSError` into an `OutputError` that tells its cause and what to do.

    `what` is the start of the message: `Cannot publish to /etc/istio-ca`.
    """
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        cause, hint = _CAUSES.get(error.errno or 0, (reason, "What was published stays as it is."))
        raise OutputError(f"{what}: {cause.format(user=os.geteuid())}.", hint=hint) from error


@contextmanager
def opened(name: str, directory: int) -> Iterator[int]:
    """Open the directory `name` in `directory`, never through a symlink; raises `OSError`."""
    descriptor = os.open(name, OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        yield descriptor
    finally:
        _close(descriptor)


def exists(name: str, directory: int) -> bool:
    """Say whether there is anything of this name, a link that leads nowhere included."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


class HeldDirectory:
    """The directory at `path`, made if it is missing, held by at most one process.

    The lock is a flock on the directory itself: it leaves no file behind, and the kernel releases
    it when the process dies. Everything in the directory is reached through the one descriptor, so
    that a symlink put in its place cannot lead a key elsewhere.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether the directory has been opened and locked."""
        return self._descriptor is not None

    def descriptor(self) -> int:
        """Return the directory's descriptor, opened and locked at the first call.

        Raises `OSError`, and `OutputError` where the path is a symlink or not a directory, where
        another process holds it, or where it was replaced; the next call takes the new one.
        """
        if self._descriptor is None:
            self._descriptor = _locked(self.path)
        elif not _is_at(self._descriptor, self.path):
            self.close()
            raise OutputError(
                f"{self.path} was removed or replaced while certagent published to it.",
                hint="Its reader's watch died with it: once certagent has published again,\n"
                "restart istiod or the gateway. Let nothing replace the directory or its mount.",
            )
        return self._descriptor

    def close(self) -> None:
        """Let go of the directory; the next call of `descriptor` takes it again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            _close(descriptor)


def _locked(path: Path) -> int:
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _close(descriptor)
        raise OutputError(
            f"Another certagent publishes to {path}.",
            hint="Give each agent, and each of its bundles, an output directory of its own.",
        ) from None
    except OSError:
        _close(descriptor)
        raise
    return descriptor


def _open(path: Path) -> int:
    try:
        return existing(path)
    except FileNotFoundError:
        path.mkdir(0o755, parents=True, exist_ok=True)
        return existing(path)


def existing(path: Path) -> int:
    """Return a descriptor of the directory at `path`, which nobody locks and is never made.

    Raises `OSError`, and `OutputError` where it is a symlink or not a directory.
    """
    try:
        return os.open(path, OPEN_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        # Linux says ENOTDIR for a symlink too, where O_DIRECTORY is asked for with O_NOFOLLOW.
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        if path.is_symlink():
            raise OutputError(
                f"{path} is a symbolic link.",
                hint="A link may lead a key elsewhere, and a watch stays where it led at first.\n"
                "Name the directory itself.",
            ) from None
        raise OutputError(
            f"{path} is not a directory, or a part of its path is none.",
            hint="Set the output directory to the mount path of the volume that its reader mounts.",
        ) from None


def _is_at(descriptor: int, path: Path) -> bool:
    held = os.fstat(descriptor)
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISDIR(found.st_mode) and os.path.samestat(held, found)


def _close(directory: int) -> None:
    # Nothing is written through a directory's descriptor that a failing close could lose.
    with suppress(OSError):
        os.close(directory)
