"""Which channel it was: the parts of a squared distance, brought to a sum of one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.jit import inlined

Vector = NDArray[np.float64]

# Below this a distance is no distance: dividing by it could overflow.
_SMALLEST = 1e-200


@inlined
def shares(part: Vector, fault: NDArray[np.uint8], share: Vector) -> None:
    """Write share (C,) = part / sum(part); where there is no distance, all healthy channels get the same.

    Parts of a full covariance may be negative and are shown as they are.
    """
    total = 0.0
    healthy = 0
    for c in range(part.size):
        total += part[c]
        healthy += 0 if fault[c] else 1
    for c in range(part.size):
        if total > _SMALLEST:
            share[c] = part[c] / total
        else:
            share[c] = 0.0 if fault[c] else 1.0 / healthy
