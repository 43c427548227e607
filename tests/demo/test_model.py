"""The bundled model: fits the simulator, sees every kind of fault, and is what its script makes."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rnn.core.model import Model
from edge_rnn.core.stepper import Stepper
from edge_rnn.demo.pumps import (
    CHANNELS,
    NOISE,
    PERIOD_NS,
    RATE_HZ,
    InjectedFault,
    Plant,
    clean_readings,
    plan_faults,
    pump_names,
)
from edge_rnn.demo.session import MODEL
from edge_rnn.detect.detector import Detector
from edge_rnn.files.load import load
from tests.support import need

FIRST_NS = 1_800_000_000_000_000_000


@pytest.fixture(scope="module")
def bundled() -> Model:
    return load(need.ROOT / "edge_rnn" / "demo" / MODEL)


def forecasts(model: Model, readings: np.ndarray) -> np.ndarray:
    """One step ahead, in reading units: row t is about reading t+1."""
    assert model.scaler is not None
    scaled = (readings - model.scaler.mean) / model.scaler.std
    return Stepper(model).run(scaled) * model.scaler.std + model.scaler.mean


def test_it_forecasts_an_unseen_pump_almost_as_well_as_the_noise_allows(bundled: Model) -> None:
    readings = clean_readings(4000, seed=4711)
    error = forecasts(bundled, readings)[100:-1] - readings[101:]
    repeating = readings[100:-1] - readings[101:]
    assert (error.std(axis=0) < 1.4 * np.array(NOISE)).all()
    assert (error.std(axis=0) < 0.85 * repeating.std(axis=0)).all()
    assert bundled.inputs == CHANNELS


def test_it_raises_no_alarm_in_ten_minutes_of_health(bundled: Model) -> None:
    detector, steps = Detector(bundled), 600 * RATE_HZ
    out = detector.run(FIRST_NS + PERIOD_NS * np.arange(steps), clean_readings(steps, seed=4712))
    assert not out["alarm"].any()
    assert not out["fault"].any()
    assert np.isfinite(out["score"]).mean() > 0.99


def test_it_sees_every_fault_of_twenty_runs(bundled: Model) -> None:
    detector, names, seconds = Detector(bundled), pump_names(4), 30
    for seed in range(20):
        faults = plan_faults(names, seconds, seed)
        seen = {fault.kind for fault in faults if found(detector, names, seed, fault)}
        assert seen == {"spike", "drift", "stuck"}, f"seed {seed}"


def found(detector: Detector, names: tuple[str, ...], seed: int, fault: InjectedFault) -> bool:
    """Whether an alarm turns on while `fault` is there or up to a second later, and none before."""
    if fault.kind == "silent":
        return False  # nothing arrives, so it is the daemon's clock that finds it
    plant = Plant(names, seed, [fault])
    rows = [dict(plant.step())[fault.pump] for _ in range(fault.end + RATE_HZ)]
    detector.reset()
    out = detector.run(FIRST_NS + PERIOD_NS * np.arange(len(rows)), np.array(rows))
    on = (out["alarm"] > 0) | (out["fault"] > 0).any(axis=1)
    assert not on[: fault.start].any(), f"seed {seed}: a false alarm before the {fault.kind}"
    return bool(on.any())


def test_the_script_in_the_repository_makes_this_model(bundled: Model) -> None:
    need.torch()
    from edge_rnn.demo.make_model import make

    made = make()
    assert made.inputs == bundled.inputs
    assert made.scaler is not None
    assert bundled.scaler is not None
    assert np.allclose(made.scaler.mean, bundled.scaler.mean, rtol=1e-12)
    assert np.allclose(made.scaler.std, bundled.scaler.std, rtol=1e-12)
    assert made.detector is not None
    assert bundled.detector is not None
    assert made.detector.guard == bundled.detector.guard
    assert [s.kind for s in made.detector.scorers] == [s.kind for s in bundled.detector.scorers]
    # Another processor sums in another order, which training amplifies: so not the bits, but what it says.
    readings = clean_readings(2000, seed=4713)
    apart = forecasts(made, readings) - forecasts(bundled, readings)
    assert (apart[100:].std(axis=0) < 0.3 * np.array(NOISE)).all()
