"""The answer to one sample: status, score, reason.

The compiled detector writes records of `explained_dtype(C)`, one per sample, whose numbers lie on 8-byte
boundaries; `Verdict` is the same for people and programs. They begin with what an export to C gives as well,
`verdict_dtype(C)`. Numbers of a status or fault are part of the state format: append, never renumber.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Status = Literal["warming", "normal", "pending", "anomaly", "clearing", "fault"]
FaultKind = Literal["none", "missing", "non-finite", "range", "stuck", "silent", "flapping", "clock"]
Timing = Literal["regular", "gap", "duplicate", "late"]
STATUSES: tuple[Status, ...] = get_args(Status)
TIMINGS: tuple[Timing, ...] = get_args(Timing)
NO_SCORER = 255
FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
# What the guard itself can find in readings; the others are said of whole streams, see `stream/watch.py`.
GUARD_KINDS: tuple[FaultKind, ...] = FAULT_KINDS[: FAULT_KINDS.index("silent") + 1]


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


@lru_cache(maxsize=64)
def explained_dtype(channels: int) -> np.dtype[np.void]:
    """The record of one verdict with its explanation: the fields of `verdict_dtype`, and behind them

    probability f8: how sure it is that this score is not a normal one, 1 - the part of normal scores that
    are at least as high (NaN where the score is, and where calibration gave no table); band (C,) f8: half the
    width of the band around `expected` in which a normal reading lies, in the reading's unit (NaN where
    expected is); scorer u1: which scorer's score was the largest, 255 = none; severity u1: 0 without an
    alarm, else from 1; timing u1 (index into `TIMINGS`): `gap`: the time since the last sample is longer
    than the guard's gap_ns; `duplicate`, `late`: a time that is not after the last one's, nothing was
    stepped.
    """
    base = verdict_dtype(channels)
    start, fields = base.itemsize, dict(base.fields or {})
    more = [
        ("probability", "<f8", start), ("band", ("<f8", (channels,)), start + 8),
        *((w, "u1", start + 8 + 8 * channels + k) for k, w in enumerate(("scorer", "severity", "timing"))),
    ]  # fmt: skip
    return np.dtype(
        {
            "names": [*(base.names or ()), *(name for name, _, _ in more)],
            "formats": [*(fields[name][0] for name in base.names or ()), *(kind for _, kind, _ in more)],
            "offsets": [*(fields[name][1] for name in base.names or ()), *(place for _, _, place in more)],
            "itemsize": start + 16 + 8 * channels,
        }
    )


@dataclass(frozen=True, slots=True)
class Fault:
    """One faulty channel: its index among the inputs and what is wrong with it."""

    channel: int
    kind: FaultKind


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What the detector says about one sample; arrays are (C,) float64, see `explained_dtype`.

    scorer is the name of the one whose score was the largest (`scorer_names` of the detector), or empty.
    """

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
    probability: float = math.nan
    band: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    scorer: str = ""
    severity: int = 0
    timing: Timing = "regular"

    @classmethod
    def from_record(cls, record: np.void, stream: str = "", scorers: tuple[str, ...] = ()) -> Verdict:
        """The verdict in an `explained_dtype` record; arrays are copied. scorers: their names."""
        # One item() is a third of the time of eleven field accesses.
        values: Any = record.item()
        (
            time_ns, step, score, threshold, share, residual, expected, fault, status, alarm, accepted,
            probability, band, scorer, severity, timing,
        ) = values  # fmt: skip
        word: Status = STATUSES[status]
        faults: tuple[Fault, ...] = ()
        if word == "fault":
            faults = tuple(Fault(c, FAULT_KINDS[kind]) for c, kind in enumerate(fault.tolist()) if kind)
        return cls(
            stream, time_ns, step, word, bool(alarm), score, threshold,
            share.copy(), residual.copy(), expected.copy(), faults, bool(accepted),
            probability, band.copy(), scorers[scorer] if scorer < len(scorers) else "", severity,
            TIMINGS[timing],
        )  # fmt: skip
