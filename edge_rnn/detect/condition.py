"""From a raw reading to what the model sees: scale, remove drift, limit.

    s = (x - mean) / std                 float64; folding mean into float32 weights would lose digits
    z = clip(s - m)                      m: the channel's slow level, 0 for a channel without drift removal
    m = m + drift_rate * z               only from good readings; in an alarm drift_rate_in_alarm

The level starts at the first good reading, so a stream that works at another temperature than the training
data needs no time to find it. It learns from the clipped z: one wild reading moves it by at most
drift_rate * clip. In an alarm it follows more slowly, so that a fault is not learned away at once, but it
does follow: such a channel rarely comes back to its old level, and the alarm would last for ever.
"""

from __future__ import annotations

from edge_rnn.core.jit import inlined


@inlined
def clip(value: float, limit: float) -> float:
    """`value` limited to [-limit, limit]."""
    if value > limit:
        return limit
    if value < -limit:
        return -limit
    return value


@inlined
def in_reading_unit(value: float, level: float, mean: float, std: float) -> float:
    """The reading that stands behind a value of model space."""
    return (value + level) * std + mean
