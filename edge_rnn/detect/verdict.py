"""The answer to one sample: status, score, reason.

`VERDICT` is the record the compiled detector writes, one per sample; `Verdict` is the same for people and
programs. Numbers of a status or fault are part of the state format: append, never renumber.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Status = Literal["warming", "normal", "pending", "anomaly", "clearing", "fault"]
FaultKind = Literal["none", "missing", "non-finite", "range", "stuck", "silent"]
STATUSES: tuple[Status, ...] = get_args(Status)
FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)


def verdict_dtype(channels: int) -> np.dtype[np.void]:
    """The record of one verdict for `channels` inputs.

    Fields: time_ns i8; step i8 (count of samples of this stream); status u1 (index into `STATUSES`);
    alarm u1 (1 while the alarm is on: anomaly or clearing, also behind a fault); score, threshold f8 (NaN
    while warming); share (C,) f8: each channel's part of the squared distance, sums to 1 (NaN while warming);
    residual (C,) f8: reading minus expected, in the reading's unit; expected (C,) f8, in the reading's unit
    (NaN where there is none yet); fault (C,) u1 (index into `FAULT_KINDS`).
    """
    c = (channels,)
    return np.dtype(
        [
            ("time_ns", "<i8"), ("step", "<i8"), ("score", "<f8"), ("threshold", "<f8"),
            ("share", "<f8", c), ("residual", "<f8", c), ("expected", "<f8", c),
            ("fault", "u1", c), ("status", "u1"), ("alarm", "u1"),
        ]
    )  # fmt: skip


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

    @classmethod
    def from_record(cls, record: np.void, stream: str = "") -> Verdict:
        """The verdict in a `verdict_dtype` record; arrays are copied."""
        fault = record["fault"]
        faults = tuple(
            Fault(int(i), FAULT_KINDS[fault[i]]) for i in (np.flatnonzero(fault) if fault.any() else ())
        )
        return cls(
            stream=stream,
            time_ns=int(record["time_ns"]),
            step=int(record["step"]),
            status=STATUSES[record["status"]],
            alarm=bool(record["alarm"]),
            score=float(record["score"]),
            threshold=float(record["threshold"]),
            share=record["share"].copy(),
            residual=record["residual"].copy(),
            expected=record["expected"].copy(),
            faults=faults,
        )
