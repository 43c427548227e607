"""From deviations to one score and its threshold, with every kind of scorer and tail.

As in stages.py, `p` is the plan's record, `v` its vectors, `work` scratch, detect and marks the stream's
state; where the general detector's numbers lie in them is in general_plan.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.jit import inlined
from edge_rnn.detect import charts, scorers, stages, tails, thresholds
from edge_rnn.detect import fields as at
from edge_rnn.detect.arithmetic import log10

Vector = NDArray[np.float64]
Marks = NDArray[np.int64]
Faults = NDArray[np.uint8]


@inlined
def source(p: Any, m: Vector, work: Vector) -> Vector:
    """The deviation (C,) that a scorer looks at."""
    c = p.channels
    start = at.SEEN * c
    if m[at.MORE_SOURCE] == at.DIFFERENCE:
        start = at.CHANGE * c
    elif m[at.MORE_SOURCE] == at.RESIDUAL:
        start = (at.GENERAL_VECTORS + int(m[at.MORE_HORIZON])) * c
    elif m[at.MORE_SOURCE] == at.NLL:
        start = (at.GENERAL_VECTORS + p.horizons + int(m[at.MORE_HORIZON])) * c
    elif m[at.MORE_SOURCE] == at.SELF_SCALED:
        start = (at.GENERAL_VECTORS + 2 * p.horizons + int(m[at.MORE_HORIZON])) * c
    elif m[at.MORE_SOURCE] == at.READING:
        start = at.RAW * c
    return work[start : start + c]


@inlined
def score(p: Any, v: Vector, work: Vector, fault: Faults, detect: Vector) -> float:
    """All scorers one step on; the combined score, and in `work` the parts and number of the largest one."""
    c = p.channels
    d, part, best = (
        work[at.D * c : (at.D + 1) * c],
        work[at.PART * c : (at.PART + 1) * c],
        work[at.BEST * c : (at.BEST + 1) * c],
    )
    bins_at = (at.GENERAL_VECTORS + at.FROM_HORIZON * p.horizons) * c
    ones = work[bins_at + p.scorers : bins_at + 2 * p.scorers]
    largest = 0.0
    for s in range(p.scorers):
        m = v[p.scorers_at + s * at.MORE : p.scorers_at + (s + 1) * at.MORE]
        state = at.DETECT_HEAD + (at.SCORERS_AT + 2 * s) * c
        center, z = detect[state : state + c], detect[state + c : state + 2 * c]
        weights = v[int(m[at.MORE_WEIGHTS_AT]) : int(m[at.MORE_WEIGHTS_AT] + m[at.MORE_WEIGHTS])]
        e = source(p, m, work)
        chart = int(m[at.MORE_STATE_AT]) + at.CHART_AT
        kind = m[at.MORE_KIND]
        if kind in (at.MEWMA, at.EWMA_Z, at.MEWMA_DIAGONAL):
            scorers.smooth(z, e, m[at.MORE_RATE], center, fault, d)
            for i in range(c):
                if (m[at.MORE_SIDE] == at.UP and d[i] < 0.0) or (m[at.MORE_SIDE] == at.DOWN and d[i] > 0.0):
                    d[i] = 0.0
            if kind == at.MEWMA:
                one = scorers.mewma(d, weights, part)
            else:
                one = scorers.ewma_z(d, weights, part)
                if kind == at.MEWMA_DIAGONAL:
                    one = 0.0
                    for i in range(c):
                        one += part[i]
        else:
            a, b = detect[chart : chart + c], detect[chart + c : chart + 2 * c]
            one = charts.judge(m, weights, e, fault, center, z, a, b, part)
        one = one / m[at.MORE_UNIT]
        if m[at.MORE_TAIL] == at.STREAM:
            bins = int(m[at.MORE_BINS])
            place = tails.bin_of(max(one, 0.0), int(m[at.MORE_LOW]), bins, int(m[at.MORE_BITS]))
            work[bins_at + s] = place
            one = tails.surprise(detect[chart + 2 * c : chart + 2 * c + 1 + bins], place)
        elif m[at.MORE_TAIL] == at.TABLE:
            table, points = int(m[at.MORE_TABLE_AT]), int(m[at.MORE_POINTS])
            one = -log10(
                tails.exceeded(one, v[table : table + points], v[table + points : table + 2 * points])
            )
        one = one * m[at.MORE_WEIGHT]
        if s == 0 or one > largest:
            largest = one
            work[p.fired_at] = s
            for i in range(c):
                best[i] = part[i]
        ones[s] = one
    return combined(p, v, ones) if p.sums else largest


@inlined
def combined(p: Any, v: Vector, ones: Vector) -> float:
    """The largest of the groups' sums."""
    best = 0.0
    for s in range(p.scorers):
        group = v[p.scorers_at + s * at.MORE + at.MORE_GROUP]
        first = True
        total = 0.0
        for k in range(p.scorers):
            if v[p.scorers_at + k * at.MORE + at.MORE_GROUP] == group:
                first = first and k >= s
                total += ones[k]
        if first and (s == 0 or total > best):
            best = total
    return best


