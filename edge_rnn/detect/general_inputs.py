"""From readings to what the model sees, in the general detector: level, spread, limits, features.

As in stages.py, `p` is the plan's record, `v` its vectors, `work` scratch, detect and marks the stream's
state; where the general detector's numbers lie in them is in general_plan.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.jit import inlined
from edge_rnn.detect import alarm, charts, condition, guard, trend
from edge_rnn.detect import fields as at
from edge_rnn.detect.arithmetic import cosine, ln, root, sine
from edge_rnn.detect.stages import LIMIT

Vector = NDArray[np.float64]
Marks = NDArray[np.int64]
Faults = NDArray[np.uint8]

DAY = 86_400_000_000_000
# The day 0 of the clock was a Thursday; weeks begin on Monday.
THURSDAY = 3


@inlined
def prepare(
    p: Any, v: Vector, y: NDArray[np.float32], work: Vector, fault: Faults, x: NDArray[np.float32],
    detect: Vector, marks: Marks, time_ns: int,
) -> None:  # fmt: skip
    """As `stages.prepare`, with trends, running means, limits, differences and features."""
    c = p.channels
    held = at.DETECT_HEAD + at.HELD_AT * c
    calm = not alarm.is_on(marks[at.PHASE])
    drift_rate = p.drift_rate if calm else p.drift_rate_in_alarm
    more = p.more_at + at.DETECT_MORE
    before = detect[more + at.BEFORE_AT * c : more + (at.BEFORE_AT + 1) * c]
    has_before = marks[p.marks_more_at + at.HAS_BEFORE] != 0
    spoken = p.said_next and marks[at.SPOKEN] != 0
    relevels = relevel_step(p, marks)
    for i in range(c):
        at_level = at.DETECT_HEAD + at.LEVEL_AT * c + i
        scaled = work[at.SCALED * c + i]
        good = fault[i] == guard.NONE
        work[at.RAW * c + i] = condition.clip(scaled, LIMIT)
        drifts = v[at.DRIFT * c + i] != 0.0
        runs = v[p.running_at + i] != 0.0
        slopes = p.trends and v[p.trends_at + i] != 0.0
        spread = 1.0
        if runs:
            spread = root(detect[more + at.RUNNING_VARIANCE_AT * c + i])
            detect[at_level] = detect[more + at.RUNNING_MEAN_AT * c + i]
        if good and drifts and marks[at.MARKS_HEAD + at.LEVELLED_AT * c + i] == 0:
            marks[at.MARKS_HEAD + at.LEVELLED_AT * c + i] = 1
            detect[at_level] = scaled
        base = detect[at_level]
        if slopes:
            base += detect[p.trend_at + at.SLOPE_AT * c + i]
        if good:
            hard = condition.clip((scaled - base) / spread, p.clip)
            z = condition.clip(soft((scaled - base) / spread, p.soft_clip), p.clip)
            detect[held + i] = z
        elif p.predicts and marks[at.SPOKEN]:
            z = condition.clip(np.float64(y[i]), p.clip)
        else:
            z = detect[held + i]
        said = np.float64(y[i]) if spoken else 0.0
        work[at.SEEN * c + i] = z
        x[i] = np.float32(z)
        if spoken and relevels > 0:
            x[i] = np.float32(condition.clip(said, p.clip))
        elif spoken and p.innovation_limit > 0.0:
            x[i] = np.float32(condition.clip(said + condition.clip(z - said, p.innovation_limit), p.clip))
        work[at.SCALED * c + i] = base
        work[at.SPREAD * c + i] = spread
        work[at.CHANGE * c + i] = z - before[i] if has_before else 0.0
        before[i] = z
        if drifts and good:
            if relevels > 0:
                left = condition.clip(scaled - base, LIMIT)
                if p.levels_said:
                    left -= said
                detect[at_level] = base + left / relevels
                if slopes:
                    left = condition.clip(left, p.clip)
                    detect[p.trend_at + at.SLOPE_AT * c + i] += p.relevel_slope_rate * left
            elif slopes:
                count = detect[p.trend_at + at.TREND_COUNT_AT * c + i] + 1.0
                detect[p.trend_at + at.TREND_COUNT_AT * c + i] = count
                detect[at_level] = base + trend.level_gain(count, p.trend_level_rate) * z
                detect[p.trend_at + at.SLOPE_AT * c + i] += trend.slope_gain(count, p.trend_slope_rate) * z
            else:
                detect[at_level] += drift_rate * z
        if runs and good and calm:
            count = detect[more + at.RUNNING_COUNT_AT * c + i]
            share = 1.0 / min(count + 1.0, p.running_memory)
            d = hard * spread
            variance = detect[more + at.RUNNING_VARIANCE_AT * c + i]
            detect[more + at.RUNNING_MEAN_AT * c + i] += share * d
            variance = (1.0 - share) * (variance + share * d * d)
            detect[more + at.RUNNING_VARIANCE_AT * c + i] = max(variance, charts.SMALLEST_VARIANCE)
            detect[more + at.RUNNING_COUNT_AT * c + i] = count + 1.0
    marks[p.marks_more_at + at.HAS_BEFORE] = 1
    for f in range(p.features):
        kind = int(v[p.features_at + f * at.FEATURE + at.FEATURE_KIND])
        if kind == 0:
            channel = int(v[p.features_at + f * at.FEATURE + at.FEATURE_CHANNEL])
            x[c + f] = np.float32(work[at.CHANGE * c + channel])
        else:
            x[c + f] = np.float32(of_time(kind, time_ns + p.utc_offset))


@inlined
def relevel_step(p: Any, marks: Marks) -> int:
    """Which of the steps this is in which a new level is taken, from 1; 0: none."""
    if p.relevel == 0 or marks[p.marks_more_at + p.relevel_at] == 0:
        return 0
    return int(p.relevel - marks[p.marks_more_at + p.relevel_at] + 1)


@inlined
def soft(z: float, start: float) -> float:
    """z, growing by its logarithm only beyond `start` (0: as it is)."""
    size = abs(z)
    if start <= 0.0 or size <= start:
        return z
    size = start + ln(1.0 + (size - start))
    return size if z > 0.0 else -size


@inlined
def of_time(kind: int, local_ns: int) -> float:
    """A feature of local time; `kind` is its place in TIME_FEATURES, from 1."""
    day = local_ns % DAY
    if kind == 1:
        return sine(day / DAY)
    if kind == 2:
        return cosine(day / DAY)
    if kind == 3:
        return sine((day % (DAY // 2)) / (DAY // 2))
    if kind == 4:
        return cosine((day % (DAY // 2)) / (DAY // 2))
    week = (local_ns % (7 * DAY) + THURSDAY * DAY) % (7 * DAY)
    if kind == 5:
        return sine(week / (7 * DAY))
    if kind == 6:
        return cosine(week / (7 * DAY))
    return 1.0 if week >= 5 * DAY else 0.0
