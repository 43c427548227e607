"""Recorded readings, checked once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_rnn.errors import DataError

Recording = tuple[ArrayLike, ArrayLike]
"""times_ns (T,) int64, increasing, and readings (T, C), NaN where there is none."""

Rows = list[tuple[NDArray[np.int64], NDArray[np.float64]]]


def checked(recordings: Sequence[Recording], channels: int | None = None) -> Rows:
    """The recordings as contiguous arrays.

    Raises:
        DataError: none at all, another number of channels, times that do not increase.
    """
    rows: Rows = []
    for i, (times, values) in enumerate(recordings):
        t, x = np.ascontiguousarray(times, np.int64), np.ascontiguousarray(values, np.float64)
        width = channels if channels is not None else (rows[0][1].shape[1] if rows else x.shape[-1])
        if x.ndim != 2 or t.shape != x.shape[:1] or x.shape[1] != width:
            raise DataError(
                f"recording {i}: expected times (T,) and readings (T, {width}), got {t.shape} and {x.shape}"
            )
        late = np.flatnonzero(t[1:] <= t[:-1])
        if late.size:
            raise DataError(
                f"recording {i}: expected increasing times, row {late[0] + 1} is not after the one before; "
                "sort the rows and drop duplicates"
            )
        rows.append((t, x))
    if not rows or not any(len(t) for t, _ in rows):
        raise DataError("expected at least one recording with rows, got none")
    return rows