@inlined
def learn(p: Any, v: Vector, work: Vector, fault: Faults, detect: Vector, calm: bool) -> None:
    """What scorers and tails take from this step."""
    c = p.channels
    bins_at = (at.GENERAL_VECTORS + at.FROM_HORIZON * p.horizons) * c
    for s in range(p.scorers):
        m = v[p.scorers_at + s * at.MORE : p.scorers_at + (s + 1) * at.MORE]
        state = at.DETECT_HEAD + (at.SCORERS_AT + 2 * s) * c
        count = int(m[at.MORE_STATE_AT])
        chart = count + at.CHART_AT
        if m[at.MORE_KIND] > at.MEWMA_DIAGONAL and (calm or m[at.MORE_ALWAYS] != 0.0):
            charts.learn(
                m, v[int(m[at.MORE_WEIGHTS_AT]) : int(m[at.MORE_WEIGHTS_AT] + m[at.MORE_WEIGHTS])],
                source(p, m, work), fault, detect[state : state + c], detect[state + c : state + 2 * c],
                detect[chart : chart + c], detect[chart + c : chart + 2 * c], detect[count : count + 1],
            )  # fmt: skip
        if m[at.MORE_TAIL] == at.STREAM and (calm or m[at.MORE_TAIL_ALWAYS] != 0.0):
            start = chart + 2 * c
            tails.add(detect[start : start + 1 + int(m[at.MORE_BINS])], int(work[bins_at + s]))


@inlined
def peak(p: Any, score: float, detect: Vector, marks: Marks) -> float:
    """The score if it is above all recent ones, else 0."""
    if p.peak_hold == 0:
        return score
    if score > detect[p.more_at + at.PEAK]:
        detect[p.more_at + at.PEAK] = score
        marks[p.marks_more_at + at.PEAK_AGE] = 0
        return score
    marks[p.marks_more_at + at.PEAK_AGE] += 1
    if marks[p.marks_more_at + at.PEAK_AGE] > p.peak_hold:
        detect[p.more_at + at.PEAK] *= p.peak_decay
    return 0.0


@inlined
def limit(p: Any, detect: Vector, marks: Marks) -> float:
    """As `stages.limit`, and of spot."""
    if p.threshold == at.SPOT:
        return float(detect[at.VALUE])
    return float(stages.limit(p, detect, marks))


@inlined
def learn_limit(p: Any, score: float, detect: Vector, marks: Marks) -> None:
    """As `stages.learn`, and of spot."""
    if p.threshold != at.SPOT:
        stages.learn(p, score, detect, marks)
        return
    marks[at.COUNT] += 1
    excess = score - p.level
    if excess > 0.0:
        marks[at.EXCESSES] += 1
        detect[at.EXCESS_SUM] += excess
        detect[at.EXCESS_SQUARES] += excess * excess
        if marks[at.EXCESSES] >= thresholds.FEWEST_EXCESSES:
            detect[at.VALUE] = tails.tail_value(
                p.level, marks[at.COUNT], marks[at.EXCESSES], detect[at.EXCESS_SUM],
                detect[at.EXCESS_SQUARES], p.risk,
            )  # fmt: skip
