"""How rare a score is: the part of normal scores that are at least as high.

**Histogram.** A stream's own scores, 2**bits bins per factor of two: the bin is the float64's exponent and
its leading mantissa bits, so finding it takes no logarithm. Counts lie in a Fenwick tree, the highest bin
first: adding a score and counting all that are at least as high each take at most 9 additions for 256 bins.

    p = (scores in this bin or above + 1/2) / (scores + 1)          0 < p < 1

**Table.** Calibration's scores s_j, rising, and the parts e_j that reached them, falling: linear in between,
from 1 at 0, and beyond the last one e * s_last / s, so that no score is impossible.

**Tail.** The score exceeded with probability q, from moments of excesses, is thresholds.py's with our own ln
and exp.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.jit import inlined
from edge_rnn.detect.arithmetic import exp, ln, log10

Vector = NDArray[np.float64]

FEWEST = 10


@inlined
def bin_of(value: float, low: int, bins: int, bits: int) -> int:
    """The bin of a score >= 0, 0 .. bins - 1, from 2**low upward by exponent and `bits` of the mantissa."""
    place = (int(np.float64(value).view(np.int64)) >> (52 - bits)) - ((1023 + low) << bits)
    if place < 0:
        return 0
    return place if place < bins else bins - 1


@inlined
def add(tree: Vector, place: int) -> None:
    """Count one score in bin `place`; tree (1 + bins,): how many in all, then the Fenwick tree."""
    bins = tree.size - 1
    tree[0] += 1.0
    k = bins - place
    while k <= bins:
        tree[k] += 1.0
        k += k & -k


@inlined
def surprise(tree: Vector, place: int) -> float:
    """-log10 p of a score in bin `place`; 0 while fewer than 10 scores are known."""
    if tree[0] < FEWEST:
        return 0.0
    k = tree.size - 1 - place
    above = 0.0
    while k > 0:
        above += tree[k]
        k -= k & -k
    return -log10((above + 0.5) / (tree[0] + 1.0))


@inlined
def exceeded(score: float, scores: Vector, parts: Vector) -> float:
    """The part of normal scores that reach `score`, from a table (n,), n >= 1."""
    n = scores.size
    if not score > 0.0:
        return 1.0
    if score >= scores[n - 1]:
        return float(parts[n - 1] * (scores[n - 1] / score))
    low, high = -1, n - 1
    while high - low > 1:
        middle = (low + high) // 2
        if score >= scores[middle]:
            low = middle
        else:
            high = middle
    at, part = (0.0, 1.0) if low < 0 else (scores[low], parts[low])
    inside = (score - at) / (scores[high] - at)
    return float(part + inside * (parts[high] - part))


@inlined
def tail_value(
    level: float, count: float, excesses: float, total: float, squares: float, risk: float
) -> float:
    """The score that is exceeded with probability `risk`, as `thresholds.tail_value`, in own arithmetic."""
    mean = total / excesses
    variance = max(squares / excesses - mean * mean, 1e-12 * mean * mean + 1e-300)
    ratio = mean * mean / variance
    shape = min(max(0.5 * (1.0 - ratio), -0.5), 0.5)
    scale = mean * (1.0 - shape)
    rarity = ln(risk * count / excesses)
    if -1e-6 < shape < 1e-6:
        value = level - scale * rarity
    else:
        value = level + scale / shape * (exp(-shape * rarity) - 1.0)
    return max(value, level)
