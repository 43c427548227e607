"""A bar that rises: what was already reported is no news.

A channel that has moved as never before will do so again, and each time a fixed threshold calls. With
`threshold.bar`, an alarm about a score opens only above

    max(threshold, bar * B)        B <- max(B, score)      in the warm-up, and while an alarm is on
                                   B <- bar_decay * B      at every other judged step

so that a second event must be larger than the first by the factor `bar`, until B has sunk. The warm-up of a
stream counts as well: where a channel moves more in operation than it did in calibration, that is what B
begins with. What the threshold and the scorers learn does not depend on B. O(1): one number a stream.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.jit import jit
from edge_rnn.detect import fields as at

Vector = NDArray[np.float64]


@jit
def above(p: Any, limit: float, detect: Vector) -> float:
    """The threshold with the bar: the larger of both."""
    if p.bar == 0.0:
        return limit
    return float(max(limit, p.bar * detect[p.more_at + at.PEAK]))


@jit
def take(p: Any, score: float, detect: Vector) -> None:
    """A score of the warm-up or of an alarm that is on: the bar is at least that."""
    if p.bar > 0.0:
        detect[p.more_at + at.PEAK] = max(detect[p.more_at + at.PEAK], score)


@jit
def sink(p: Any, detect: Vector) -> None:
    """A judged step without an alarm."""
    if p.bar > 0.0:
        detect[p.more_at + at.PEAK] *= p.bar_decay
