"""The usual measures of one recording in one call; `None` stands for what a detector has no score for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_rnn.evaluate import events, rows
from edge_rnn.evaluate.affiliation import affiliation
from edge_rnn.evaluate.intervals import Flags, Floats
from edge_rnn.evaluate.ranges import range_based
from edge_rnn.evaluate.vus import vus_pr

BUFFER = 100


@dataclass(frozen=True, slots=True)
class Measures:
    """One line of a comparison; NaN where a measure is not defined.

    rows, events: the counts (pool them over files). vus_pr, affiliation_f1, range_f1: of this recording
    (average them over files).
    """

    rows: rows.RowCounts
    events: events.EventCounts
    vus_pr: float
    affiliation_precision: float
    affiliation_recall: float
    affiliation_f1: float
    range_f1: float


def measure(
    alarm: Flags,
    score: Floats | None,
    labels: Flags,
    times_ns: NDArray[np.int64],
    *,
    tail: int = 0,
    gap: int = 0,
    buffer: int = BUFFER,
) -> Measures:
    """Measure one recording.

    Args:
        alarm, labels: (T,) bool.
        score: (T,) float64, NaN where nothing was judged; None takes the alarm itself as the score.
        times_ns: (T,) int64, rising.
        tail, gap: rows, see `events.match`.
        buffer: rows, see `vus.vus_pr`.
    """
    near = affiliation(alarm, labels)
    return Measures(
        rows=rows.count(alarm, labels),
        events=events.count(alarm, labels, times_ns, tail, gap),
        vus_pr=vus_pr(alarm.astype(np.float64) if score is None else score, labels, buffer),
        affiliation_precision=near.precision,
        affiliation_recall=near.recall,
        affiliation_f1=near.f1,
        range_f1=range_based(alarm, labels).f1,
    )
