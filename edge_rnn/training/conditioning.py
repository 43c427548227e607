"""Stretches of raw readings as the network will see them on the device, in NumPy.

The same equations as `edge_rnn.detect`, row by row: scale in float64, remove the slow level (and slope) of
a channel or bring it to the mean and spread of its own past, limit, cast to float32; then the features
made of the time and of the channels. A reading that is missing or not finite repeats the last good one, as
the guard's `hold` does. The differences: without an alarm there is no freezing of levels
and no taking of a new one, and without a forecast no limit on how far from it a reading may be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.detector_spec import ConditionSpec
from edge_rnn.core.model import DIFFERENCE, TIME_FEATURES, Scaler
from edge_rnn.errors import ConfigError
from edge_rnn.training.data import Stretch
from edge_rnn.training.trainer import Rows

Floats = NDArray[np.float64]
_DAY_NS = 86_400 * 10**9
# 1970 began on a Thursday; weeks are counted from Monday.
_MONDAY_NS = 3 * _DAY_NS
_SMALLEST_VARIANCE = 1e-12


def condition(
    stretch: Stretch,
    scaler: Scaler,
    spec: ConditionSpec,
    features: Sequence[str] = (),
    channels: Sequence[str] = (),
) -> Rows:
    """Model-space rows (T, C + features) of one stretch; a drifting channel's level starts at its first row.

    Args:
        stretch: readings.
        scaler, spec: as in the model.
        features: names as in `Model.features`.
        channels: the channels' names, for features that are made of one.

    Raises:
        ConfigError: a feature that does not exist.
    """
    known = np.isfinite(stretch.values)
    scaled = (stretch.values - scaler.mean) / scaler.std
    count = scaled.shape[1]
    drift = np.array(spec.drift or (False,) * count)
    runs = np.array(spec.running or (False,) * count)
    trend = np.array(spec.trend or (False,) * count)
    drift = drift | trend
    slope, n = np.zeros(count), np.zeros(count)
    # Before a channel's first good reading there is nothing to hold: its mean.
    held = np.zeros(count)
    level, variance = np.zeros(count), np.ones(count)
    weight = np.full(count, float(spec.running_start))
    started = np.zeros(count, dtype=bool)
    out = np.zeros((len(scaled), count + len(features)), dtype=np.float32)
    seen = np.zeros_like(scaled)
    for t, (row, good) in enumerate(zip(scaled, known, strict=True)):
        level = np.where(drift & good & ~started, row, level)
        started |= good
        spread = np.where(runs, np.sqrt(variance), 1.0)
        base = level + slope
        z = (np.where(good, row, 0.0) - base) / spread
        hard = np.clip(z, -spec.clip, spec.clip)
        held = np.where(good, np.clip(_soft(z, spec.soft_clip), -spec.clip, spec.clip), held)
        seen[t] = held
        n += trend & good
        g, h = _gains(np.maximum(n, 1.0), spec)
        rate = np.where(trend, g, spec.drift_rate)
        level = np.where(drift & good, base + rate * held, level)
        slope = np.where(trend & good, slope + h * held, slope)
        if runs.any():
            learns = runs & good
            share = 1.0 / np.minimum(weight + 1.0, spec.running_memory)
            d = hard * spread
            level = np.where(learns, level + share * d, level)
            moved = np.maximum((1.0 - share) * (variance + share * d * d), _SMALLEST_VARIANCE)
            variance = np.where(learns, moved, variance)
            weight = np.where(learns, weight + 1.0, weight)
    out[:, :count] = seen
    for i, name in enumerate(features):
        out[:, count + i] = _feature(name, stretch.times_ns + spec.utc_offset_ns, seen, channels)
    return Rows(out, known)


def _gains(n: Floats, spec: ConditionSpec) -> tuple[Floats, Floats]:
    """Of level and slope at the n-th reading, from 1; see detect/trend.py."""
    both = 2.0 * (2.0 * n - 1.0) / (n * (n + 1.0)), 6.0 / (n * (n + 1.0))
    return np.maximum(both[0], spec.trend_level_rate), np.maximum(both[1], spec.trend_slope_rate)


def _soft(z: Floats, start: float) -> Floats:
    """Beyond `start` a value grows by its logarithm only; 0 leaves all as it is."""
    size = np.abs(z)
    if start <= 0:
        return z
    return np.where(size <= start, z, np.sign(z) * (start + np.log1p(np.maximum(size - start, 0.0))))


def _feature(name: str, local_ns: NDArray[np.int64], seen: Floats, channels: Sequence[str]) -> Floats:
    """One feature (T,) of local time, or the change of a channel since the row before."""
    if name.startswith(DIFFERENCE) and name.removeprefix(DIFFERENCE) in channels:
        column = seen[:, list(channels).index(name.removeprefix(DIFFERENCE))]
        return np.diff(column, prepend=column[:1])
    week = (local_ns + _MONDAY_NS) % (7 * _DAY_NS)
    turns = {
        "day": local_ns % _DAY_NS / _DAY_NS,
        "half_day": local_ns % (_DAY_NS // 2) / (_DAY_NS // 2),
        "week": week / (7 * _DAY_NS),
    }
    if name == "weekend":
        return np.where(week >= 5 * _DAY_NS, 1.0, 0.0)
    span, _, kind = name.rpartition("_")
    if name not in TIME_FEATURES:
        raise ConfigError(
            f"features: expected some of {', '.join(TIME_FEATURES)} and {DIFFERENCE}<channel>, got {name!r}"
        )
    turn = 2 * np.pi * turns[span]
    return np.sin(turn) if kind == "sin" else np.cos(turn)


def cut(rows: Rows, at: int) -> tuple[Rows, Rows]:
    """The rows before `at` and the rest."""
    return Rows(rows.x[:at], rows.known[:at]), Rows(rows.x[at:], rows.known[at:])
