"""Why: each channel's part of the score, how probable the score is, which scorer it was, what is normal.

Shares are the parts of the largest scorer's score, brought to a sum of one. The rest stands behind the
verdict that every detector gives, also in C, at `place`: probability (f8), band (C f8), scorer, severity,
timing (u1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.jit import inlined, jit
from edge_rnn.detect import fields as at
from edge_rnn.detect import tails
from edge_rnn.detect.alarm import is_on
from edge_rnn.detect.memory import f8_at, i8_at, u1_at
from edge_rnn.detect.verdict import NO_SCORER, STATUSES, TIMINGS

Vector = NDArray[np.float64]

NONE = NO_SCORER
FAULT = STATUSES.index("fault")
GAP, DUPLICATE, LATE = TIMINGS.index("gap"), TIMINGS.index("duplicate"), TIMINGS.index("late")

# Below this a distance is no distance: dividing by it could overflow.
_SMALLEST = 1e-200


@inlined
def shares(part: Vector, fault: NDArray[np.uint8], share: Vector) -> None:
    """Write share (C,) = part / sum(part); where there is no distance, all healthy channels get the same.

    Parts of a full covariance may be negative and are shown as they are.
    """
    total = 0.0
    healthy = 0
    for c in range(part.size):
        total += part[c]
        healthy += 0 if fault[c] else 1
    for c in range(part.size):
        if total > _SMALLEST:
            share[c] = part[c] / total
        else:
            share[c] = 0.0 if fault[c] else 1.0 / healthy


@inlined
def place(out: int, channels: int) -> int:
    """Where in the record at `out` the explanation begins."""
    return out + 32 + 24 * channels + (channels + 10) // 8 * 8


@inlined
def bands(p: Any, v: Vector, out: int, known: bool) -> None:
    """Write the half-width (C,) of the band around the expected values, where there is no scale head."""
    c = p.channels
    band = f8_at(place(out, c) + 8, c)
    for i in range(c):
        band[i] = v[p.bands_at + i] if known else np.nan


@inlined
def more(p: Any, v: Vector, out: int, score: float, scorer: int, severity: int) -> None:
    """Write what stands behind the verdict, without the band; `score` is NaN where nothing was judged."""
    c = p.channels
    start = place(out, c)
    probability, flags = f8_at(start, 1), u1_at(start + 8 + 8 * c, 3)
    probability[0] = np.nan
    flags[0], flags[1], flags[2] = NONE, severity, 0
    if score - score == 0.0:
        flags[0] = scorer
        if p.points > 0:
            points = v[p.points_at : p.points_at + 2 * p.points]
            probability[0] = 1.0 - tails.exceeded(score, points[: p.points], points[p.points :])


@inlined
def set_timing(out: int, channels: int, timing: int) -> None:
    """Write the timing of the sample (index into `TIMINGS`)."""
    u1_at(place(out, channels) + 8 + 8 * channels, 3)[2] = timing


@jit
def refused(p: Any, out: int, time_ns: int, marks: NDArray[np.int64]) -> None:
    """The whole record of a sample whose time is not after the last one's: status fault, nothing judged."""
    c = p.channels
    numbers = f8_at(out + 16, 2 + 3 * c)
    for i in range(2 + 3 * c):
        numbers[i] = np.nan
    counts, fault = i8_at(out, 2), u1_at(out + 32 + 24 * c, c + 3)
    counts[0], counts[1] = time_ns, marks[at.STEPS]
    for i in range(c):
        fault[i] = 0
    fault[c], fault[c + 1], fault[c + 2] = FAULT, 1 if is_on(marks[at.PHASE]) else 0, 0
    start = place(out, c)
    more_numbers, flags = f8_at(start, 1 + c), u1_at(start + 8 + 8 * c, 3)
    for i in range(1 + c):
        more_numbers[i] = np.nan
    flags[0], flags[1] = NONE, 0
    flags[2] = DUPLICATE if time_ns == marks[at.TIME] else LATE
