"""The stages of one sample that need the whole stream's state; loop.py calls them in order.

`p` is the plan's record, `v` its vectors, `work` scratch of WORK_VECTORS vectors of C numbers; detect and
marks are the stream's state (fields.py). All run in jitted code only. What every sample passes through is
inlined: as calls, with their arrays as arguments, the stages cost twice the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.jit import inlined, jit
from edge_rnn.detect import condition, guard, scorers, thresholds
from edge_rnn.detect import fields as at
from edge_rnn.detect.fields import BEST, DEVIATION, PART, SCALED, SEEN, D
from edge_rnn.detect.memory import f4_at

# Residuals in units of their spread are limited to this, so that no product of them overflows.
LIMIT = 1e6

Vector = NDArray[np.float64]
Marks = NDArray[np.int64]
Faults = NDArray[np.uint8]


@jit
def rest(p: Any, fresh: int, row: int, detect: Vector, marks: Marks) -> None:
    """Back to the resting state and a new warm-up; what guard and threshold have learned stays."""
    core, resting = f4_at(row, p.core_size), f4_at(fresh, p.core_size)
    for k in range(p.core_size):
        core[k] = resting[k]
    c = p.channels
    detect[at.LOCAL_MEAN] = p.initial
    detect[at.WINDOW_SUM] = 0.0
    marks[at.RING_AT] = 0
    marks[at.RING_FILL] = 0
    for i in range(c):
        detect[at.DETECT_HEAD + at.HELD_AT * c + i] = 0.0
        detect[at.DETECT_HEAD + at.LEVEL_AT * c + i] = 0.0
        marks[at.MARKS_HEAD + at.LEVELLED_AT * c + i] = 0
        marks[at.MARKS_HEAD + at.BRIDGED_AT * c + i] = 0
    for s in range(p.scorers):
        start = at.DETECT_HEAD + (at.SCORERS_AT + 2 * s) * c
        for i in range(c):
            detect[start + c + i] = detect[start + i]
    for k in (at.SPOKEN, at.PHASE, at.HISTORY, at.CLEARING_STEPS, at.REFRACTORY, at.FROZEN):
        marks[k] = 0
    marks[at.WARM] = p.warmup


@inlined
def judge(
    p: Any, v: Vector, time_ns: int, x: Vector, present: NDArray[np.uint8], work: Vector, fault: Faults,
    detect: Vector, marks: Marks,
) -> int:  # fmt: skip
    """Guard: the fault of every channel, and the number of healthy ones, negative where a reset is due."""
    c = p.channels
    last = detect[at.DETECT_HEAD + at.LAST_AT * c : at.DETECT_HEAD + (at.LAST_AT + 1) * c]
    run = marks[at.MARKS_HEAD + at.RUN_AT * c : at.MARKS_HEAD + (at.RUN_AT + 1) * c]
    heard = marks[at.MARKS_HEAD + at.HEARD_AT * c : at.MARKS_HEAD + (at.HEARD_AT + 1) * c]
    bridged = marks[at.MARKS_HEAD + at.BRIDGED_AT * c : at.MARKS_HEAD + (at.BRIDGED_AT + 1) * c]
    healthy = 0
    too_long = False
    for i in range(c):
        scaled = (x[i] - v[at.MEAN * c + i]) / v[at.STD * c + i]
        work[SCALED * c + i] = scaled
        kind = guard.judge(
            i, x[i], scaled, present[i], time_ns, v[at.LOW * c + i], v[at.HIGH * c + i],
            v[at.STUCK_AFTER * c + i], p.silent_after, last, run, heard,
        )  # fmt: skip
        fault[i] = kind
        if kind != guard.NONE:
            bridged[i] += 1
            continue
        healthy += 1
        too_long = too_long or 0 < p.max_missing < bridged[i]
        bridged[i] = 0
    return -healthy if too_long else healthy


@inlined
def prepare(
    p: Any, v: Vector, y: NDArray[np.float32], work: Vector, fault: Faults, x: NDArray[np.float32],
    detect: Vector, marks: Marks, drift_rate: float,
) -> None:  # fmt: skip
    """What the model sees, in `work[SEEN]` and as float32 in x; the level below it goes to `work[SCALED]`."""
    c = p.channels
    held = at.DETECT_HEAD + at.HELD_AT * c
    for i in range(c):
        level = at.DETECT_HEAD + at.LEVEL_AT * c + i
        scaled = work[SCALED * c + i]
        drifts = v[at.DRIFT * c + i] != 0.0
        if fault[i] == guard.NONE:
            if drifts and marks[at.MARKS_HEAD + at.LEVELLED_AT * c + i] == 0:
                marks[at.MARKS_HEAD + at.LEVELLED_AT * c + i] = 1
                detect[level] = scaled
            z = condition.clip(scaled - detect[level], p.clip)
            detect[held + i] = z
        elif p.predicts and marks[at.SPOKEN]:
            z = condition.clip(np.float64(y[i]), p.clip)
        else:
            z = detect[held + i]
        work[SEEN * c + i] = z
        x[i] = np.float32(z)
        work[SCALED * c + i] = detect[level]
        if drifts and fault[i] == guard.NONE:
            detect[level] += drift_rate * z


@inlined
def compare(
    p: Any, v: Vector, y: NDArray[np.float32], work: Vector, xs: Vector, present: NDArray[np.uint8],
    residual: Vector, expected: Vector,
) -> None:  # fmt: skip
    """Deviation from what the model said: scaled in `work[DEVIATION]`, in the reading's unit in residual."""
    c = p.channels
    for i in range(c):
        said = np.float64(y[i])
        z = (work[SEEN * c + i] - said) / v[at.SCALE * c + i]
        work[DEVIATION * c + i] = condition.clip(z, LIMIT)
        expected[i] = condition.in_reading_unit(
            said, work[SCALED * c + i], v[at.MEAN * c + i], v[at.STD * c + i]
        )
        if present[i] != guard.ABSENT and xs[i] - xs[i] == 0.0:
            residual[i] = xs[i] - expected[i]


