"""A process that publishes one set after the other.

`python -m tests.support.publisher DIRECTORY FIRST [gateway]` says `ready` once the first is out,
and takes turns between four files and five; in the gateways' layout, between two and three.
"""

import sys

from certagent.sinks.directory import AtomicDirectory
from certagent.sinks.layouts import GATEWAY, ISTIOD
from tests.support.publishing import FIVE, FOUR, MUTUAL_TLS, TLS, publication

ROTATIONS = 100_000  # a bound, should nobody end it


def main():
    path, first = sys.argv[1], int(sys.argv[2])
    is_gateways = "gateway" in sys.argv[3:]
    even, odd = (TLS, MUTUAL_TLS) if is_gateways else (FOUR, FIVE)
    sink = AtomicDirectory(path, layout=GATEWAY if is_gateways else ISTIOD)
    for number in range(first, first + ROTATIONS):
        sink.read()
        sink.publish(publication(number, odd if number % 2 else even, size=3000))
        if number == first:
            print("ready", flush=True)
        if number % 3 == 0:
            sink.tidy()


if __name__ == "__main__":
    main()
