"""From the scores of calibration rows: how rare a score is, and which one is too high."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.detector_spec import TableSpec, TailSpec, ThresholdSpec
from edge_rnn.detect.thresholds import FEWEST_EXCESSES, tail_value

Floats = NDArray[np.float64]

_DAY_NS = 86_400 * 10**9
_SHARES = (0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 5e-4, 2e-4, 1e-4)
# Excesses are counted above this quantile.
_HIGH = 0.98


def table_of(scores: Floats) -> TableSpec:
    """How often scores (n,) are exceeded, at round shares down to that of the largest; empty if all are 0."""
    falling = np.sort(scores)[::-1]
    n = len(falling)
    ranks = sorted({max(1, math.ceil(share * n)) for share in _SHARES} | {1}, reverse=True)
    points: list[tuple[float, float]] = []
    for rank in ranks:
        score = float(falling[rank - 1])
        if score > 0 and (not points or score > points[-1][0]):
            points.append((score, rank / (n + 1)))
    return TableSpec(scores=tuple(s for s, _ in points), exceed=tuple(p for _, p in points))


def filled(tail: TailSpec, scores: Floats) -> TailSpec:
    """`tail` with the table, or the first counts, that scores (n,) give."""
    if tail.kind == "table":
        return msgspec.structs.replace(tail, table=table_of(scores))
    mantissa, exponent = np.frexp(np.maximum(scores, 0.0))
    bins = tail.parts * tail.octaves
    place = (exponent - 1 - tail.low) * tail.parts + ((2 * mantissa - 1) * tail.parts).astype(int)
    place = np.where(scores > 0, np.clip(place, 0, bins - 1), 0)
    counts = np.bincount(place.astype(int), minlength=bins)
    return msgspec.structs.replace(tail, counts=tuple(int(k) for k in counts))


def risk_of(alarms_per_day: float, period_ns: int) -> float:
    """The part of samples whose score may be too high if there are to be so many a day, before the alarm
    makes one of several that follow each other; at most 1/2."""
    return min(alarms_per_day * period_ns / _DAY_NS, 0.5)


def threshold_of(scores: Floats, wanted: ThresholdSpec) -> ThresholdSpec:
    """`wanted` with its numbers from scores (n,) of rows the network was not trained on.

    fixed, quantile: as they are. conformal: the score that only `risk` of new scores exceed, whatever their
    distribution: the ceil((n + 1)(1 - risk))-th smallest, or 1.5 times the largest where n is too small to
    tell. pot, spot: the tail estimate for `risk`. dspot_ewma, dspot: the same of scores minus their mean.
    """
    if wanted.kind in ("fixed", "quantile"):
        return wanted
    if wanted.kind == "conformal":
        rank = math.ceil((len(scores) + 1) * (1.0 - wanted.risk))
        value = 1.5 * float(scores.max()) if rank > len(scores) else float(np.sort(scores)[rank - 1])
        return msgspec.structs.replace(wanted, value=max(value, 1e-9))
    mean = float(scores.mean()) if wanted.kind in ("dspot", "dspot_ewma") else 0.0
    above = scores - mean
    level = max(float(np.quantile(above, _HIGH)), 1e-9)
    excess = above[above > level] - level
    if len(excess) >= FEWEST_EXCESSES:
        value = tail_value(
            level, len(above), len(excess), float(excess.sum()), float((excess * excess).sum()), wanted.risk
        )
    else:
        value = 1.5 * max(float(above.max()), level)
    return msgspec.structs.replace(
        wanted, value=value, initial=mean, level=level, count=len(above), excess_count=len(excess),
        excess_sum=float(excess.sum()), excess_squares=float((excess * excess).sum()),
    )  # fmt: skip
