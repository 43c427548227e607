"""What the model says at several horizons: kept until its moment comes, then compared.

As in stages.py, `p` is the plan's record, `v` its vectors, `work` scratch, detect and marks the stream's
state; where the general detector's numbers lie in them is in general_plan.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.jit import inlined
from edge_rnn.detect import condition, guard
from edge_rnn.detect import fields as at
from edge_rnn.detect.arithmetic import exp
from edge_rnn.detect.stages import LIMIT

Vector = NDArray[np.float64]
Marks = NDArray[np.int64]


@inlined
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
            if p.rings and age < ahead:  # it has not spoken yet
                z = log_scale = 0.0
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


@inlined
def log_scale_of(said: float) -> float:
    """The logarithm of a scale as the network said it, limited."""
    return min(max(said, -4.0), 3.0)


@inlined
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
