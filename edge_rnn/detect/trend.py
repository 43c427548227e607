"""A channel's level and slope, followed and removed; and brought to a new level at once after an alarm.

    z = x - (m + s)      what the model sees: the reading without what level and slope let expect
    m <- m + s + g z     g = max(2 (2n - 1) / (n (n + 1)), trend_level_rate)     at the n-th good reading
    s <- s + h z         h = max(6 / (n (n + 1)), trend_slope_rate)

With the first terms m and s are the least-squares line through all readings since the reset; from where the
rates are larger they are Holt's linear trend (Int. J. Forecasting 20, 2004, first written in 1957). z is
limited before it is learned, as all is that the model sees: a wild reading moves the line by little.

While an alarm's new level is being taken (`alarm.relevel`), with r what the forecast leaves of z (not
limited: the new level may be far away) in the j-th of these steps,

    m <- m + s + r / j     the level at which what is left has the mean 0
    s <- s + q r           q = relevel_slope_rate, r limited as z is
"""

from __future__ import annotations

from edge_rnn.core.jit import inlined


@inlined
def level_gain(count: float, least: float) -> float:
    """g at reading `count`, from 1."""
    return max(2.0 * (2.0 * count - 1.0) / (count * (count + 1.0)), least)


@inlined
def slope_gain(count: float, least: float) -> float:
    """h at reading `count`, from 1."""
    return max(6.0 / (count * (count + 1.0)), least)
