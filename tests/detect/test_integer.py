"""The detector over integers: the same verdict rules, the integer stepper's outputs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edge_rnn.core.integer_step import IntegerStepper
from edge_rnn.core.model import RestState
from edge_rnn.detect.detector import Detector
from edge_rnn.detect.integer import IntegerDetector, network_inputs, quantize_on
from edge_rnn.errors import ExportError
from tests.detect.models import SECOND, model, spec


def _recording(rows: int = 600) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    slow = np.cumsum(rng.normal(size=(rows, 3)), axis=0)
    return (np.arange(rows) + 1) * SECOND, 0.2 * slow + rng.normal(size=(rows, 3))


def test_expected_values_are_those_of_the_integer_stepper() -> None:
    made = model(3, spec(3, warmup=0))
    times, z = _recording()
    assert made.scaler is not None
    x = z * made.scaler.std + made.scaler.mean
    quantized = quantize_on(made, x)
    verdicts = IntegerDetector(quantized).run(times, x)
    seen = network_inputs(made, x)
    said = IntegerStepper(quantized).run(seen)
    ours = (verdicts["expected"][1:] - made.scaler.mean) / made.scaler.std
    assert np.allclose(ours, said[:-1], atol=1e-9)
    again = IntegerDetector(quantized).run(times[:50], x[:50])
    assert again.tobytes() == verdicts[:50].tobytes()


def test_verdicts_agree_with_the_float_detector() -> None:
    made = model(3, spec(3, warmup=5))
    times, z = _recording(3000)
    assert made.scaler is not None
    x = z * made.scaler.std + made.scaler.mean
    x[1500:1520, 1] += 50 * made.scaler.std[1]
    ours, exact = IntegerDetector(quantize_on(made, x)).run(times, x), Detector(made).run(times, x)
    assert exact["alarm"].any()
    assert not exact["alarm"].all()
    assert (ours["status"] == exact["status"]).mean() > 0.995


def test_a_resting_state_is_where_a_reset_goes() -> None:
    made = model(3, spec(3, warmup=0))
    h = tuple(np.full(r.output_size, 0.25, np.float32) for r in made.layers)
    c = tuple(np.full(r.hidden_size, -0.5, np.float32) if r.cell == "lstm" else None for r in made.layers)
    made = dataclasses.replace(made, rest_state=RestState(h, c))
    times, x = _recording(50)
    detector = IntegerDetector(quantize_on(made, x))
    first = detector.run(times, x).tobytes()
    detector.reset()
    assert detector.run(times, x).tobytes() == first


def test_network_inputs_hold_what_is_missing_and_stay_within_the_clip() -> None:
    made = model(3, spec(3, warmup=0))
    assert made.scaler is not None
    assert made.detector is not None
    x = np.tile(made.scaler.mean, (6, 1)) + np.arange(6)[:, None] * made.scaler.std
    x[3, 1] = np.nan
    x[5] = made.scaler.mean + 1e6 * made.scaler.std
    seen = network_inputs(made, x)
    assert seen[3, 1] == seen[2, 1]
    assert seen.max() == made.detector.condition.clip
    assert len(network_inputs(made, np.tile(x, (20_000, 1)))) == 65_536


def test_ranges_of_features_are_refused() -> None:
    made = model(2, spec(2, warmup=0), features=("day_sin",))
    with pytest.raises(ExportError, match="day_sin"):
        quantize_on(made, np.zeros((50, 2)))
