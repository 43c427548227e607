"""From too-high scores to one alarm: debounce, hysteresis, a pause between alarms.

    normal   --too high-->  pending  --n of the last m too high-->  anomaly
    pending  --none of the last m too high-->  normal
    anomaly  --score below clear_ratio * threshold-->  clearing
    clearing --not below it-->  anomaly
    clearing --clear_hold such steps over-->  normal, and no new alarm for `refractory` steps

The alarm is on in anomaly and clearing. general_alarm.py has recovery in place of the
clear_ratio. While a new alarm is not allowed yet, n of m show as pending. Limits in seconds, which the
general detector has, come in as may_open and may_close.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.jit import inlined
from edge_rnn.detect import fields as at

NORMAL, PENDING, ANOMALY, CLEARING = range(4)


@inlined
def is_on(phase: int) -> bool:
    """Whether the alarm is on in this phase."""
    return phase >= ANOMALY


@inlined
def advance(
    marks: NDArray[np.int64],
    too_high: bool,
    quiet: bool,
    needed: int,
    window: int,
    clear_hold: int,
    refractory: int,
    may_open: bool,
    may_close: bool,
) -> None:
    """One step of the machine; its state is in `marks`.

    too_high: score > threshold. quiet: low enough to end the alarm. may_open, may_close: what limits in time
    allow.
    """
    history = ((marks[at.HISTORY] << 1) | (1 if too_high else 0)) & ((1 << window) - 1)
    marks[at.HISTORY] = history
    if is_on(marks[at.PHASE]):
        if not quiet:
            marks[at.PHASE] = ANOMALY
            return
        marks[at.CLEARING_STEPS] = marks[at.CLEARING_STEPS] + 1 if marks[at.PHASE] == CLEARING else 1
        marks[at.PHASE] = CLEARING
        if marks[at.CLEARING_STEPS] > clear_hold and may_close:
            marks[at.PHASE] = NORMAL
            marks[at.HISTORY] = 0
            marks[at.REFRACTORY] = refractory
        return
    hits = 0
    while history:
        history &= history - 1
        hits += 1
    if marks[at.REFRACTORY] > 0:
        marks[at.REFRACTORY] -= 1
    elif hits >= needed and may_open:
        marks[at.PHASE] = ANOMALY
        return
    marks[at.PHASE] = PENDING if hits else NORMAL
