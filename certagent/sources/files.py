"""A directory as a source: a mounted Secret, a CSI volume, or a folder on a laptop."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from certagent.errors import AccessDenied, SecretNotFound, SourceUnavailable
from certagent.layouts import DATA, present, target
from certagent.material.bundle import tls_layout
from certagent.material.kinds import CA, Kind
from certagent.material.raw import MAX_PART_BYTES, TLS_FILES, RawBundle
from certagent.sources import Revision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_OPEN = os.O_RDONLY | os.O_CLOEXEC
_SWAPS = 5  # a publisher that swaps faster than a few small files are read is not waited for


class DirectorySource:
    """The set that lies in a directory, as its only revision: a directory has no history.

    The files are those of its kind; of a CA, those that istiod would read there, under either of
    its sets of names. What is published in the gateways' layout is read like what is mounted.
    """

    def __init__(self, directory: str | Path, kind: Kind = CA) -> None:
        self._directory = Path(directory)
        self._kind = kind

    @property
    def name(self) -> str:
        """How operators write it."""
        return f"file:{self._directory}"

    def revisions(self) -> Iterator[Revision]:
        """Yield what the directory holds now.

        Raises `SecretNotFound` where none of the files is there, `AccessDenied`,
        `SourceUnavailable`.
        """
        parts = _read(self._directory, self._kind)
        yield Revision(_version(parts), None, partial(_bundle, parts, self._kind))


def read_directory_parts(directory: str | Path, kind: Kind = CA) -> RawBundle:
    """Return the bytes that a reader would find in a directory: one set, also during a swap.

    Raises `MaterialRefused` where a part is missing, empty or too large, `SecretNotFound` where
    all are missing, `AccessDenied`, and `SourceUnavailable` for an I/O error.
    """
    return _bundle(_read(Path(directory), kind), kind)


def _bundle(parts: Mapping[str, bytes], kind: Kind) -> RawBundle:
    if not kind.is_ca or parts.keys().isdisjoint(TLS_FILES.values()):
        return RawBundle.of(parts, kind.files, kind.optional)
    found = RawBundle.of(parts, {**TLS_FILES, "chain": "tls.crt"})
    return tls_layout(found.certificate, found.private_key, found.roots)


def _version(parts: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, data in sorted(parts.items()):
        digest.update(f"{name} {len(data)} ".encode())
        digest.update(data)
    return f"sha256:{digest.hexdigest()[:12]}"


def _read(directory: Path, kind: Kind) -> dict[str, bytes]:
    with _explained(directory):
        top = os.open(directory, _OPEN | os.O_DIRECTORY)
        try:
            parts = _read_settled(top, kind)
        finally:
            os.close(top)
    mandatory = [name for part, name in kind.files.items() if part not in kind.optional]
    if parts.keys() <= {kind.files[part] for part in kind.optional}:
        raise SecretNotFound(
            f"{directory} holds none of {', '.join(mandatory)}.",
            hint="Is the volume mounted here, and does its Secret have these keys?",
        )
    return parts


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise SecretNotFound(
            f"{directory} is not a directory, or does not exist.",
            hint="Is the volume mounted here, and into this container?",
        ) from None
    except PermissionError as error:
        raise AccessDenied(
            f"User {os.geteuid()} may not read {error.filename or 'the files'} in {directory}.",
            hint="Run certagent as the files' owner, or give its group the permission to read.",
        ) from error
    except OSError as error:
        raise SourceUnavailable(
            f"{directory} cannot be read: {error.strerror}.",
            hint="Look at the node's disk and at the driver that mounts the volume.",
        ) from error


def _read_settled(top: int, kind: Kind) -> dict[str, bytes]:
    """Read one whole set, in either layout or in none: again where it was swapped meanwhile."""
    parts: dict[str, bytes] = {}
    for _ in range(_SWAPS):
        found = present(top)
        if found is None:
            return _read_files(top, top, kind)
        try:
            data = os.open(found.version, _OPEN | os.O_DIRECTORY, dir_fd=top)
        except FileNotFoundError:
            continue
        try:
            # A gateway's files have no names at the top.
            parts = _read_files(top if found.link == DATA else data, data, kind)
        finally:
            os.close(data)
        if present(top) == found:
            break
    return parts


def _read_files(top: int, data: int, kind: Kind) -> dict[str, bytes]:
    # istiod decides by this one file, at its start and at every reload.
    names = TLS_FILES if kind.is_ca and _exists("tls.crt", top, data) else kind.files
    found = {name: _read_file(name, top, data) for name in names.values()}
    # istiod takes an empty CRL file for none, and cert-manager writes an empty ca.crt for none.
    optional = {kind.files[part] for part in kind.optional}
    return {
        name: content
        for name, content in found.items()
        if content is not None and (content or name not in optional)
    }


def _read_file(name: str, top: int, data: int) -> bytes | None:
    """Return at most one byte more than a part may have; None where there is no such file."""
    try:
        descriptor = os.open(name, _OPEN | os.O_NONBLOCK, dir_fd=_holder(name, top, data))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.ENXIO:  # a socket
            raise
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_PART_BYTES + 1)
    finally:
        os.close(descriptor)


def _exists(name: str, top: int, data: int) -> bool:
    try:
        os.stat(name, dir_fd=_holder(name, top, data))
    except FileNotFoundError:
        return False
    return True


def _holder(name: str, top: int, data: int) -> int:
    """Return where a file is: in what `..data` led to, if a reader would go through that."""
    return data if target(name, top) == f"{DATA}/{name}" else top
