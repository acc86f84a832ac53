"""The specification of `certagent.material.rotation.plan`, in the fewest words: a test oracle.

It was written down before the module, and shares no line with it: integers instead of times, sets
instead of types. The three places with a comment `C…` are corrections that simulation asked
for; each has its test among the counterexamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import NamedTuple


@dataclass(frozen=True)
class Rev:
    """A revision, stored at T, valid from nb to na; `tomb`: withdrawn, `gone`: when, if known."""

    T: int
    nb: int
    na: float
    roots: frozenset[str] = frozenset()
    anchors: frozenset[str] = frozenset()
    tomb: bool = False
    gone: int | None = None


class Windows(NamedTuple):
    d: int
    r: int
    slack: int
    margin: int


class Out(NamedTuple):
    signer: int | None  # the place in the history
    roots: frozenset[str]
    next: float
    phase: str


def plan(history: list[Rev], now: int, p: Windows) -> Out:  # noqa: C901 - kept in one piece
    d, keep, surely = p.d, p.d + p.r, p.d + p.r - p.slack
    h = [(i, x, max(x.T, x.nb)) for i, x in enumerate(history)]
    gone = [
        min(inf if x.gone is None else x.gone, h[i + 1][2] if i + 1 < len(h) else inf)
        for i, x, _ in h
    ]
    traceless = [x.tomb and g <= t + d - p.slack for (_, x, t), g in zip(h, gone, strict=True)]
    holes = [(h[i][2], g) for i, g in enumerate(gone) if traceless[i]]
    h = [e for e, without in zip(h, traceless, strict=True) if not without]
    lives = [not x.tomb and x.na - p.margin > t + d + p.slack for _, x, t in h]
    # C27: what lives long enough drops those after it which do not, never those before it.
    h = [e for i, e in enumerate(h) if e[1].tomb or lives[i] or not any(lives[:i])]

    begin = [min(t for _, _, t in h[i:]) for i in range(len(h))]
    coming = [t for t in begin if t > now]
    n = len(begin) - len(coming)
    place, h, begin = [i for i, _, _ in h][:n], [x for _, x, _ in h][:n], begin[:n]
    good = [i for i, x in enumerate(h) if not x.tomb]
    if not good:
        return Out(None, frozenset(), min(coming, default=inf), "hold")
    if not h[0].tomb:
        begin[0] = -inf
    end, last = [*begin[1:], inf], good[-1]

    roots = h[last].roots
    for i in good:
        if now < end[i] + keep:
            roots |= h[i].anchors

    def known_since(a):
        since = inf
        for j in reversed(range(len(h))):
            if h[j].anchors & a or any(
                h[k].anchors & a and end[k] + surely >= min(end[j], now) for k in good if k < j
            ):
                since = begin[j]
            elif h[j].roots & a:
                # C28: what was withdrawn without a trace had dropped what was only listed.
                hole = max((g for t, g in holes if t <= end[j] and g >= begin[j]), default=-inf)
                since = min(since, max(begin[j], hole))
                if hole > -inf:
                    break
            else:
                break
        return since

    recent = [i for i in good if end[i] >= now - d]
    # C26: a revision that was superseded before its notBefore does not sign before it.
    cand = [i for i in recent if h[i].nb <= now < h[i].na]
    well = [i for i in cand if now < h[i].na - p.margin]
    ready = {i: known_since(h[i].anchors) + d for i in cand}
    ripe = [i for i in well if ready[i] <= now]
    s = (
        ripe[-1]
        if ripe
        else min(reversed(well), key=ready.get)
        if well
        else cand[-1]
        if cand
        else None
    )
    edges = [*coming, *ready.values(), *(end[i] + keep for i in good)]
    edges += [e for i in cand for e in (end[i] + d + 1, h[i].na, h[i].na - p.margin)]
    # C26, and who has left `recent` by then does not sign at all.
    edges += [h[i].nb for i in recent if h[i].nb <= end[i] + d]
    following = min((e for e in edges if now < e < inf), default=inf)
    if s is None:
        return Out(None, roots, following, "hold")
    roots |= h[s].anchors
    phase = (
        "early"
        if ready[s] > now
        else "distribute"
        if s != last and ready.get(last, inf) > now
        else "switch"
        if roots != h[last].roots
        else "settled"
    )
    return Out(place[s], roots, following, phase)
