"""Recorded readings as a device is given them, and verdicts as it gives them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_rnn.detect.verdict import verdict_dtype


def held(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Readings with each missing one replaced by the last of its channel, and 1 new, 2 held, 0 none yet."""
    missing = np.isnan(values)
    last = np.maximum.accumulate(np.where(missing, -1, np.arange(len(values))[:, None]), axis=0)
    filled = np.where(last < 0, np.nan, np.take_along_axis(values, np.maximum(last, 0), axis=0))
    present = np.where(~missing, 1, np.where(last < 0, 0, 2)).astype(np.uint8)
    present[missing.all(axis=1)] = 0
    return filled, present


def exported(verdicts: NDArray[np.void], channels: int) -> NDArray[np.void]:
    """The runtime's records (T,) without the parts of an explanation that the exported code does not give."""
    kind = verdict_dtype(channels)
    found = np.zeros(len(verdicts), kind)
    for name in kind.names or ():
        found[name] = verdicts[name]
    return found
