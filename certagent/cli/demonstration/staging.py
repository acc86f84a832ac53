"""A change of roots as it was seen: its stages, and a drawing of them against time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from certagent.material.kinds import CA

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from certagent.cli.demonstration.sidecar import Sidecar
    from certagent.sinks import Snapshot

_COLUMNS = 72
_MOST_A_SECOND = 8  # columns: room for the name of a phase that lasted for a second
_LABEL = 18  # columns
_BEFORE = 1  # seconds that are drawn before the push
_AFTER = 2  # seconds at most after the last change
_NAMES = "AB"


@dataclass(frozen=True, slots=True)
class Stage:
    """What a reader found from `at` on, in seconds after the push.

    `signer` is the fingerprint of the CA certificate, `roots` are those of root-cert.pem in its
    order: the first eight digits of each SHA-256.
    """

    at: float
    phase: str
    signer: str
    roots: tuple[str, ...]

    @classmethod
    def seen(cls, snapshot: Snapshot, at: float) -> Stage:
        """Return the stage of a published set."""
        bundle = CA.bundle_of(snapshot.files)
        roots = tuple(root.fingerprint[:8] for root in bundle.roots)
        return cls(at, snapshot.record["phase"], bundle.certificate.fingerprint[:8], roots)

    def __str__(self) -> str:
        """Return it as a line."""
        roots = " + ".join(self.roots)
        return f"{self.at:.1f} s: {self.phase:10}  signer {self.signer}  roots {roots}"


def watch(agent: Sidecar, old: int, new: int, pushed: float) -> Iterator[tuple[Stage, str]]:
    """Yield each stage in which version `new` follows `old`, and the agent's line about it.

    `pushed` is when it was stored: monotonic, in seconds.
    """
    for phase, signer in (("distribute", old), ("switch", new), ("settled", new)):
        snapshot = agent.wait_for_version(signer, phase)
        stage = Stage.seen(snapshot, time.monotonic() - pushed)
        yield stage, agent.wait_for_line(f"{phase}: version {new} ")


def is_staged(stages: Sequence[Stage]) -> bool:
    """Whether one root replaced another as it must: A/A, A/A+B, B/A+B, B/B (signer/roots)."""
    old, new = stages[0], stages[-1]
    a, b = frozenset(old.roots), frozenset(new.roots)
    seen = [(stage.signer, frozenset(stage.roots)) for stage in stages]
    walk = [(old.signer, a), (old.signer, a | b), (new.signer, a | b), (new.signer, b)]
    return seen == walk and old.signer != new.signer and not a & b


def drawn(stages: Sequence[Stage]) -> list[str]:
    """Draw a staged change against time: a bar for each signer and root, as long as it stood.

    The first stage is drawn from a second before the push on.
    """
    end = int(stages[-1].at) + _AFTER
    scale = max(1, min(_MOST_A_SECOND, _COLUMNS // (_BEFORE + end)))
    edges = [0, *(round((_BEFORE + each.at) * scale) for each in stages[1:])]
    widths = [stop - start for start, stop in pairwise([*edges, (_BEFORE + end) * scale])]

    def row(label: str, cells: Iterable[str]) -> str:
        filled = (f"{cell:{width}.{width}}" for cell, width in zip(cells, widths, strict=True))
        return f"{label:{_LABEL}}{''.join(filled)}".rstrip()

    def bar(label: str, stands: Iterable[bool]) -> str:
        spans = zip(stands, widths, strict=True)
        return row(label, ("=" * width if stood else "" for stood, width in spans))

    signers = dict.fromkeys(stage.signer for stage in stages)
    roots = dict.fromkeys(root for stage in stages for root in stage.roots)
    seconds = "".join(f"{second:<{scale}}" for second in range(-_BEFORE, end + 1))
    return [
        f"{'s after the push':{_LABEL}}{seconds}".rstrip(),
        row("phase", (stage.phase for stage in stages)),
        *(
            bar(f"signer {name} {each}", (stage.signer == each for stage in stages))
            for name, each in zip(_NAMES, signers, strict=True)
        ),
        *(
            bar(f"root   {name} {each}", (each in stage.roots for stage in stages))
            for name, each in zip(_NAMES, roots, strict=True)
        ),
    ]
