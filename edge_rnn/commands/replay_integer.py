"""`edge-rnn replay --backend w8a16`: the network in integers, and what that costs.

The float network replays the same data, so that the report can say how often both give the same verdict and
how far apart the expectations are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge_rnn.commands.replay_run import Replay
from edge_rnn.core.integers import Quantized
from edge_rnn.core.model import Model
from edge_rnn.files.readings import read_table

BACKENDS = ("float", "w8a16")


@dataclass(frozen=True, slots=True)
class IntegerReport:
    """w8a16 against float32 on the same rows.

    digest: of all integer constants. max_error, rms_error: of the expected values, in model space, the worst
    channel; max_share, rms_share: the same as part of the standard deviation of that channel's expected
    values; verdicts: rows judged by both; agreement: part of them with the same status and alarm. NaN where
    nothing is.
    """

    digest: str
    max_error: float
    rms_error: float
    max_share: float
    rms_share: float
    verdicts: int
    agreement: float

    def as_json(self) -> dict[str, Any]:
        """For the summary."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        agree = f"verdicts as float32 {100 * self.agreement:.3f} % of {self.verdicts}"
        error = f"error max {self.max_error:.3g}, rms {self.rms_error:.3g} (scaled)"
        share = f"{100 * self.max_share:.2f} % and {100 * self.rms_share:.2f} % of their standard deviation"
        return [
            f"w8a16     constants {self.digest[:16]}; {agree}",
            f"          expected values: {error}; {share}",
        ]


def prepared(model: Model, calibrate: str | None, columns: list[str], time: str | None) -> Quantized:
    """The model in integers, ranges from the file `calibrate`, else from the model file.

    Raises:
        DataError: the file cannot be used. ExportError: the model has no integer form.
    """
    from edge_rnn.detect.integer import quantize_on

    if calibrate is None:
        return quantize_on(model, None)
    return quantize_on(model, read_table(calibrate, time, columns, min_rows=1, strict=False).values)


def compare(model: Model, quantized: Quantized, exact: Replay, ours: Replay) -> IntegerReport:
    """The report on two replays of one table."""
    both = exact.judged | ours.judged
    same = (exact.judged == ours.judged) & (exact.status == ours.status) & (exact.alarm == ours.alarm)
    std = np.ones(model.channels) if model.scaler is None else model.scaler.std
    known = np.isfinite(exact.expected).all(axis=1) & np.isfinite(ours.expected).all(axis=1)
    worst = [np.nan] * 4
    if known.any():
        said = exact.expected[known] / std
        error = np.abs(ours.expected[known] / std - said)
        top, rms = error.max(axis=0), np.sqrt((error**2).mean(axis=0))
        spread = np.where(said.std(axis=0) > 0, said.std(axis=0), np.inf)
        worst = [float(v.max()) for v in (top, rms, top / spread, rms / spread)]
    agreement = float(same[both].mean()) if both.any() else float("nan")
    return IntegerReport(quantized.digest, worst[0], worst[1], worst[2], worst[3], int(both.sum()), agreement)
