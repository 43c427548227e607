"""Weights to int8, a scale per row, so that what a row computes changes least on typical inputs.

A row computes `w . z`. Rounding each weight to the nearest step leaves an error `e` per weight, and its
effect has the variance `e C e`, with C the covariance of z: the errors of inputs that move together can
cancel, and in a recurrent network most inputs move together. So starting from the nearest steps, one weight
after the other is moved to where `e C e` is least, all others held, until nothing moves (coordinate descent).
The mean of z needs no part in it: what an error adds there is constant, and is taken off the bias.

A few scales per row are tried, multiples of a given quantum, the largest weight at 127 steps or slightly
above (then it is cut); the one with the least variance is kept. C is regularised by a hundredth of its mean
diagonal, so that directions the data never took are not traded away freely.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.model import Float64

LARGEST = 127
_FACTORS = (1.0, 0.985, 0.97, 0.955, 0.94, 0.92)
_SWEEPS = 12
_RIDGE = 0.01


def round_rows(
    weights: Float64, covariance: Float64, split: int, quantum: float = 0.0
) -> tuple[NDArray[np.int8], Float64, Float64]:
    """The weights (R, K) as steps of a scale per row and part.

    Args:
        weights: float64 (R, K); columns before `split` have one scale per row, the others a second one.
        covariance: float64 (K, K) of what the columns are multiplied with.
        split: 0..K.
        quantum: scales are multiples of it, rounded up; 0: any.

    Returns:
        steps int8 (R, K) in -127..127; scales (R, 2), what one step is worth (0 for a part of zeros);
        and the error weights - steps * scale, (R, K).
    """
    size = covariance.shape[0]
    ridge = _RIDGE * float(np.trace(covariance)) / size
    curvature = covariance + np.eye(size) * (ridge if ridge > 0 else 1.0)
    largest = np.stack([_largest(weights[:, :split]), _largest(weights[:, split:])], axis=1)
    part = (np.arange(size) >= split).astype(np.intp)
    best = np.full(len(weights), np.inf)
    steps, scales = np.zeros(weights.shape), np.zeros((len(weights), 2))
    for factor in _FACTORS:
        scale = largest / LARGEST * factor
        if quantum > 0:
            scale = np.ceil(scale / quantum) * quantum
        tried, loss = _descend(weights, curvature, scale[:, part])
        better = loss < best
        best[better], steps[better], scales[better] = loss[better], tried[better], scale[better]
    return steps.astype(np.int8), scales, weights - steps * scales[:, part]


def _largest(weights: Float64) -> Float64:
    result: Float64 = np.abs(weights).max(axis=1, initial=0.0)
    return result


def _descend(weights: Float64, curvature: Float64, scale: Float64) -> tuple[Float64, Float64]:
    """Steps (R, K) and e C e (R,)."""
    unit = np.where(scale > 0, scale, 1.0)
    steps = np.clip(np.rint(weights / unit), -LARGEST, LARGEST)
    error = weights - steps * scale
    slope = error @ curvature
    for _ in range(_SWEEPS):
        moved = False
        for k in range(weights.shape[1]):
            wanted = np.rint(slope[:, k] / (curvature[k, k] * unit[:, k]))
            new = np.clip(steps[:, k] + wanted, -LARGEST, LARGEST)
            change = (new - steps[:, k]) * scale[:, k]
            if change.any():
                moved = True
                steps[:, k] = new
                error[:, k] -= change
                slope -= change[:, None] * curvature[k]
        if not moved:
            break
    loss: Float64 = (error * slope).sum(axis=1)
    return steps, loss
