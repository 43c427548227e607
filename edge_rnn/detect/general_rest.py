"""How the general detector begins anew: after a reset, and when a lasting level is accepted as normal.

As in stages.py, `p` is the plan's record, `v` its vectors, `work` scratch, detect and marks the stream's
state; where the general detector's numbers lie in them is in general_plan.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.jit import jit
from edge_rnn.detect import condition, guard, stages
from edge_rnn.detect import fields as at
from edge_rnn.detect.stages import LIMIT

Vector = NDArray[np.float64]
Marks = NDArray[np.int64]
Faults = NDArray[np.uint8]


@jit
def rest(p: Any, v: Vector, fresh: int, row: int, detect: Vector, marks: Marks) -> None:
    """As `stages.rest`; charts and peaks begin anew, what was learned stays."""
    stages.rest(p, fresh, row, detect, marks)
    c = p.channels
    for k in range(at.MARKS_MORE):
        marks[p.marks_more_at + k] = 0
    if p.recovers:
        for k in range(at.RECOVERY_MARKS):
            marks[p.marks_more_at + at.OPENER + k] = 0
    detect[p.more_at + at.PEAK] = 0.0
    if p.trends:
        for k in range(at.TREND_VECTORS * c):
            detect[p.trend_at + k] = 0.0
    if p.relevel > 0:
        marks[p.marks_more_at + p.relevel_at] = 0
    restart_scorers(p, v, detect)


@jit
def restart_scorers(p: Any, v: Vector, detect: Vector) -> None:
    """What scorers have smoothed or summed up begins anew; what they have learned stays."""
    c = p.channels
    for s in range(p.scorers):
        m = v[p.scorers_at + s * at.MORE : p.scorers_at + (s + 1) * at.MORE]
        center = at.DETECT_HEAD + (at.SCORERS_AT + 2 * s) * c
        z = center + c
        chart = int(m[at.MORE_STATE_AT]) + at.CHART_AT
        for i in range(c):
            detect[z + i] = detect[center + i]
            if m[at.MORE_KIND] == at.LIKELIHOOD or m[at.MORE_KIND] == at.MAGNITUDE:
                detect[z + i] = detect[chart + i]
            if m[at.MORE_KIND] == at.MAGNITUDE:
                detect[chart + c + i] = detect[center + i]
            elif m[at.MORE_KIND] == at.CUSUM or m[at.MORE_KIND] == at.PAGE_HINKLEY:
                detect[chart + i] = detect[chart + c + i] = 0.0


@jit
def accept(p: Any, v: Vector, work: Vector, fault: Faults, detect: Vector) -> None:
    """As `stages.accept`, for all charts and running means."""
    stages.accept(p, v, detect)
    c = p.channels
    more = p.more_at + at.DETECT_MORE
    for s in range(p.scorers):
        m = v[p.scorers_at + s * at.MORE : p.scorers_at + (s + 1) * at.MORE]
        z = at.DETECT_HEAD + (at.SCORERS_AT + 2 * s + 1) * c
        a = int(m[at.MORE_STATE_AT]) + at.CHART_AT
        for i in range(c):
            if m[at.MORE_KIND] == at.LIKELIHOOD or m[at.MORE_KIND] == at.LEVEL:
                detect[a + i] = detect[z + i]
            elif m[at.MORE_KIND] == at.MAGNITUDE and v[at.DRIFT * c + i] == 0.0:
                detect[z - c + i] = detect[a + c + i]
            elif m[at.MORE_KIND] == at.NOVELTY and detect[a + i] <= detect[a + c + i]:
                detect[a + i] = min(detect[a + i], detect[z + i])
                detect[a + c + i] = max(detect[a + c + i], detect[z + i])
    for i in range(c):
        if v[p.running_at + i] != 0.0 and fault[i] == guard.NONE:
            detect[more + at.RUNNING_MEAN_AT * c + i] = condition.clip(work[at.RAW * c + i], LIMIT)
            detect[more + at.RUNNING_COUNT_AT * c + i] = p.running_start
