"""What makes a channel or a stream faulty; these rules are decided here and nowhere else.

A fault is a statement about a sensor, an anomaly one about the machine it looks at. A faulty channel is
therefore left out of the score (it deviates by nothing) and reported with its kind; all other channels are
judged as ever. In order of precedence, for one channel of one sample:

    silent      no reading of this channel for more than `silent_after_ns` of event time
    missing     this sample has no reading of it
    non-finite  NaN or infinite, as read or once scaled
    range       outside its physical range
    stuck       the same value more than `stuck_after` readings in a row; lasts until the value changes

`presence` says what a sample's value is: ABSENT (0), FRESH (1, a new reading) or HELD (2, an old reading
repeated by whoever assembled the sample). A held value is judged by range, but it is no news: it neither
counts as a repeated value nor shows that the sensor is alive.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.detector_spec import GuardSpec
from edge_rnn.core.jit import inlined
from edge_rnn.detect.verdict import FAULT_KINDS

ABSENT, FRESH, HELD = range(3)
NONE, MISSING, NON_FINITE, RANGE, STUCK, SILENT = (
    FAULT_KINDS.index(kind) for kind in ("none", "missing", "non-finite", "range", "stuck", "silent")
)


@inlined
def judge(
    c: int,
    value: float,
    scaled: float,
    presence: int,
    time_ns: int,
    low: float,
    high: float,
    stuck_after: float,
    silent_after: int,
    last: NDArray[np.float64],
    run: NDArray[np.int64],
    heard: NDArray[np.int64],
) -> int:
    """The fault of channel `c` in this sample, an index into `FAULT_KINDS`.

    last, run, heard (C,) are the guard's state: the last finite reading, how often it came in a row (0 =
    no reading yet) and the time of the last reading.
    """
    finite = scaled - scaled == 0.0  # false for NaN and for both infinities
    if presence == FRESH:
        heard[c] = time_ns
        if finite:
            if run[c] > 0 and value == last[c]:
                run[c] += 1
            else:
                run[c] = 1
            last[c] = value
    elif silent_after > 0 and time_ns - heard[c] > silent_after:
        return SILENT
    elif presence == ABSENT:
        return MISSING
    if not finite:
        return NON_FINITE
    if value < low or value > high:
        return RANGE
    if 0.0 < stuck_after < run[c]:
        return STUCK
    return NONE


def silent(spec: GuardSpec, last_ns: int, now_ns: int) -> bool:
    """Whether a whole stream whose last sample was at `last_ns` counts as silent at `now_ns`.

    No sample comes from a silent stream, so this is asked by a clock's tick instead.
    """
    return 0 < spec.silent_after_ns < now_ns - last_ns
