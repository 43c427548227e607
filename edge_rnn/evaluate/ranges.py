"""Range-based precision and recall (Tatbul et al., NeurIPS 2018), flat bias, no reward for mere existence.

A range counts by the part of it that is overlapped, divided by the number of ranges it is overlapped by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_rnn.evaluate.intervals import Flags, harmonic, runs


@dataclass(frozen=True, slots=True)
class Ranges:
    """precision (NaN without an alarm), recall (NaN without labels), f1."""

    precision: float
    recall: float
    f1: float


def range_based(alarm: Flags, labels: Flags) -> Ranges:
    """Compare alarms (T,) with labels (T,)."""
    precision, recall = _covered(alarm, labels), _covered(labels, alarm)
    if np.isnan(recall):
        return Ranges(precision, recall, float("nan"))
    return Ranges(precision, recall, 0.0 if np.isnan(precision) else harmonic(precision, recall))


def _covered(ranges: Flags, by: Flags) -> float:
    """The mean over the stretches of `ranges` of the part covered by `by` / number of covering stretches."""
    values = []
    starts = np.flatnonzero(by & ~np.concatenate([[False], by[:-1]]))
    for a, b in runs(ranges):
        covering = int(np.searchsorted(starts, b) - np.searchsorted(starts, a + 1)) + bool(by[a])
        values.append(float(by[a:b].mean()) / covering if covering else 0.0)
    return float(np.mean(values)) if values else float("nan")
