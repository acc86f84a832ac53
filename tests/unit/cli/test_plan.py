"""How a history and its timeline are written."""

from __future__ import annotations

from datetime import timedelta

from certagent.cli.plan import _lines, _outlook
from certagent.cli.stores import Place
from certagent.material.history import Policy
from tests.support.material import NOW, make_root, new_key, private_key_pem
from tests.support.stores import MemorySource

HOUR = timedelta(hours=1)
A = make_root(subject="CN=Root A")
B = make_root(subject="CN=Root B", not_before=A.certificate.not_valid_before_utc + HOUR)
FIRST, SECOND = A.intermediate("cluster1"), B.intermediate("cluster1")


def shown(source: MemorySource) -> list[str]:
    place = Place("mesh", source, Policy(), frozenset())
    return [line.strip() for line in _lines(_outlook(place, NOW))]


def test_a_replaced_root_reads_as_a_table_and_its_phases():
    source = MemorySource("vault:kv/certs")
    source.push(FIRST.raw(), created_at=NOW - 100 * HOUR)
    source.push(SECOND.raw(), created_at=NOW - HOUR)
    a, b = A.fingerprint[:8], B.fingerprint[:8]

    head, first, second, heading, *phases = shown(source)

    assert head == "mesh: vault:kv/certs"
    assert first.startswith("version 1  2026-06-27T08:00:00Z  ")
    assert first.endswith(f"  roots {a}")
    assert second.startswith("version 2  2026-07-01T11:00:00Z  ")
    assert heading == "phases, if nobody pushes (distribute 25h, retire 25h, slack 1h):"
    assert phases[0].startswith(
        f"2026-07-01T12:00:00Z  distribute  signer version 1  roots {a} {b}  version 2 signs"
    )
    assert phases[1].startswith(
        f"2026-07-02T12:00:00Z  switch      signer version 2  roots {a} {b}  "
    )
    assert phases[2].startswith(f"2026-07-03T13:00:00Z  settled     signer version 2  roots {b}  ")


def test_without_anything_good_nobody_signs():
    source = MemorySource("vault:kv/certs")
    bad = FIRST.raw(private_key=private_key_pem(new_key()))
    source.push(bad, created_at=NOW - HOUR)

    lines = shown(source)

    assert "REFUSED key-mismatch (private_key): " in lines[1]
    assert "hold        no signer  roots none  " in lines[-1]


def test_a_withdrawn_version_says_how():
    source = MemorySource("vault:kv/certs")
    source.push(FIRST.raw(), created_at=NOW - HOUR)
    source.withdraw("destroyed")

    assert shown(source)[1] == "version 1  2026-07-01T11:00:00Z  destroyed"
