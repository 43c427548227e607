"""VUS-PR: volume under the precision-recall surface (Paparrizos et al., PVLDB 15(11), 2022).

Labels get sloping edges of half a buffer w on either side, sqrt(1 - distance/w); for every w from 0 to
`buffer` the area under a range-aware precision-recall curve is taken, and their mean is the volume. No
threshold is chosen. At a threshold with predictions p and edged labels l, of P labelled rows:

    TP = sum of l p            precision = TP / sum of p
    P' = P + (sum of l p outside the labelled rows) / 2
    recall = min(TP / P', 1) * (part of the edged events with a predicted row)

The authors' own code takes the threshold from 250 ranks of the sorted score; so does this. Theirs walks all
rows for every threshold and buffer; sums along the sorted score give the same numbers in O(buffer * rows).
"""

from __future__ import annotations

import numpy as np

from edge_rnn.evaluate.intervals import Flags, Floats, Intervals, runs

THRESHOLDS = 250


def vus_pr(score: Floats, labels: Flags, buffer: int = 100) -> float:
    """VUS-PR of score (T,), NaN = the smallest, against labels (T,); NaN where nothing or all is labelled.

    Args:
        score: higher is more anomalous.
        labels: bool.
        buffer: the widest buffer, rows; the authors take the series' period.
    """
    rows = len(labels)
    labelled = int(labels.sum())
    if labelled in (0, rows):
        return float("nan")
    known = np.isfinite(score)
    least = float(score[known].min()) - 1.0 if known.any() else 0.0
    value = np.where(known, score, np.where(score == np.inf, np.inf, least))
    order = np.argsort(-value, kind="stable")
    falling = value[order]
    limits = falling[np.linspace(0, rows - 1, THRESHOLDS).astype(int)]
    # How many rows each threshold predicts: all with a score not below it.
    predicted = np.searchsorted(-falling, -limits, side="right")
    events = runs(labels)
    outside = ~labels[order]
    area = 0.0
    for width in range(buffer + 1):
        edged = _edged(labels, events, width)[order]
        inside_sum = np.cumsum(edged)[predicted - 1]
        buffer_sum = np.cumsum(np.where(outside, edged, 0.0))[predicted - 1]
        peaks = np.array([value[a:b].max() for a, b in _joined(events, width, rows)])
        existence = (peaks[None, :] >= limits[:, None]).mean(axis=1)
        recall = np.minimum(inside_sum / (labelled + buffer_sum / 2.0), 1.0) * existence
        precision = inside_sum / predicted
        area += float(np.diff(recall, prepend=0.0) @ precision)
    return area / (buffer + 1)


def _edged(labels: Flags, events: Intervals, width: int) -> Floats:
    """The labels with sloping edges of width // 2 rows, added where two meet, at most 1."""
    edged = labels.astype(np.float64)
    half, rows = width // 2, len(labels)
    for a, b in events:
        behind = np.arange(b, min(b + half, rows))
        edged[behind] += np.sqrt(1.0 - (behind - (b - 1)) / width)
        before = np.arange(max(a - half, 0), a)
        edged[before] += np.sqrt(1.0 - (a - before) / width)
    return np.minimum(edged, 1.0)


def _joined(events: Intervals, width: int, rows: int) -> Intervals:
    """The events with their edges, those that touch as one."""
    half = width // 2
    joined: Intervals = []
    for a, b in events:
        start, stop = max(a - half, 0), min(b + half, rows)
        if joined and start <= joined[-1][1] - 1:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined
