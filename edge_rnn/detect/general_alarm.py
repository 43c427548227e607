"""The alarm with limits in time, severity, recovery, and what becomes normal when it ends.

As in stages.py, `p` is the plan's record, `v` its vectors, `work` scratch, detect and marks the stream's
state; where the general detector's numbers lie in them is in general_plan.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.jit import inlined
from edge_rnn.detect import alarm
from edge_rnn.detect import fields as at
from edge_rnn.detect.general_rest import restart_scorers

Vector = NDArray[np.float64]
Marks = NDArray[np.int64]
Faults = NDArray[np.uint8]


@inlined
def advance(
    p: Any, v: Vector, work: Vector, fault: Faults, detect: Vector, marks: Marks, time_ns: int, score: float,
    threshold: float,
) -> bool:  # fmt: skip
    """The alarm's machine with its limits in time, recovery, and the severity.

    Returns whether what there is now becomes normal: what is left of an alarm that ended here, or a new level
    whose steps are over.
    """
    more = marks[p.marks_more_at : p.marks_more_at + at.MARKS_MORE]
    if score > threshold:
        if more[at.TOO_HIGH] == 0:
            more[at.TOO_HIGH] = 1
            more[at.HIGH_SINCE] = time_ns
    else:
        more[at.TOO_HIGH] = 0
    may_open = more[at.TOO_HIGH] != 0 or p.pending_ns == 0
    if p.pending_ns > 0 and may_open:
        may_open = time_ns - more[at.HIGH_SINCE] >= p.pending_ns
    if more[at.CLOSED] != 0 and time_ns - more[at.CLOSED_AT] < p.refractory_ns:
        may_open = False
    was = marks[at.PHASE]
    since = more[at.BELOW_SINCE] if was == alarm.CLEARING else time_ns
    may_close = time_ns - since >= p.clear_ns
    quiet = score < p.clear_ratio * threshold
    recovers = False
    if p.recovers:
        opener = marks[p.marks_more_at + at.OPENER]
        if not alarm.is_on(was):
            opener = int(work[p.fired_at])
        kind = v[p.scorers_at + opener * at.MORE + at.MORE_KIND]
        recovers = kind in (at.MEWMA, at.MEWMA_DIAGONAL)
        if recovers and alarm.is_on(was):
            quiet = not remains(p, v, work, fault, detect, marks)
    relevels = p.relevel > 0 and alarm.is_on(was) and marks[p.marks_more_at + p.relevel_at] > 0
    if relevels:
        quiet = False
    alarm.advance(
        marks, score > threshold, quiet, p.needed, p.alarm_window, p.clear_hold, p.refractory, may_open,
        may_close,
    )  # fmt: skip
    if p.recovers and alarm.is_on(marks[at.PHASE]) and not alarm.is_on(was):
        marks[p.marks_more_at + at.OPENER] = int(work[p.fired_at])
        marks[p.marks_more_at + at.OPEN_STEPS] = 0
        for i in range(p.channels):
            detect[p.recovery_at + i] = 0.0
        if recovers:
            remains(p, v, work, fault, detect, marks)
    more[at.BELOW_SINCE] = since if marks[at.PHASE] == alarm.CLEARING else 0
    if not alarm.is_on(marks[at.PHASE]):
        if alarm.is_on(was):
            more[at.CLOSED] = 1
            more[at.CLOSED_AT] = time_ns
        more[at.SEVERITY] = 0
        if recovers and p.rebase > 0 and alarm.is_on(was) and score > threshold:
            marks[p.marks_more_at + at.REBASE_LEFT] = p.rebase
            marks[at.WARM] = p.rebase
            return True
        return False
    reached = 1
    for k in range(p.severities):
        if score >= v[p.severity_at + k] * threshold:
            reached = k + 2
    more[at.SEVERITY] = max(more[at.SEVERITY], reached)
    if relevels:
        marks[p.marks_more_at + p.relevel_at] -= 1
        if marks[p.marks_more_at + p.relevel_at] == 0:
            restart_scorers(p, v, detect)
            return True
    elif p.relevel > 0 and score > threshold:
        marks[p.marks_more_at + p.relevel_at] = p.relevel
    return False


@inlined
def remains(p: Any, v: Vector, work: Vector, fault: Faults, detect: Vector, marks: Marks) -> bool:
    """Whether more than the recovered part of the event is left; one more step of its mean deviation D.

    d as its scorer has it: 0 where faulty or on the side that does not count.
    """
    c = p.channels
    more = marks[p.marks_more_at : p.marks_more_at + at.MARKS_MORE + at.RECOVERY_MARKS]
    s = more[at.OPENER]
    m = v[p.scorers_at + s * at.MORE : p.scorers_at + (s + 1) * at.MORE]
    weights = int(m[at.MORE_WEIGHTS_AT])
    state = at.DETECT_HEAD + (at.SCORERS_AT + 2 * s) * c
    mean = detect[p.recovery_at : p.recovery_at + c]
    d = work[at.D * c : (at.D + 1) * c]
    more[at.OPEN_STEPS] += 1
    for i in range(c):
        d[i] = 0.0 if fault[i] else detect[state + c + i] - detect[state + i]
        if (m[at.MORE_SIDE] == at.UP and d[i] < 0.0) or (m[at.MORE_SIDE] == at.DOWN and d[i] > 0.0):
            d[i] = 0.0
        mean[i] += (d[i] - mean[i]) / more[at.OPEN_STEPS]
    left = whole = 0.0
    for i in range(c):
        if m[at.MORE_KIND] == at.MEWMA:
            inner = 0.0
            for j in range(c):
                inner += v[weights + i * c + j] * mean[j]
        else:
            inner = v[weights + i] * mean[i]
        left += d[i] * inner
        whole += mean[i] * inner
    return not left < p.recovery * whole


@inlined
def rebase(p: Any, detect: Vector, marks: Marks) -> None:
    """While a new center is to be found: the mean of the smoothed deviations so far."""
    if p.recovers == 0 or marks[p.marks_more_at + at.REBASE_LEFT] == 0:
        return
    c = p.channels
    center = at.DETECT_HEAD + (at.SCORERS_AT + 2 * marks[p.marks_more_at + at.OPENER]) * c
    steps = p.rebase - marks[p.marks_more_at + at.REBASE_LEFT] + 1
    for i in range(c):
        detect[center + i] += (detect[center + c + i] - detect[center + i]) / steps
    marks[p.marks_more_at + at.REBASE_LEFT] -= 1
