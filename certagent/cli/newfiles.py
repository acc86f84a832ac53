"""New files for an operator: keys are private from their first moment, and nothing is lost.

For files on an operator's machine. What istiod reads is published by `certagent.sinks`.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from certagent.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to write; `private` is what only its owner may read."""

    path: Path
    data: bytes = field(repr=False)
    private: bool = False

    @property
    def mode(self) -> int:
        """Its permission bits, which a stricter umask narrows."""
        return 0o600 if self.private else 0o644


def refuse_existing(paths: Sequence[Path]) -> None:
    """Raise `OutputError` where one of the files is there already."""
    for path in paths:
        if os.path.lexists(path):
            raise _exists(path)


def write(files: Sequence[NewFile], *, force: bool = False) -> None:
    """Write all of the files, or none; raises `OutputError`.

    Without `force` a file that exists is an error. With it, all contents are on the disk before the
    first file is replaced, and each is replaced by a rename.
    """
    staged: list[Path] = []
    try:
        for file in files:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            path = _beside(file.path) if force else file.path
            descriptor = os.open(path, _CREATE, file.mode)
            staged.append(path)
            _fill(descriptor, file.data)
        if force:
            _require_no_directories(files)
            for path, file in zip(staged, files, strict=True):
                path.replace(file.path)
    except BaseException as error:
        for path in staged:
            with suppress(OSError):
                path.unlink()
        if isinstance(error, FileExistsError) and not force:
            raise _exists(error.filename) from None
        if isinstance(error, OSError):
            raise OutputError(
                f"{error.filename or staged[-1]} cannot be written: {error.strerror}.",
                hint="Name a directory with --out that you may write to, and look at its disk.",
            ) from error
        raise


def _require_no_directories(files: Sequence[NewFile]) -> None:
    """Nothing else can hinder a rename from here on."""
    for file in files:
        if file.path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file.path))


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}")


def _fill(descriptor: int, data: bytes) -> None:
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _exists(path: object) -> OutputError:
    return OutputError(
        f"{path} exists already, and is left as it is.",
        hint="Name another directory with --out, or replace it with --force: what the old key\n"
        "signed stays valid, but nobody can sign with it again.",
    )