@inlined
def score(p: Any, v: Vector, work: Vector, fault: Faults, detect: Vector) -> float:
    """All scorers one step on; the combined score, and in `work[BEST]` the parts of the largest one."""
    c = p.channels
    d, part, best = (
        work[D * c : (D + 1) * c],
        work[PART * c : (PART + 1) * c],
        work[BEST * c : (BEST + 1) * c],
    )
    start = at.SCORERS * c
    combined = largest = 0.0
    for s in range(p.scorers):
        state = at.DETECT_HEAD + (at.SCORERS_AT + 2 * s) * c
        center, z = detect[state : state + c], detect[state + c : state + 2 * c]
        source = SEEN if v[start + at.SCORER_SOURCE] else DEVIATION
        scorers.smooth(z, work[source * c : (source + 1) * c], v[start + at.SCORER_RATE], center, fault, d)
        precision = v[start + at.SCORER_HEAD + c :]
        if v[start + at.SCORER_KIND] == at.MEWMA:
            one = scorers.mewma(d, precision, part) / v[start + at.SCORER_UNIT]
            start += at.SCORER_HEAD + c + c * c
        else:
            one = scorers.ewma_z(d, precision, part) / v[start + at.SCORER_UNIT]
            start += at.SCORER_HEAD + 2 * c
        if s == 0 or one > largest:
            largest = one
            work[p.fired_at] = s
            for i in range(c):
                best[i] = part[i]
        combined += one
    return combined if p.sums else largest


@inlined
def local_mean(p: Any, detect: Vector, marks: Marks) -> float:
    """The mean of the last scores for dspot, `initial` while there are none."""
    mean: float = p.initial
    if marks[at.RING_FILL] > 0:
        mean = detect[at.WINDOW_SUM] / marks[at.RING_FILL]
    return mean


@inlined
def limit(p: Any, detect: Vector, marks: Marks) -> float:
    """The threshold of this step, in units of the score."""
    value: float = p.value
    if p.threshold == at.DSPOT_EWMA:
        value += detect[at.LOCAL_MEAN]
    elif p.threshold == at.DSPOT:
        value = local_mean(p, detect, marks) + detect[at.VALUE]
    return value


@inlined
def learn(p: Any, score: float, detect: Vector, marks: Marks) -> None:
    """What the threshold takes from a score that is not too high."""
    if p.threshold == at.DSPOT_EWMA:
        detect[at.LOCAL_MEAN] += p.mean_rate * (score - detect[at.LOCAL_MEAN])
    elif p.threshold == at.DSPOT:
        fill, place = marks[at.RING_FILL], marks[at.RING_AT]
        excess = score - local_mean(p, detect, marks) - p.level
        marks[at.COUNT] += 1
        if excess > 0.0:
            marks[at.EXCESSES] += 1
            detect[at.EXCESS_SUM] += excess
            detect[at.EXCESS_SQUARES] += excess * excess
            if marks[at.EXCESSES] >= thresholds.FEWEST_EXCESSES:
                detect[at.VALUE] = thresholds.tail_value_jit(
                    p.level,
                    marks[at.COUNT],
                    marks[at.EXCESSES],
                    detect[at.EXCESS_SUM],
                    detect[at.EXCESS_SQUARES],
                    p.risk,
                )
        ring = detect[p.ring_at : p.ring_at + p.window]
        if fill == p.window:
            detect[at.WINDOW_SUM] -= ring[place]
        else:
            marks[at.RING_FILL] = fill + 1
        ring[place] = score
        detect[at.WINDOW_SUM] += score
        place = (place + 1) % p.window
        marks[at.RING_AT] = place
        if place == 0:  # the running sum has gathered rounding errors: begin it anew
            total = 0.0
            for k in range(p.window):
                total += ring[k]
            detect[at.WINDOW_SUM] = total


@jit
def accept(p: Any, v: Vector, detect: Vector) -> None:
    """Take the present level as normal: where each scorer stands becomes its center.

    A channel with drift removal finds its level anew at the next reading, so its center stays.
    """
    c = p.channels
    for s in range(p.scorers):
        start = at.DETECT_HEAD + (at.SCORERS_AT + 2 * s) * c
        for i in range(c):
            if v[at.DRIFT * c + i] == 0.0:
                detect[start + i] = detect[start + c + i]
