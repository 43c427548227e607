"""The answer to one sample: status, score, reason.

The compiled detector writes records of `verdict_dtype(C)`, one per sample, whose numbers lie on 8-byte
boundaries; `Verdict` is the same for people and programs. Numbers of a status or fault are part of the state
format: append, never renumber.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Status = Literal["warming", "normal", "pending", "anomaly", "clearing", "fault"]
FaultKind = Literal["none", "missing", "non-finite", "range", "stuck", "silent"]
STATUSES: tuple[Status, ...] = get_args(Status)
FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)


@lru_cache(maxsize=64)
def verdict_dtype(channels: int) -> np.dtype[np.void]:
    """The record of one verdict for `channels` inputs; its size is a multiple of 8 bytes.

    Fields: time_ns i8; step i8 (count of samples of this stream, from 1); score, threshold f8 (NaN while
    warming and where every channel is faulty; both in the same unit, `score > threshold` is too high);
    share (C,) f8: each channel's part of the squared distance, sums to 1 (NaN where the score is, and for
    kind classify); residual (C,) f8: reading minus expected, in the reading's unit (NaN where there is no
    finite reading); expected (C,) f8, in the reading's unit (NaN where nothing has been said yet);
    fault (C,) u1 (index into `FAULT_KINDS`); status u1 (index into `STATUSES`); alarm u1 (1 while the alarm
    is on: anomaly or clearing, also behind a fault); accepted u1 (1 at the step where a lasting new level
    was taken as normal).
    """
    c, wide = (channels,), 8 * channels
    fields = [
        ("time_ns", "<i8", 0), ("step", "<i8", 8), ("score", "<f8", 16), ("threshold", "<f8", 24),
        ("share", ("<f8", c), 32), ("residual", ("<f8", c), 32 + wide),
        ("expected", ("<f8", c), 32 + 2 * wide),
        ("fault", ("u1", c), 32 + 3 * wide), ("status", "u1", 32 + 3 * wide + channels),
        ("alarm", "u1", 33 + 3 * wide + channels), ("accepted", "u1", 34 + 3 * wide + channels),
    ]  # fmt: skip
    names, formats, offsets = zip(*fields, strict=True)
    size = 32 + 3 * wide + (channels + 3 + 7) // 8 * 8
    return np.dtype(
        {"names": list(names), "formats": list(formats), "offsets": list(offsets), "itemsize": size}
    )


@dataclass(frozen=True, slots=True)
class Fault:
    """One faulty channel: its index among the inputs and what is wrong with it."""

    channel: int
    kind: FaultKind


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What the detector says about one sample; arrays are (C,) float64, see `verdict_dtype`."""

    stream: str
    time_ns: int
    step: int
    status: Status
    alarm: bool
    score: float
    threshold: float
    share: NDArray[np.float64]
    residual: NDArray[np.float64]
    expected: NDArray[np.float64]
    faults: tuple[Fault, ...] = ()
    accepted: bool = False

    @classmethod
    def from_record(cls, record: np.void, stream: str = "") -> Verdict:
        """The verdict in a `verdict_dtype` record; arrays are copied."""
        # One item() is a third of the time of eleven field accesses.
        values: Any = record.item()
        time_ns, step, score, threshold, share, residual, expected, fault, status, alarm, accepted = values
        word: Status = STATUSES[status]
        faults: tuple[Fault, ...] = ()
        if word == "fault":
            faults = tuple(Fault(c, FAULT_KINDS[kind]) for c, kind in enumerate(fault.tolist()) if kind)
        return cls(
            stream, time_ns, step, word, bool(alarm), score, threshold,
            share.copy(), residual.copy(), expected.copy(), faults, bool(accepted),
        )  # fmt: skip
