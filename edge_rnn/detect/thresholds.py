"""From a score to "too high", and what the threshold learns.

    fixed, quantile   threshold = value
    dspot_ewma        threshold = m + value, m the moving mean of the scores: m <- m + rate * (s - m)
    dspot             threshold = m + value, m the mean of the last `window` scores, and value the tail
                      estimate below, refitted whenever a score exceeds m + level (Siffer et al., KDD 2017)

Peaks over threshold, fitted by the method of moments: k of n scores lie above a level t by y on average,
with variance v. A generalised Pareto tail then has

    xi = (1 - y^2/v) / 2, limited to [-1/2, 1/2],   sigma = y (1 - xi)

and is exceeded with probability q above  t + sigma/xi ((q n/k)^-xi - 1),  for xi = 0  t - sigma ln(q n/k).

Nothing is learned from a score that is too high or while the alarm is on. `dspot` takes pow and log, whose
last bits differ between libraries: it is the one part of a detector that cannot be exported.
"""

from __future__ import annotations

import math

from edge_rnn.core.detector_spec import DetectorSpec
from edge_rnn.core.jit import jit

FEWEST_EXCESSES = 4


def tail_value(
    level: float, count: float, excesses: float, total: float, squares: float, risk: float
) -> float:
    """The score that is exceeded with probability `risk`, never below `level`.

    count: n, all scores; excesses: k >= 1, those above `level`; total, squares: sum of y and of y^2.
    """
    mean = total / excesses
    variance = max(squares / excesses - mean * mean, 1e-12 * mean * mean + 1e-300)
    ratio = mean * mean / variance
    shape = min(max(0.5 * (1.0 - ratio), -0.5), 0.5)
    scale = mean * (1.0 - shape)
    rarity = risk * count / excesses
    if abs(shape) < 1e-6:
        value = level - scale * math.log(rarity)
    else:
        value = level + scale / shape * (math.pow(rarity, -shape) - 1.0)
    return max(value, level)


tail_value_jit = jit(tail_value)


def export_obstacles(spec: DetectorSpec) -> tuple[str, ...]:
    """Why this detector cannot be exported to C with equal bits, one reason each; empty = it can."""
    reasons = []
    if spec.threshold.kind == "dspot":
        reasons.append(
            "threshold dspot needs pow and log, which differ between C libraries; use dspot_ewma instead"
        )
    return tuple(reasons)
