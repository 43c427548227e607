"""`Detector.advance` on memory the caller filled: the bits and the state of `step`, and its errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_rnn import Detector
from edge_rnn.core.detector_spec import GuardSpec, ThresholdSpec
from edge_rnn.core.quantize import quantize
from edge_rnn.detect.integer import IntegerDetector
from tests.detect import models

KINDS = {
    "forecast": lambda: models.model(3, models.spec(3, scorers=(models.scorer(3, "mewma"),))),
    "reconstruct": lambda: models.model(2, models.spec(2, kind="reconstruct", warmup=0)),
    "classify": lambda: models.model(2, models.spec(2, kind="classify", scorers=()), outputs=2),
    "guarded": lambda: models.model(
        3,
        models.spec(
            3,
            guard=GuardSpec(low=(-20.0,) * 3, high=(20.0,) * 3, silent_after_ns=5 * models.SECOND),
            threshold=ThresholdSpec(kind="dspot_ewma", value=1.0, rate=0.1),
        ),
    ),
}


def plant(model, count=60):
    """Readings with everything a guard looks for: NaN, infinities, absent and held ones, pauses."""
    times, x = models.readings(count, model, seed=3, spread=3.0)
    rng = np.random.default_rng(4)
    x[rng.random(x.shape) < 0.05] = np.nan
    x[rng.random(x.shape) < 0.03] = np.inf
    present = rng.choice(np.array([0, 1, 1, 1, 1, 2], np.uint8), x.shape)
    return times + np.cumsum(rng.random(count) < 0.1) * 7 * models.SECOND, x, present


@pytest.mark.parametrize("kind", KINDS)
def test_advance_is_step(kind) -> None:
    model = KINDS[kind]()
    slow, fast = Detector(model), Detector(model)
    seen = set()
    for time_ns, x, present in zip(*plant(model), strict=True):
        verdict = slow.step(x, int(time_ns), present)
        fast.input[:] = x
        fast.present[:] = present
        score = fast.advance(int(time_ns))
        assert score == verdict.score or (math.isnan(score) and math.isnan(verdict.score))
        assert repr(fast.verdict) == repr(verdict)
        assert fast.table.states.tobytes() == slow.table.states.tobytes()
        assert fast._out.tobytes() == slow._out.tobytes()
        seen.add(verdict.status)
    assert len(seen) > 1


def test_both_ways_take_turns_on_one_stream() -> None:
    model = KINDS["forecast"]()
    times, x = models.readings(20, model)
    alone, mixed = Detector(model), Detector(model)
    for t, (time_ns, row) in enumerate(zip(times, x, strict=True)):
        expected = alone.step(row, int(time_ns))
        if t % 3:
            mixed.input[:] = row
            mixed.advance(time_ns)  # a NumPy integer is a time, too
        else:
            mixed.step(row, int(time_ns))
        assert repr(mixed.verdict) == repr(expected)
    assert mixed.snapshot() == alone.snapshot()
    assert (mixed.present == 1).all()


def test_input_and_present_are_the_callers() -> None:
    detector = Detector(KINDS["forecast"]())
    mine, flags = detector.input, detector.present
    mine[:], flags[:] = 5.0, (1, 0, 2)
    detector.step([1.0, 2.0, 3.0], 1)
    detector.advance(2)
    assert detector.input is mine
    assert mine.tolist() == [5.0] * 3
    assert detector.present is flags
    assert flags.tolist() == [1, 0, 2]
    with pytest.raises(AttributeError):
        detector.input = np.zeros(3)


@pytest.mark.parametrize("time_ns", [9, 10, -(2**63)])
def test_a_time_that_is_not_later_is_refused_and_changes_nothing(time_ns) -> None:
    detector = Detector(KINDS["forecast"]())
    detector.advance(10)
    before, verdict = detector.snapshot(), repr(detector.verdict)
    with pytest.raises(ValueError, match=r"time_ns: expected later than the last sample's 10, got"):
        detector.advance(time_ns)
    assert (detector.snapshot(), repr(detector.verdict)) == (before, verdict)
    assert math.isnan(detector.advance(11))


@pytest.mark.parametrize("time_ns", [2**63, -(2**63) - 1, None, "soon"])
def test_a_time_that_is_none_is_refused(time_ns) -> None:
    detector = Detector(KINDS["forecast"]())
    before = detector.snapshot()
    with pytest.raises(ValueError, match="time_ns: "):
        detector.advance(time_ns)
    assert detector.snapshot() == before


def test_there_is_no_verdict_before_the_first_sample_nor_after_a_reset() -> None:
    detector = Detector(KINDS["forecast"]())
    with pytest.raises(ValueError, match=r"verdict: no sample was judged yet"):
        _ = detector.verdict
    saved = detector.snapshot()
    detector.advance(1)
    assert detector.verdict.step == 1
    detector.reset()
    with pytest.raises(ValueError, match="no sample"):
        _ = detector.verdict
    detector.advance(1)
    detector.restore(saved)
    with pytest.raises(ValueError, match="no sample"):
        _ = detector.verdict


def test_a_network_in_integers_advances_too() -> None:
    model = KINDS["forecast"]()
    times, x = models.readings(30, model)
    quantized = quantize(model, (x - model.scaler.mean) / model.scaler.std)
    slow, fast = IntegerDetector(quantized), IntegerDetector(quantized)
    for time_ns, row in zip(times, x, strict=True):
        verdict = slow.step(row, int(time_ns))
        fast.input[:] = row
        fast.advance(int(time_ns))
        assert repr(fast.verdict) == repr(verdict)
    assert fast.table.states.tobytes() == slow.table.states.tobytes()
