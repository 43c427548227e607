"""What w8a16 costs in accuracy: the integer network against the float one on the same data."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.integer_step import IntegerStepper
from edge_rnn.core.integers import Quantized
from edge_rnn.core.model import Model
from edge_rnn.core.stepper import Stepper
from edge_rnn.detect.detector import Detector
from edge_rnn.detect.integer import IntegerDetector, network_inputs

_STEPS = 2000


@dataclass(frozen=True, slots=True)
class IntegerErrors:
    """On `rows` rows of `data`: errors of the outputs in model space, the worst output; the same as a part of
    that output's standard deviation; verdicts compared, and the part of them with the same status and alarm
    (None without a detector)."""

    data: str
    rows: int
    max_error: float
    rms_error: float
    max_share: float
    rms_share: float
    verdicts: int
    agreement: float | None

    def as_json(self) -> dict[str, object]:
        """Plain numbers."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        share = f"{100 * self.max_share:.2f} % and {100 * self.rms_share:.2f} % of their standard deviation"
        agree = "" if self.agreement is None else f", verdicts as float32 {100 * self.agreement:.3f} %"
        return [
            f"error   outputs (scaled): max {self.max_error:.3g}, rms {self.rms_error:.3g}; {share}",
            f"        on {self.rows:,} rows of {self.data}{agree}",
        ]


def measure(
    model: Model,
    quantized: Quantized,
    times_ns: NDArray[np.int64],
    readings: NDArray[np.float64],
    present: NDArray[np.uint8],
    data: str,
) -> IntegerErrors:
    """Both networks on raw readings (T, C), NaN where a channel has none yet."""
    xs = network_inputs(model, readings).astype(np.float32)
    exact = Stepper(model, numeric="U").run(xs).astype(np.float64)
    error = np.abs(IntegerStepper(quantized).run(xs) - exact)
    spread = exact.std(axis=0)
    spread = np.where(spread > 0, spread, np.inf)
    top, rms = error.max(axis=0), np.sqrt((error**2).mean(axis=0))
    agreement, verdicts = None, 0
    if model.detector is not None:
        a = Detector(model, numeric="U").run(times_ns, readings, present)
        b = IntegerDetector(quantized).run(times_ns, readings, present)
        agreement, verdicts = (
            float(((a["status"] == b["status"]) & (a["alarm"] == b["alarm"])).mean()),
            len(a),
        )
    return IntegerErrors(
        data, len(xs), float(top.max()), float(rms.max()), float((top / spread).max()),
        float((rms / spread).max()), verdicts, agreement,
    )  # fmt: skip


def noise(model: Model) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.uint8]]:
    """Times, readings and what is present, where there is no recorded data: unit variance in model space."""
    rng = np.random.default_rng(1)
    z = rng.standard_normal((_STEPS, model.input_size))
    readings = z if model.scaler is None else z * model.scaler.std + model.scaler.mean
    period = 10**9 if model.detector is None else model.detector.period_ns or 10**9
    times = np.arange(1, _STEPS + 1, dtype=np.int64) * period
    return times, readings, np.ones(readings.shape, np.uint8)
