"""How far the last steps are from normal, as one squared distance.

Both scorers smooth the deviation e of each channel, z <- z + rate * (e - z), and look at d = z - center:

    mewma    q = sum_i d_i * (sum_j W_ij d_j)     W: inverse covariance of z on normal data (Lowry et al.,
             Technometrics 34, 1992); the terms of the outer sum are the channels' parts of it and may be
             negative where W is not diagonal
    ewma_z   q = max_i d_i^2 * w_i                w: inverse variances; the parts are d_i^2 * w_i

The score is q / unit. A faulty channel is fed its center, so it comes to rest, and has d = 0 meanwhile.
Sums run in the order of the channels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.jit import inlined

Vector = NDArray[np.float64]


@inlined
def smooth(
    z: Vector, deviation: Vector, rate: float, center: Vector, fault: NDArray[np.uint8], d: Vector
) -> None:
    """Update z (C,) with this step's deviation (C,), and write d = z - center, 0 where faulty."""
    for c in range(z.size):
        target = center[c] if fault[c] else deviation[c]
        z[c] += rate * (target - z[c])
        d[c] = 0.0 if fault[c] else z[c] - center[c]


@inlined
def mewma(d: Vector, precision: Vector, part: Vector) -> float:
    """The squared distance of d (C,) under `precision` (C * C, row-major); writes its parts (C,)."""
    size = d.size
    total = 0.0
    for i in range(size):
        inner = 0.0
        for j in range(size):
            inner += precision[i * size + j] * d[j]
        part[i] = d[i] * inner
        total += part[i]
    return total


@inlined
def ewma_z(d: Vector, precision: Vector, part: Vector) -> float:
    """The largest squared z-score of d (C,) under inverse variances (C,); writes its parts (C,)."""
    largest = 0.0
    for i in range(d.size):
        part[i] = d[i] * d[i] * precision[i]
        largest = max(largest, part[i])
    return largest
