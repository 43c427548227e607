"""Stretches of rows: from flags to intervals and back. An interval is (first row, last row + 1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Intervals = list[tuple[int, int]]


def runs(flags: Flags) -> Intervals:
    """Stretches of True of `flags` (T,), in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    pairs: list[list[int]] = edges.reshape(-1, 2).tolist()
    return [(a, b) for a, b in pairs]


def flags_of(intervals: Iterable[tuple[int, int]], rows: int) -> Flags:
    """(rows,) bool, True inside any of `intervals`."""
    flags = np.zeros(rows, np.bool_)
    for a, b in intervals:
        flags[max(a, 0) : b] = True
    return flags


def merged(intervals: Sequence[tuple[int, int]], gap: int) -> Intervals:
    """`intervals`, in order, where neighbours with at most `gap` rows between them are one."""
    result: Intervals = []
    for a, b in intervals:
        if result and a - result[-1][1] <= gap:
            result[-1] = (result[-1][0], max(b, result[-1][1]))
        else:
            result.append((a, b))
    return result


def ratio(part: float, whole: float) -> float:
    """part / whole, NaN where there is no whole."""
    return part / whole if whole else float("nan")


def harmonic(a: float, b: float) -> float:
    """The F1 of a precision and a recall; 0 where both are 0, NaN where one is."""
    return 0.0 if a + b == 0 else 2 * a * b / (a + b)
