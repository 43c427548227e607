"""Stretches of raw readings as the network will see them on the device, in NumPy.

The same equations as `edge_rnn.detect.condition`, row by row: scale in float64, remove the slow level of
drifting channels, limit, cast to float32. A reading that is missing or not finite repeats the last good
one, as the guard's `hold` does. The one difference: without an alarm there is no freezing of the level.
"""

from __future__ import annotations

import numpy as np

from edge_rnn.core.detector_spec import ConditionSpec
from edge_rnn.core.model import Scaler
from edge_rnn.training.data import Stretch
from edge_rnn.training.trainer import Rows


def condition(stretch: Stretch, scaler: Scaler, spec: ConditionSpec) -> Rows:
    """Model-space rows (T, C) of one stretch; a drifting channel's level starts at its first row."""
    known = np.isfinite(stretch.values)
    scaled = (stretch.values - scaler.mean) / scaler.std
    drift = np.array(spec.drift or (False,) * scaled.shape[1])
    # Before a channel's first good reading there is nothing to hold: its mean.
    last = np.zeros(scaled.shape[1])
    level = np.zeros(scaled.shape[1])
    started = np.zeros(scaled.shape[1], dtype=bool)
    out = np.zeros(scaled.shape, dtype=np.float32)
    for t, (row, good) in enumerate(zip(scaled, known, strict=True)):
        last = np.where(good, row, last)
        level = np.where(drift & good & ~started, row, level)
        started |= good
        z = np.clip(last - level, -spec.clip, spec.clip)
        out[t] = z
        level = np.where(drift & good, level + spec.drift_rate * z, level)
    return Rows(out, known)


def cut(rows: Rows, at: int) -> tuple[Rows, Rows]:
    """The rows before `at` and the rest."""
    return Rows(rows.x[:at], rows.known[:at]), Rows(rows.x[at:], rows.known[at:])
