"""From a score to "too high", and what the threshold learns.

    fixed, quantile   threshold = value
    dspot_ewma        threshold = m + value, m the moving mean of the scores: m <- m + rate * (s - m)
    dspot             threshold = m + value, m the mean of the last `window` scores, and value the tail
                      estimate below, refitted whenever a score exceeds m + level (Siffer et al., KDD 2017)

Peaks over threshold, fitted by the method of moments: k of n scores lie above a level t by y on average,
with variance v. A generalised Pareto tail then has

    xi = (1 - y^2/v) / 2, limited to [-1/2, 1/2],   sigma = y (1 - xi)

and is exceeded with probability q above  t + sigma/xi ((q n/k)^-xi - 1),  for xi = 0  t - sigma ln(q n/k).

    spot              threshold = value, refitted in the same way whenever a score exceeds `level`
    conformal, pot    threshold = value; the word says how calibration found it

Nothing is learned from a score that is too high or while the alarm is on. `dspot` takes pow and log, whose
last bits differ between libraries: it is the one part of a detector that can never be exported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def export_obstacles(spec: DetectorSpec, features: Sequence[str] = ()) -> tuple[str, ...]:
    """Why this detector cannot be exported to C with equal bits, one reason each; empty = it can.

    features: the model's. Only dspot is out of reach for good; all else is made of arithmetic that C repeats,
    but the exported runtime does not have it. What only explains (probability, band) is left out there.
    """
    reasons = []
    t, condition, alarm = spec.threshold, spec.condition, spec.alarm
    if t.kind == "dspot":
        reasons.append(
            "threshold dspot needs pow and log, which differ between C libraries; use dspot_ewma instead"
        )
    kinds = sorted({s.kind for s in spec.scorers if s.kind not in ("mewma", "ewma_z")})
    sources = sorted({s.source for s in spec.scorers if s.source not in ("residual", "input")})
    missing = {
        f"horizons {spec.horizons}": spec.horizons != (1,),
        f"scale_head {spec.scale_head}": spec.scale_head != "none",
        f"features {', '.join(features)}": bool(features),
        "guard.on_late fault": spec.guard.on_late == "fault",
        "condition.soft_clip": condition.soft_clip > 0,
        "condition.running": any(condition.running),
        "condition.trend": any(condition.trend),
        "condition.innovation_limit": condition.innovation_limit > 0,
        f"scorers of kind {', '.join(kinds)}": bool(kinds),
        f"scorers with source {', '.join(sources)}": bool(sources),
        "a scorer's side": any(s.side != "both" for s in spec.scorers),
        "a scorer's tail": any(s.tail is not None for s in spec.scorers),
        "a scorer's weight": any(s.weight != 1.0 for s in spec.scorers),
        "threshold spot": t.kind == "spot",
        "threshold.peak_hold": t.peak_hold > 0,
        "threshold.bar": t.bar > 0,
        "an alarm's limits in seconds": alarm.pending_ns + alarm.clear_ns + alarm.refractory_ns > 0,
        "alarm.severity": bool(alarm.severity),
        "alarm.recovery": alarm.recovery > 0,
        "alarm.relevel": alarm.relevel > 0,
        "a scorer's group": any(s.group for s in spec.scorers),
    }
    reasons += [f"{what}: not in the C runtime yet; leave it out" for what, used in missing.items() if used]
    return tuple(reasons)
