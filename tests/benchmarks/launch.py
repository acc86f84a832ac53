"""Run a command to its end, and print as JSON what it cost: `python -I -S launch.py COMMAND …`.

A process of its own because a child's peak memory (getrusage(2), `ru_maxrss`) counts also what it
shares with its parent between fork and exec: a large parent would be measured with every child.
"""

import json
import os
import sys
import time


def main():
    command = sys.argv[1:]
    began = time.monotonic()
    # All that the command says goes to stderr; stdout is for the report.
    to_stderr = [(os.POSIX_SPAWN_DUP2, 2, 1)]
    child = os.posix_spawnp(command[0], command, os.environ, file_actions=to_stderr)
    _, status, usage = os.wait4(child, 0)
    report = {
        "began": began,
        "ended": time.monotonic(),
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * 1024,
        "code": os.waitstatus_to_exitcode(status),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
