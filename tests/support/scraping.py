"""What an agent's own server tells: its probes and its metrics."""

from __future__ import annotations

import re
import urllib.error
import urllib.request


def get(port: int, path: str) -> tuple[int, str]:
    """Ask for a path on loopback; the status is 0 where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def status_of(port: int, path: str) -> int:
    """The status of a probe."""
    return get(port, path)[0]


def metric(port: int, name: str) -> float:
    """The value of a metric, with its labels in the name; 0 where there is none."""
    match = re.search(rf"^{re.escape(name)} (\S+)$", get(port, "/metrics")[1], re.MULTILINE)
    return float(match[1]) if match else 0.0
