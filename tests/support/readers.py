"""Processes that read as fast as they can, each in the manner of a real reader.

`python -m tests.support.readers MANNER DIRECTORY LAST [LIST]` reads until it finds the generation
LAST, and prints what it found as JSON: how many reads and generations, and every fault. A file
names its generation itself (`publishing`), or the LIST tells whose it is (`generations`): then the
files are those of real sets, of which two may share some. `resolver` is a
reader that resolves `..data` first; `istiod` waits for an event in the directory, then 100 ms,
and opens the four files by their names (pilot/pkg/bootstrap/istio_ca.go, handleEvent); `gateway`
opens each of its files through `current` (pilot-agent, Envoy).

A reader can be overtaken: `resolver` by two swaps within one read (the version that it reads is
removed), the others by one (they resolve the link anew for each file; the swap makes them read
again). Such reads are counted for themselves, and are no faults of the publisher.
"""

import json
import os
import sys
import time

from tests.support.effort import effort
from tests.support.generations import Generations
from tests.support.inotify import CREATE, MODIFY, MOVED_TO, OVERFLOW, Inotify
from tests.support.publishing import FOUR, MUTUAL_TLS, TLS, generation

DEADLINE = effort(60.0, 3600.0)


class Findings:
    """What a reader found, and what is wrong with it."""

    def __init__(self, last, listed=None):
        self.last = last
        self.listed = listed
        self.reads = 0
        self.overtaken = 0
        self.generations = []
        self.faults = []

    def add(self, contents, *, overtaken):
        """Note one read of the four files: of each its bytes, or None where it was missing."""
        self.reads += 1
        found = self._generations(contents)
        if len(found) == 1 and None not in found:
            number = found.pop()
            if not self.generations or self.generations[-1] != number:
                self.generations.append(number)
        elif overtaken:
            self.overtaken += 1
        else:
            self.faults.append(sorted(map(str, found)))

    def _generations(self, contents):
        """The generations that were read, and None where a file was missing, or fits no other."""
        if self.listed is None:
            return {None if data is None else generation(data) for data in contents}
        if None in contents:
            return {None}
        return set(self.listed.of(contents)) or {None}

    @property
    def done(self):
        return bool(self.generations) and self.generations[-1] == self.last

    def report(self):
        return json.dumps(
            {
                "reads": self.reads,
                "overtaken": self.overtaken,
                "generations": len(self.generations),
                "ordered": self.generations == sorted(self.generations),
                "last": self.generations[-1:],
                "faults": self.faults,
            }
        )


def _read(name, directory):
    try:
        descriptor = os.open(name, os.O_RDONLY, dir_fd=directory)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _data(top):
    return os.readlink("..data", dir_fd=top)


def resolver(path, findings, deadline):
    top = os.open(path, os.O_RDONLY)
    print("reading", flush=True)
    while not findings.done and time.monotonic() < deadline:
        version = _data(top)
        contents = [_read(f"{version}/{name}", top) for name in FOUR]
        # Only a version that has gone may lack a file; a mixture has no excuse at all.
        overtaken = None in contents and _data(top) != version
        findings.add(contents, overtaken=overtaken)


def istiod(path, findings, deadline):
    top = os.open(path, os.O_RDONLY)
    with Inotify(path) as watch:
        print("reading", flush=True)
        while not findings.done and time.monotonic() < deadline:
            events = watch.wait(1)
            if any(event.mask & OVERFLOW for event in events):
                findings.faults.append("overflow")
            if any(event.mask & (CREATE | MODIFY | MOVED_TO) for event in events):
                time.sleep(0.1)  # istiod's own timer, which later events do not extend
                watch.events()  # what comes meanwhile, it drops
                version = _data(top)
                contents = [_read(name, top) for name in FOUR]
                overtaken = None not in contents and _data(top) != version
                findings.add(contents, overtaken=overtaken)


def gateway(path, findings, deadline):
    names = TLS if findings.listed else MUTUAL_TLS
    top = os.open(path, os.O_RDONLY)
    print("reading", flush=True)
    while not findings.done and time.monotonic() < deadline:
        version = os.readlink("current", dir_fd=top)
        contents = [_read(f"current/{name}", top) for name in names]
        findings.add(contents, overtaken=os.readlink("current", dir_fd=top) != version)


def main():
    manner, path, last, *listed = sys.argv[1:]
    findings = Findings(int(last), *map(Generations, listed))
    manners = {"resolver": resolver, "istiod": istiod, "gateway": gateway}
    manners[manner](path, findings, time.monotonic() + DEADLINE)
    print(findings.report(), flush=True)


if __name__ == "__main__":
    main()
