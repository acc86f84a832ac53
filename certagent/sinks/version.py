"""One version of a published set: a directory with the files and the agent's record of them.

Every function works on descriptors: the directory above is the business of a layout.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import suppress
from datetime import datetime  # noqa: TC003 - msgspec resolves the annotation when it decodes
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, MsgspecError, Struct
from msgspec.json import decode, encode

from certagent.errors import OutputError
from certagent.sinks import Snapshot
from certagent.sinks.held import opened
from certagent.values import shown

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from certagent.sinks import Publication

RECORD = ".certagent.json"
"""What the agent must remember of a version lies beside its files, and is swapped with them.

It comes before them and goes after them, so that a version is known by it at any time.
"""

_NEW_RECORD = f"{RECORD}.new"
_RECORD_MODE = 0o644  # it is without secrets

DIRECTORY_MODE = 0o755
"""The files' own modes guard them; a reader of the key's group (0640) must get this far."""

_NAME_BYTES = 255  # NAME_MAX of every Linux file system
_LIMIT = 16 << 20  # far above any set; a file that somebody swelled must not fill our memory


class Damaged(Exception):
    """A version is not as it was published; the message says in what."""


class Modes(Struct, frozen=True):
    """The permission bits of published files, for keys and for the rest."""

    private: int
    public: int

    def of(self, *, private: bool) -> int:
        """Return the permission bits of one file."""
        return self.private if private else self.public


class Entry(Struct, frozen=True):
    """A file that is ready to be written."""

    name: str
    data: bytes
    mode: int

    def __repr__(self) -> str:
        """Show what is neither secret nor long."""
        return shown(self, "name", "mode")


class _File(Struct, frozen=True):
    # The hash of a key tells nothing about it: its input has far more than 100 bits of entropy.
    sha256: str
    private: bool


class _Record(Struct, frozen=True):
    published_at: Annotated[datetime, Meta(tz=True)]
    record: dict[str, str]
    files: dict[str, _File]


def prepare(
    publication: Publication, published_at: datetime, modes: Modes, reserved: Container[str] = ()
) -> tuple[Entry, ...]:
    """Return all that a version directory will hold, its record first.

    Raises `OutputError` for a name that is not a plain file name or is `reserved`, for an empty
    set, and for a private name without a file (its key would lie elsewhere, readable).
    """
    names = publication.files.keys()
    unfit = sorted(name for name in names if not _is_plain(name) or name in reserved)
    unfit += sorted(publication.private - names)
    if unfit or not names:
        raise OutputError(
            f"Cannot publish a set with these file names: {', '.join(map(repr, unfit)) or 'none'}.",
            hint="A name is one path component of at most 255 bytes, without '..' at its start,\n"
            "and none that means something else to the reader.",
        )
    files = {
        name: _File(hashlib.sha256(data).hexdigest(), name in publication.private)
        for name, data in publication.files.items()
    }
    record = encode(_Record(published_at, dict(publication.record), files))
    return (
        Entry(RECORD, record, _RECORD_MODE),
        *(
            Entry(name, data, modes.of(private=name in publication.private))
            for name, data in publication.files.items()
        ),
    )


def write(entries: tuple[Entry, ...], directory: int) -> None:
    """Write the entries into a new directory, durably; raises `OSError`."""
    mode = stat.S_IMODE(os.fstat(directory).st_mode)
    # Only where the umask took something away: a change of mode is an event for who watches above.
    # A set-group-ID bit, which a volume with fsGroup hands down, stays.
    if mode & 0o777 != DIRECTORY_MODE:
        os.fchmod(directory, mode | DIRECTORY_MODE)
    for entry in entries:
        _write(entry, directory)
    os.fsync(directory)


def load(directory: int, modes: Modes | None = None) -> Snapshot:
    """Read a version and compare it with its record, and with the modes where they are given.

    Raises `Damaged`, and `OSError` where the files cannot be read at all.
    """
    if modes and stat.S_IMODE(os.fstat(directory).st_mode) & 0o777 != DIRECTORY_MODE:
        raise Damaged("the directory has another mode")
    record = _record(directory)
    files = {}
    for name, file in record.files.items():
        if not _is_plain(name):
            raise Damaged(f"{RECORD} names {name!r}")
        data, mode = _read(name, directory)
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise Damaged(f"{name} has other bytes than were published")
        if modes and mode != modes.of(private=file.private):
            raise Damaged(f"{name} has mode {mode:04o}")
        files[name] = data
    if not files:
        raise Damaged(f"{RECORD} names no file")
    return Snapshot(files, record.record, record.published_at)


def _record(directory: int) -> _Record:
    try:
        return decode(_read(RECORD, directory)[0], type=_Record)
    except (MsgspecError, UnicodeDecodeError, RecursionError):
        raise Damaged(f"{RECORD} cannot be read") from None


def annotate(record: Mapping[str, str], directory: int) -> None:
    """Replace what a version's record remembers, by one rename; its files stay as they are.

    Who watches the directory above sees nothing of it. Raises `Damaged` and `OSError`.
    """
    present = _record(directory)
    with suppress(FileNotFoundError):
        os.unlink(_NEW_RECORD, dir_fd=directory)  # a killed run left it
    renewed = encode(_Record(present.published_at, dict(record), present.files))
    _write(Entry(_NEW_RECORD, renewed, _RECORD_MODE), directory)
    os.rename(_NEW_RECORD, RECORD, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def remove(name: str, directory: int) -> None:
    """Delete the version directory `name`, its record last; raises `OSError`."""
    with opened(name, directory) as version:
        entries = os.listdir(version)  # noqa: PTH208 - a descriptor, not a path
        for entry in sorted(entries, key=lambda entry: entry == RECORD):
            os.unlink(entry, dir_fd=version)
    os.rmdir(name, dir_fd=directory)


def _is_plain(name: str) -> bool:
    return (
        name.isprintable()  # so neither a NUL nor what cannot be encoded
        and 0 < len(name.encode()) <= _NAME_BYTES
        and not name.startswith("..")
        and name not in (".", RECORD, _NEW_RECORD)
        and "/" not in name
    )


def _write(entry: Entry, directory: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(entry.name, flags, 0o600, dir_fd=directory)
    try:
        rest = memoryview(entry.data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fchmod(descriptor, entry.mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(name: str, directory: int) -> tuple[bytes, int]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except FileNotFoundError:
        raise Damaged(f"{name} is missing") from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise Damaged(f"{name} is a symbolic link") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LIMIT:
            raise Damaged(f"{name} is not a file that certagent wrote")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(), stat.S_IMODE(status.st_mode)
    finally:
        os.close(descriptor)
