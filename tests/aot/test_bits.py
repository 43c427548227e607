"""The same bits as the just-in-time compiler's code: networks, batches, detectors, snapshots."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from edge_rnn import Detector, Stepper, StepperBatch, WindowStepper
from edge_rnn.core.detector_spec import GuardSpec, ThresholdSpec
from edge_rnn.core.library import Library
from tests.aot.libraries import described_for
from tests.core.zoo import ODD_MODELS, bits, readings
from tests.detect import models


@pytest.mark.parametrize("name", ODD_MODELS)
def test_steps_runs_batches_and_windows_have_the_compilers_bits(name, library, tmp_path) -> None:
    model = ODD_MODELS[name]()
    opened = Library(described_for(library, model, tmp_path / "library"))
    numeric: Any = opened.numeric
    ours, theirs = Stepper(model, library=opened), Stepper(model, numeric, opened.lanes)
    assert (ours.numeric, ours.lanes) == (opened.numeric, opened.lanes)
    xs = readings(2000, model.input_size)
    assert bits(ours.run(xs[:1500])) == bits(theirs.run(xs[:1500]))
    for x in xs[1500:]:
        assert ours.step(x).tobytes() == theirs.step(x).tobytes()
    assert ours.snapshot() == theirs.snapshot()
    batches = [StepperBatch(model, 70, numeric, opened.lanes), StepperBatch(model, 70, library=opened)]
    some = np.array([3, 0, 69, 3, 7])
    for t in range(3):
        wide = readings(70, model.input_size, seed=t)
        first, second = (batch.step(wide) for batch in batches)
        assert bits(first) == bits(second)
        first, second = (batch.step_some(some, wide[:5].astype(np.float64)) for batch in batches)
        assert bits(first) == bits(second)
    windows = [WindowStepper(model, 5, numeric, opened.lanes), WindowStepper(model, 5, library=opened)]
    assert bits(windows[0].run(xs[:20])) == bits(windows[1].run(xs[:20]))


SPECS = {
    "fixed": {"threshold": ThresholdSpec(kind="fixed", value=4.0)},
    "dspot_ewma": {"threshold": ThresholdSpec(kind="dspot_ewma", value=3.0, initial=1.0, rate=0.02)},
    "dspot": {
        "threshold": ThresholdSpec(
            kind="dspot", value=2.0, initial=1.0, level=0.5, risk=1e-3, window=20, count=100, excess_count=3,
            excess_sum=1.0, excess_squares=0.6,
        )
    },
    "mewma": {"scorers": (models.scorer(3, "mewma"), models.scorer(3, "ewma_z", "input", seed=1))},
    "guard": {
        "guard": GuardSpec(
            low=(-40.0, None, None), high=(60.0, None, None), stuck_after=(3, 3, 3),
            silent_after_ns=5 * 10**9, gap_ns=60 * 10**9, on_gap="reset", on_missing="predict", max_missing=4,
        )
    },
}  # fmt: skip


def hostile(model, count, seed=0):
    """Readings with everything in them: missing and held values, NaN, infinities, standing values, pauses."""
    times, x = models.readings(count, model, seed, spread=1.5)
    rng = np.random.default_rng(seed + 1)
    present = rng.choice([0, 1, 1, 1, 1, 2], x.shape).astype(np.uint8)
    for value in (np.nan, np.inf, -np.inf, 1e300):
        x[rng.integers(0, count, count // 50), rng.integers(0, x.shape[1], count // 50)] = value
    x[100:120] = x[100]
    times[count // 2 :] += 3600 * 10**9
    return times, x, present


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn_tanh"])
def test_verdicts_and_snapshots_are_the_compilers(name, cell, library, tmp_path) -> None:
    model = models.model(3, models.spec(3, **SPECS[name]), cell)
    opened = Library(described_for(library, model, tmp_path / "library"))
    numeric: Any = opened.numeric
    ours, theirs = Detector(model, library=opened), Detector(model, numeric)
    times, x, present = hostile(model, 3000)
    first = [d.run(times[:1500], x[:1500], present[:1500]) for d in (ours, theirs)]
    assert first[0].tobytes() == first[1].tobytes()
    if name == "dspot":
        assert len(np.unique(first[0]["threshold"][~np.isnan(first[0]["threshold"])])) > 10
    assert np.isfinite(first[0]["score"]).sum() > 300
    # Snapshots are exchanged half-way, so each goes on from the other's state.
    mine, other = ours.snapshot(), theirs.snapshot()
    assert mine == other
    ours.restore(other)
    theirs.restore(mine)
    second = [d.run(times[1500:], x[1500:], present[1500:]) for d in (ours, theirs)]
    assert second[0].tobytes() == second[1].tobytes()
    assert ours.snapshot() == theirs.snapshot()
    at = int(times[-1]) + 10**9
    verdicts = [d.step(x[5], at) for d in (ours, theirs)]
    assert repr(verdicts[0]) == repr(verdicts[1])


def test_a_recalibrated_detector_needs_no_new_library(library, tmp_path) -> None:
    model = models.model()
    opened = Library(described_for(library, model, tmp_path / "library"))
    changed = msgspec.structs.replace(model.detector, threshold=ThresholdSpec(kind="fixed", value=0.5))
    other = models.model(detector=changed)
    times, x = models.readings(200, other)
    verdicts = Detector(other, library=opened).run(times, x)
    assert verdicts.tobytes() == Detector(other, opened.numeric).run(times, x).tobytes()
    assert (verdicts["threshold"][10:] == 0.5).all()


def test_wrong_calls_are_refused_by_the_code_itself(library) -> None:
    from edge_rnn.core.entries import DRIVE

    drive = Library(library).code(DRIVE)
    with pytest.raises(TypeError):
        drive(1)
    with pytest.raises(TypeError):
        drive("a", 0)
    with pytest.raises(OverflowError):
        drive(2**64, 0)
