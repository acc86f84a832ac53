"""What the injector would reserve for vault-agent, as far as certagent can live with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from certagent.cli.migration.annotations import Annotations

_NAMES = {"cpu": "cpu", "mem": "memory", "ephemeral": "ephemeral-storage"}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|[KMGT]i?)?", re.ASCII)
_UNITS = {"m": 0.001, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12} | {
    f"{unit}i": 1024.0**power for power, unit in enumerate("KMGT", 1)
}


def resources(given: Annotations, faults: list[str]) -> dict[str, dict[str, str]]:
    """Return the limits and requests that were given, by Kubernetes' names of them."""
    found: dict[str, dict[str, str]] = {}
    for bound in ("limits", "requests"):
        for short, name in _NAMES.items():
            annotation = f"agent-{bound}-{short}"
            if not (value := given[annotation]):
                continue
            if not _QUANTITY.fullmatch(value):
                faults.append(f"{annotation}: expected a quantity such as 64Mi, got {value[:40]!r}")
            found.setdefault(bound, {})[name] = value
    return found


def reserved(
    ours: Mapping[str, Mapping[str, str]], wanted: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """Return the overlay's resources with those that were wanted in place of them.

    Memory never goes below the overlay's, which was measured, and no request above its limit, as
    Kubernetes would refuse it.
    """
    both = {
        bound: {**ours.get(bound, {}), **wanted.get(bound, {})} for bound in ("requests", "limits")
    }
    for bound, quantities in both.items():
        quantities["memory"] = max(quantities["memory"], ours[bound]["memory"], key=quantity)
    for name, limit in both["limits"].items():
        request = both["requests"].get(name, limit)
        both["limits"][name] = max(limit, request, key=quantity)
    return both


def quantity(text: str) -> float:
    """Return what a quantity of Kubernetes counts: cores, or bytes."""
    match = _QUANTITY.fullmatch(text)
    assert match  # noqa: S101 - `resources` has looked
    return float(match[1]) * (_UNITS[match[2]] if match[2] else 1)
