"""The kernel's own account of what happens in a directory, as Go's fsnotify asks for it."""

import ctypes
import os
import select
import struct
from typing import NamedTuple

CREATE, DELETE, MODIFY, ATTRIB = 0x100, 0x200, 0x2, 0x4
MOVED_FROM, MOVED_TO, DELETE_SELF, MOVE_SELF = 0x40, 0x80, 0x400, 0x800
OPEN = 0x20
OVERFLOW, IGNORED, IS_DIRECTORY = 0x4000, 0x8000, 0x40000000
# fsnotify 1.10.1, backend_inotify.go: everything but accesses and closes.
FSNOTIFY = CREATE | DELETE | MODIFY | ATTRIB | MOVED_FROM | MOVED_TO | DELETE_SELF | MOVE_SELF

_HEADER = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    mask: int
    name: str


def opened():
    """Return the descriptor of a new set of watches."""
    return _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)


def added(descriptor, path, mask=FSNOTIFY):
    """Watch what `path` leads to, and return the watch's number: the same for the same inode."""
    number = _libc.inotify_add_watch(descriptor, os.fsencode(path), mask)
    if number < 0:
        raise OSError(ctypes.get_errno(), "inotify_add_watch", str(path))
    return number


def drained(descriptor):
    """Yield what happened since the last call: the watch's number, the mask, and the entry."""
    while True:
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return
        while data:
            number, mask, _, length = _HEADER.unpack_from(data)
            name = data[_HEADER.size : _HEADER.size + length].rstrip(b"\0").decode()
            yield number, mask & ~IS_DIRECTORY, name
            data = data[_HEADER.size + length :]


class Inotify:
    """A watch on one directory, not on what is inside its subdirectories."""

    def __init__(self, path, mask=FSNOTIFY):
        self._descriptor = opened()
        added(self._descriptor, path, mask)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._descriptor)

    def wait(self, seconds):
        """Return what happened, after something has, or nothing after so many seconds."""
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        return self.events() if ready else []

    def events(self):
        """Return what happened since the last call."""
        return [Event(mask, name) for _, mask, name in drained(self._descriptor)]
