"""The stages of a sample in the general detector, which knows every word of a `DetectorSpec`.

As in stages.py, `p` is the plan's record, `v` its vectors, `work` scratch, detect and marks the stream's
state. What only the general detector has lies behind the rest: constants from `p.horizons_at` on in `v`,
numbers from `p.more_at` on in `detect`, counters from `p.marks_more_at` on in `marks`, scratch behind
WORK_VECTORS vectors (all in plan.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.jit import jit
from edge_rnn.detect import alarm, charts, condition, guard, scorers, stages, tails, thresholds
from edge_rnn.detect import fields as at
from edge_rnn.detect.arithmetic import cosine, exp, ln, log10, root, sine
from edge_rnn.detect.stages import LIMIT

Vector = NDArray[np.float64]
Marks = NDArray[np.int64]
Faults = NDArray[np.uint8]

DAY = 86_400_000_000_000
# The day 0 of the clock was a Thursday; weeks begin on Monday.
THURSDAY = 3


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
    for s in range(p.scorers):
        m = v[p.scorers_at + s * at.MORE : p.scorers_at + (s + 1) * at.MORE]
        z = at.DETECT_HEAD + (at.SCORERS_AT + 2 * s + 1) * c
        chart = int(m[at.MORE_STATE_AT]) + at.CHART_AT
        for i in range(c):
            if m[at.MORE_KIND] == at.LIKELIHOOD:
                detect[z + i] = detect[chart + i]
            elif m[at.MORE_KIND] == at.CUSUM or m[at.MORE_KIND] == at.PAGE_HINKLEY:
                detect[chart + i] = detect[chart + c + i] = 0.0


@jit
def prepare(
    p: Any, v: Vector, y: NDArray[np.float32], work: Vector, fault: Faults, x: NDArray[np.float32],
    detect: Vector, marks: Marks, time_ns: int,
) -> None:  # fmt: skip
    """As `stages.prepare`, with running means, the soft clip, differences and features."""
    c = p.channels
    held = at.DETECT_HEAD + at.HELD_AT * c
    calm = not alarm.is_on(marks[at.PHASE])
    drift_rate = p.drift_rate if calm else p.drift_rate_in_alarm
    more = p.more_at + at.DETECT_MORE
    before = detect[more + at.BEFORE_AT * c : more + (at.BEFORE_AT + 1) * c]
    has_before = marks[p.marks_more_at + at.HAS_BEFORE] != 0
    for i in range(c):
        at_level = at.DETECT_HEAD + at.LEVEL_AT * c + i
        scaled = work[at.SCALED * c + i]
        good = fault[i] == guard.NONE
        work[at.RAW * c + i] = scaled
        drifts = v[at.DRIFT * c + i] != 0.0
        runs = v[p.running_at + i] != 0.0
        spread = 1.0
        if runs:
            spread = root(detect[more + at.RUNNING_VARIANCE_AT * c + i])
            detect[at_level] = detect[more + at.RUNNING_MEAN_AT * c + i]
        if good:
            if drifts and marks[at.MARKS_HEAD + at.LEVELLED_AT * c + i] == 0:
                marks[at.MARKS_HEAD + at.LEVELLED_AT * c + i] = 1
                detect[at_level] = scaled
            hard = condition.clip((scaled - detect[at_level]) / spread, p.clip)
            z = condition.clip(soft((scaled - detect[at_level]) / spread, p.soft_clip), p.clip)
            detect[held + i] = z
        elif p.predicts and marks[at.SPOKEN]:
            z = condition.clip(np.float64(y[i]), p.clip)
        else:
            z = detect[held + i]
        work[at.SEEN * c + i] = z
        x[i] = np.float32(z)
        work[at.SCALED * c + i] = detect[at_level]
        work[at.SPREAD * c + i] = spread
        work[at.CHANGE * c + i] = z - before[i] if has_before else 0.0
        before[i] = z
        if drifts and good:
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


@jit
def soft(z: float, start: float) -> float:
    """z, growing by its logarithm only beyond `start` (0: as it is)."""
    size = abs(z)
    if start <= 0.0 or size <= start:
        return z
    size = start + ln(1.0 + (size - start))
    return size if z > 0.0 else -size


@jit
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


@jit
def compare(
    p: Any, v: Vector, y: NDArray[np.float32], work: Vector, xs: Vector, present: NDArray[np.uint8],
    residual: Vector, expected: Vector, band: Vector, detect: Vector, marks: Marks,
) -> None:  # fmt: skip
    """Deviations from all forecasts of this moment, in `work`: residuals, likelihoods (negative), sizes."""
    c = p.channels
    heads = p.heads
    age = marks[p.marks_more_at + at.AGE]
    nll = at.GENERAL_VECTORS * c + p.horizons * c
    for k in range(p.horizons):
        ahead = int(v[p.horizons_at + k * at.HORIZON + at.STEPS_AHEAD])
        ring = int(v[p.horizons_at + k * at.HORIZON + at.FORECAST_RING_AT]) + age % ahead * c * heads
        for i in range(c):
            said = detect[ring + i] if p.rings else np.float64(y[i])
            spread = v[p.scales_at + k * c + i]
            z = work[at.SEEN * c + i] - said
            log_scale = 0.0
            scale = 1.0
            if heads == 2:
                log_scale = detect[ring + c + i] if p.rings else log_scale_of(np.float64(y[c + i]))
                scale = exp(log_scale)
                z = z / scale
            z = condition.clip(z, LIMIT)
            surprise = abs(z) if p.gaussian == 0 else 0.5 * (z * z)
            work[nll + (p.horizons + k) * c + i] = abs(z)
            work[nll + k * c + i] = condition.clip(surprise + log_scale, LIMIT)
            work[at.GENERAL_VECTORS * c + k * c + i] = condition.clip(z / spread, LIMIT)
            if k == 0:
                unit = v[at.STD * c + i]
                expected[i] = condition.in_reading_unit(
                    said * work[at.SPREAD * c + i], work[at.SCALED * c + i], v[at.MEAN * c + i], unit
                )
                band[i] = p.band * spread * scale * work[at.SPREAD * c + i] * unit
                if present[i] != guard.ABSENT and xs[i] - xs[i] == 0.0:
                    residual[i] = xs[i] - expected[i]


@jit
def log_scale_of(said: float) -> float:
    """The logarithm of a scale as the network said it, limited."""
    return min(max(said, -4.0), 3.0)


@jit
def remember(p: Any, v: Vector, y: NDArray[np.float32], detect: Vector, marks: Marks) -> None:
    """Put the forecasts just made where they will be asked for, unless one is no number."""
    c = p.channels
    for k in range(p.outputs):
        if y[k] - y[k] != 0.0:
            return
    age = marks[p.marks_more_at + at.AGE]
    for k in range(p.horizons):
        ahead = int(v[p.horizons_at + k * at.HORIZON + at.STEPS_AHEAD])
        ring = int(v[p.horizons_at + k * at.HORIZON + at.FORECAST_RING_AT]) + age % ahead * c * p.heads
        for i in range(c):
            detect[ring + i] = np.float64(y[k * c + i])
            if p.heads == 2:
                detect[ring + c + i] = log_scale_of(np.float64(y[(p.horizons + k) * c + i]))
    marks[p.marks_more_at + at.AGE] = age + 1


@jit
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
    return work[start : start + c]


@jit
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
            place = tails.bin_of(max(one, 0.0), int(m[at.MORE_LOW]), bins)
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


@jit
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


@jit
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


@jit
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


@jit
def limit(p: Any, detect: Vector, marks: Marks) -> float:
    """As `stages.limit`, and of spot."""
    if p.threshold == at.SPOT:
        return float(detect[at.VALUE])
    return float(stages.limit(p, detect, marks))


@jit
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


@jit
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


@jit
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


@jit
def advance(
    p: Any, v: Vector, work: Vector, fault: Faults, detect: Vector, marks: Marks, time_ns: int, score: float,
    threshold: float,
) -> bool:  # fmt: skip
    """The alarm's machine with its limits in time, recovery, and the severity.

    Returns whether an alarm ended here whose remains are to become normal.
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
    return False


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
            elif m[at.MORE_KIND] == at.NOVELTY and detect[a + i] <= detect[a + c + i]:
                detect[a + i] = min(detect[a + i], detect[z + i])
                detect[a + c + i] = max(detect[a + c + i], detect[z + i])
    for i in range(c):
        if v[p.running_at + i] != 0.0 and fault[i] == guard.NONE:
            detect[more + at.RUNNING_MEAN_AT * c + i] = condition.clip(work[at.RAW * c + i], LIMIT)
            detect[more + at.RUNNING_COUNT_AT * c + i] = p.running_start
