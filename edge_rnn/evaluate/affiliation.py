"""Affiliation precision and recall (Huet, Navarro & Rossi, KDD 2022).

Time is cut into zones, one for each event: the rows nearer to it than to any other. In its zone, every
predicted moment is compared with a random one: its precision is the probability that a uniformly drawn
moment of the zone would lie at least as far from the event. Every moment of the event has as recall the
probability that a random moment lies at least as far from it as the nearest predicted one does. Both are
averaged, over moments and then over zones (precision: zones with predictions).

Rows are intervals of length 1 of continuous time, as the authors have it. All functions that are integrated
are linear between multiples of a quarter row, so sums over quarters' midpoints are the exact integrals.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edge_rnn.evaluate.intervals import Flags, Floats, Intervals, harmonic, runs

_CELLS = 4


@dataclass(frozen=True, slots=True)
class Affiliation:
    """precision (NaN without an alarm), recall, f1 (0 without an alarm); NaN where nothing is labelled."""

    precision: float
    recall: float
    f1: float


def affiliation(alarm: Flags, labels: Flags) -> Affiliation:
    """Affiliation of alarms (T,) with labels (T,)."""
    each = zones(runs(alarm), runs(labels), len(labels))
    if not each:
        nan = float("nan")
        return Affiliation(nan, nan, nan)
    known = [p for p, _ in each if not np.isnan(p)]
    recall = float(np.mean([r for _, r in each]))
    if not known:
        return Affiliation(float("nan"), recall, 0.0)
    precision = float(np.mean(known))
    return Affiliation(precision, recall, harmonic(precision, recall))


def zones(predicted: Intervals, events: Intervals, length: int) -> list[tuple[float, float]]:
    """Precision (NaN where nothing is predicted) and recall in the zone of each event."""
    edges = [0.0, *((a[1] + b[0]) / 2 for a, b in pairwise(events)), float(length)]
    starts = np.array([a for a, _ in predicted], np.float64)
    stops = np.array([b for _, b in predicted], np.float64)
    return [_zone(starts, stops, event, (edges[k], edges[k + 1])) for k, event in enumerate(events)]


def _zone(
    starts: Floats, stops: Floats, event: tuple[int, int], zone: tuple[float, float]
) -> tuple[float, float]:
    near = (stops > zone[0]) & (starts < zone[1])
    if not near.any():
        return float("nan"), 0.0
    starts, stops = np.maximum(starts[near], zone[0]), np.minimum(stops[near], zone[1])
    size = zone[1] - zone[0]
    # Precision: moments predicted in the zone.
    x = np.concatenate([_midpoints(a, b) for a, b in zip(starts, stops, strict=True)])
    far = np.maximum(np.maximum(event[0] - x, x - event[1]), 0.0)
    nearer = (event[1] - event[0]) + np.minimum(far, event[0] - zone[0]) + np.minimum(far, zone[1] - event[1])
    precision = float(np.where(far > 0, 1.0 - nearer / size, 1.0).mean())
    # Recall: moments of the event, and the nearest predicted moment of the zone.
    y = _midpoints(*event)
    at = np.searchsorted(starts, y, side="right")
    left = np.where(at > 0, y - stops[np.maximum(at - 1, 0)], np.inf)
    right = np.where(at < len(starts), starts[np.minimum(at, len(starts) - 1)] - y, np.inf)
    away = np.maximum(np.minimum(left, right), 0.0)
    recall = 1.0 - (np.minimum(away, y - zone[0]) + np.minimum(away, zone[1] - y)) / size
    return precision, float(recall.mean())


def _midpoints(a: float, b: float) -> Floats:
    """Middles of the quarters of [a, b)."""
    return a + (np.arange(round((b - a) * _CELLS)) + 0.5) / _CELLS
