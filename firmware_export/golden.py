"""Recorded inputs and what the Python runtime answers to them, for the self-test in the device.

Inputs are those of the model file's own self-test where it has one, else drawn from a normal distribution
in model space. For the detector they are brought into the readings' units, with what a device meets: a NaN,
a missing channel, a held reading, a pause, a value that stands still.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.integer_step import IntegerStepper
from edge_rnn.core.integers import Quantized
from edge_rnn.core.model import Model
from edge_rnn.core.stepper import Stepper
from edge_rnn.detect.detector import Detector
from edge_rnn.detect.integer import IntegerDetector
from firmware_export import toolchain
from firmware_export.recorded import exported

_STEPS, _SAMPLES = 16, 32


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """xs (T, I), ys (T, O) float32 of the network; times, readings, present (N, C) and verdicts of the
    detector."""

    xs: NDArray[np.float32]
    ys: NDArray[np.float32]
    times_ns: NDArray[np.int64]
    readings: NDArray[np.float64]
    present: NDArray[np.uint8]
    verdicts: NDArray[np.void] | None

    def detect_samples(self) -> NDArray[np.void]:
        """The detector's samples as the harness reads them."""
        return toolchain.detect_samples(self.times_ns, self.readings, self.present)


def runtime(model: Model, quantized: Quantized | None, *, fused: bool) -> Stepper | IntegerStepper:
    """The network in Python that the export has the bits of."""
    if quantized is not None:
        return IntegerStepper(quantized)
    return Stepper(model, numeric="F" if fused else "U")


def detector(model: Model, quantized: Quantized | None, *, fused: bool) -> Detector:
    """The detector in Python that the export has the bits of."""
    if quantized is not None:
        return IntegerDetector(quantized)
    return Detector(model, numeric="F" if fused else "U")


def golden(model: Model, *, fused: bool, quantized: Quantized | None = None) -> Golden:
    """What the runtime answers in class F (fused) or U, or in integers."""
    rng = np.random.default_rng(0)
    c = model.input_size
    xs = rng.normal(size=(_STEPS, c)).astype(np.float32)
    if model.self_test is not None:
        recorded = model.self_test.x[:_STEPS]
        xs[: len(recorded)] = recorded
    ys = runtime(model, quantized, fused=fused).run(xs)
    mean, std = (0.0, 1.0) if model.scaler is None else (model.scaler.mean, model.scaler.std)
    readings = rng.normal(size=(_SAMPLES, c)) * std + mean
    present = np.ones((_SAMPLES, c), np.uint8)
    spec = model.detector
    period = 10**9 if spec is None or not spec.period_ns else spec.period_ns
    times = np.arange(1, _SAMPLES + 1, dtype=np.int64) * period
    verdicts = None
    if spec is not None:
        readings[_SAMPLES // 4, 0] = np.nan
        present[_SAMPLES // 3, c - 1] = 0
        present[_SAMPLES // 3 + 1, 0] = 2
        readings[_SAMPLES // 2 : _SAMPLES // 2 + 4] = readings[_SAMPLES // 2]
        times[-4:] += max(spec.guard.gap_ns, spec.guard.silent_after_ns) + period
        said = detector(model, quantized, fused=fused).run(times, readings, present)
        verdicts = exported(said, c)
    return Golden(xs, ys, times, readings, present, verdicts)
