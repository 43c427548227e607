"""Scorers that judge each channel by a chart of its own; the channel that is furthest out counts.

For a channel with deviation e, center c, weight w, smoothed value z, state A and B, and a = |e - c|
(one-sided: the part of e - c with that sign, as a positive number):

    running_z     score (a - A)^2 / B if a > A            learns  A, B: running mean and variance of a
    likelihood    z += rate (a - z); score -log10 Q((z - A) / sqrt(B)) if z > A, at most 50;    A, B of z
    cusum         x = clip((e - c) w, bound);  A = clip(A + x - slack, 0, cap);  B = clip(B - x - slack, 0,
    cap);
                  score max(A, B)                          (Page, Biometrika 41, 1954)
    page_hinkley  the same with x = clip((e - z) w, bound);  then z += rate (e - z)
    novelty       r = B - A, the range seen; score (e - B) / r or (A - e) / r if more than margin;   A, B
    level         score |e - A| w                          learns  A += rate clip((e - A) w, -1, 1) / w
    magnitude     z += rate (a - z); score z w;  B += rate (e - B), the level that becomes c if it is accepted

Running mean and variance: k = 1 / min(n + 1, memory), d = a - A, A += k d, B = (1 - k) (B + k d d), at
least 1e-12. Q, the upper tail of the normal distribution, is taken from Boerjesson and Sundberg (IEEE
Trans. Commun. 27, 1979): Q(t) = exp(-t^2 / 2) / (sqrt(2 pi) (0.661 t + 0.339 sqrt(t^2 + 5.51))), within
0.3 %; its logarithm needs no exp.

Scoring comes before the threshold, learning after it: what is learned depends on whether the alarm is on.
A faulty channel scores 0 and nothing is learned of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.jit import inlined
from edge_rnn.detect import fields as at
from edge_rnn.detect.arithmetic import LOG10_E, log10, root
from edge_rnn.detect.condition import clip

Vector = NDArray[np.float64]
Faults = NDArray[np.uint8]

SMALLEST_VARIANCE = 1e-12
LARGEST = 1e6
_LOG10_ROOT_TAU = 0.3990899341790575  # log10(sqrt(2 pi))


@inlined
def one_sided(difference: float, side: int) -> float:
    """The part of a difference that counts, as a number >= 0."""
    if side == at.UP:
        return max(difference, 0.0)
    if side == at.DOWN:
        return max(-difference, 0.0)
    return abs(difference)


@inlined
def surprise(t: float) -> float:
    """-log10 of the upper tail of the normal distribution at t > 0, at most 50."""
    square = t * t
    tail = 0.661 * t + 0.339 * root(square + 5.51)
    value = 0.5 * square * LOG10_E + _LOG10_ROOT_TAU + log10(tail)
    return min(value, 50.0)


@inlined
def judge(
    m: Vector, weights: Vector, e: Vector, fault: Faults, center: Vector, z: Vector, a: Vector, b: Vector,
    part: Vector,
) -> float:  # fmt: skip
    """The score of one chart: the largest of `part` (C,), which is written.

    m: its numbers (MORE_.. in fields.py); e, weights, center, z (C,) as in the module; a, b (C,) the state
    A and B.
    """
    kind, side, rate = m[at.MORE_KIND], m[at.MORE_SIDE], m[at.MORE_RATE]
    largest = 0.0
    for c in range(e.size):
        part[c] = 0.0
        if fault[c]:
            continue
        value = 0.0
        if kind == at.RUNNING_Z:
            size = one_sided(e[c] - center[c], side)
            z[c] += rate * (e[c] - z[c])
            if size > a[c]:
                value = (size - a[c]) * (size - a[c]) / b[c]
        elif kind == at.LIKELIHOOD:
            z[c] += rate * (one_sided(e[c] - center[c], side) - z[c])
            if z[c] > a[c]:
                value = max(surprise((z[c] - a[c]) / root(b[c])), 0.0)
        elif kind in (at.CUSUM, at.PAGE_HINKLEY):
            middle = center[c] if kind == at.CUSUM else z[c]
            x = clip((e[c] - middle) * weights[c], m[at.MORE_BOUND])
            z[c] += rate * (e[c] - z[c])
            a[c] = min(max(a[c] + x - m[at.MORE_SLACK], 0.0), m[at.MORE_CAP])
            b[c] = min(max(b[c] - x - m[at.MORE_SLACK], 0.0), m[at.MORE_CAP])
            value = a[c] if side == at.UP else b[c] if side == at.DOWN else max(a[c], b[c])
        elif kind == at.NOVELTY:
            z[c] = e[c]
            width = b[c] - a[c]
            if width > 0.0:
                beyond = 0.0
                if side != at.DOWN:
                    beyond = e[c] - b[c]
                if side != at.UP:
                    beyond = max(beyond, a[c] - e[c])
                beyond = beyond / width
                if beyond > m[at.MORE_MARGIN]:
                    value = min(beyond, LARGEST)
        elif kind == at.MAGNITUDE:
            z[c] += rate * (one_sided(e[c] - center[c], side) - z[c])
            b[c] += rate * (e[c] - b[c])
            value = z[c] * weights[c]
        else:  # level
            z[c] = e[c]
            value = one_sided((e[c] - a[c]) * weights[c], side)
        part[c] = value
        largest = max(largest, value)
    return largest


@inlined
def learn(
    m: Vector, weights: Vector, e: Vector, fault: Faults, center: Vector, z: Vector, a: Vector, b: Vector,
    count: Vector,
) -> None:  # fmt: skip
    """What a chart takes from a step; count (1,): how many it has learned from."""
    kind, side = m[at.MORE_KIND], m[at.MORE_SIDE]
    if kind in (at.RUNNING_Z, at.LIKELIHOOD):
        share = 1.0 / min(count[0] + 1.0, m[at.MORE_MEMORY])
        count[0] += 1.0
        for c in range(e.size):
            if not fault[c]:
                size = z[c] if kind == at.LIKELIHOOD else one_sided(e[c] - center[c], side)
                d = size - a[c]
                a[c] += share * d
                b[c] = max((1.0 - share) * (b[c] + share * d * d), SMALLEST_VARIANCE)
    elif kind == at.NOVELTY:
        for c in range(e.size):
            if not fault[c]:
                if a[c] > b[c]:  # nothing seen yet
                    a[c] = b[c] = e[c]
                a[c] = min(a[c], e[c])
                b[c] = max(b[c], e[c])
    elif kind == at.LEVEL:
        for c in range(e.size):
            if not fault[c]:
                a[c] += m[at.MORE_RATE] * clip((e[c] - a[c]) * weights[c], 1.0) / weights[c]
