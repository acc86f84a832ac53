"""A process that publishes one set after the other.

`python -m tests.support.publisher DIRECTORY FIRST` says `ready` once the first
is out, and takes turns between four files and five.
"""

import sys

from certagent.sinks.directory import AtomicDirectory
from tests.support.publishing import FIVE, FOUR, publication

ROTATIONS = 100_000  # a bound, should nobody end it


def main():
    path, first = sys.argv[1], int(sys.argv[2])
    sink = AtomicDirectory(path)
    for number in range(first, first + ROTATIONS):
        sink.read()
        sink.publish(publication(number, FIVE if number % 2 else FOUR, size=3000))
        if number == first:
            print("ready", flush=True)
        if number % 3 == 0:
            sink.tidy()


if __name__ == "__main__":
    main()
