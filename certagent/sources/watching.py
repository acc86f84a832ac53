"""Being told when a directory changes, instead of at the next poll."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_log = logging.getLogger(__name__)

_SHORTEST_DELAY, _LONGEST_DELAY = 1.0, 30.0  # seconds, until a lost directory is looked for again
_STOP_SECONDS = 5  # watchfiles sees the stop at its next look
_STEP_MS = 200  # how often watchfiles looks for changes: it wakes this process each time
_QUIET_MS = 1600  # changes less than a step apart are told once, after so long at the latest
_LOOK_MS = 2000  # how often to look whether the directory was replaced, which inotify cannot tell


def watch(directory: str | Path, wake: Callable[[], None]) -> Callable[[], None]:
    """Call `wake` after changes in the directory, from a thread; return what ends it.

    Changes that follow one another closely are told once. A directory that is missing is looked
    for again with a growing delay. The beginning of every watch is told as a change: what happened
    before it, since the caller last read, nobody has seen.
    """
    watcher = _Watcher(Path(directory), wake)
    watcher.start()
    return watcher.stop


class _Watcher:
    def __init__(self, directory: Path, wake: Callable[[], None]) -> None:
        self._directory = directory
        self._wake = wake
        self._stop = Event()
        self._thread = Thread(target=self._run, name="watch-files", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=_STOP_SECONDS)

    def _run(self) -> None:
        delay = _SHORTEST_DELAY
        is_lost = False
        while not self._stop.is_set():
            try:
                for changed in _changes(self._directory, self._stop):
                    if changed:
                        self._wake()
                    delay, is_lost = _SHORTEST_DELAY, False
            # watchfiles raises RuntimeError where its watcher fails, OSError where it cannot start.
            except (OSError, RuntimeError) as error:
                if not is_lost:
                    _log.warning(
                        "Cannot watch %s, which is still polled: %s", self._directory, error
                    )
                is_lost = True
                self._stop.wait(delay)
                delay = min(2 * delay, _LONGEST_DELAY)


def _changes(directory: Path, stop: Event) -> Iterator[bool]:
    """Yield whether something changed, at least every few seconds, while the directory stays.

    The first time it is always True. Raises `OSError` once it is missing, and `RuntimeError`.
    """
    from watchfiles import watch  # noqa: PLC0415 - only who watches a directory pays for it

    watched = directory.stat()
    batches = watch(
        directory,
        watch_filter=None,
        debounce=_QUIET_MS,
        step=_STEP_MS,
        stop_event=stop,
        rust_timeout=_LOOK_MS,
        yield_on_timeout=True,
        raise_interrupt=False,
        recursive=False,
    )
    is_new = True
    for batch in batches:
        if not os.path.samestat(watched, directory.stat()):
            return
        yield is_new or bool(batch)
        is_new = False
