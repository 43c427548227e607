"""The detector's time: one reading from Python, and many streams in one call.

    pytest benchmarks/bench_detector.py --benchmark-enable --benchmark-only

`step` makes a `Verdict`; `advance` returns the score of what the caller filled in; `prepared` is the bare
call; `table` judges one reading of each of COUNT streams, so its time is divided by COUNT. The model is the
demo's: 3 channels, a GRU of 16 units, and what the step alone costs stands beside it.
"""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from edge_rnn import Detector, Model, Stepper
from edge_rnn.bench.inputs import BUNDLED, fixed_inputs, raw_readings
from edge_rnn.detect.detector import DetectorTable
from edge_rnn.files.load import load

COUNT = 256


@pytest.fixture(scope="module")
def model() -> Model:
    return load(BUNDLED)


@pytest.fixture(scope="module")
def readings(model) -> np.ndarray:
    return raw_readings(model, fixed_inputs(COUNT, model.input_size))


def test_step_alone(benchmark, model) -> None:
    assert benchmark(Stepper(model).step, fixed_inputs(1, model.input_size)[0]).shape == (3,)


def test_detector_step(benchmark, model, readings) -> None:
    detector, times = Detector(model), count(0, 10**6)
    verdict = benchmark(lambda: detector.step(readings[0], next(times)))
    assert verdict.step >= 1


def test_detector_prepared(benchmark, model, readings) -> None:
    table = DetectorTable(model, 1)
    x, times = readings[:1].copy(), np.zeros(1, np.int64)
    out = np.zeros(1, table.verdict_dtype)
    judge = table.call(0, times, x, np.ones(x.shape, np.uint8), out)

    def one() -> int:
        times[0] += 10**6
        return judge()

    assert benchmark(one) == 1
    assert out["step"][0] >= 1


def test_detector_advance(benchmark, model, readings) -> None:
    detector, times = Detector(model), count(0, 10**6)
    detector.input[:] = readings[0]
    benchmark(lambda: detector.advance(next(times)))
    assert detector.verdict.step >= 1


def test_detector_table(benchmark, model, readings) -> None:
    table = DetectorTable(model, COUNT)
    rows, times = np.arange(COUNT), np.zeros(COUNT, np.int64)
    present, out = np.ones(readings.shape, np.bool_), np.zeros(COUNT, table.verdict_dtype)

    def all_streams() -> None:
        times[:] += 10**6
        table.step_rows(rows, times, readings, present, out)

    benchmark.extra_info["per"] = COUNT
    benchmark(all_streams)
    assert (out["step"] >= 1).all()
