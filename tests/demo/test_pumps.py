"""The simulated pumps: repeatable, plausible, and faulty exactly where they should be."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rnn.demo.pumps import (
    CHANNELS,
    DRIFT_C_PER_S,
    PRESSURE,
    RATE_HZ,
    SURGE_BAR,
    TEMPERATURE,
    Plant,
    clean_readings,
    plan_faults,
    pump_names,
    shortest_run,
)


def played(plant: Plant, steps: int) -> dict[str, np.ndarray]:
    """(steps, 3) readings of each pump, NaN where it was silent."""
    out = {pump: np.full((steps, len(CHANNELS)), np.nan) for pump in plant.pumps}
    for step in range(steps):
        for pump, values in plant.step():
            out[pump][step] = values
    return out


def test_the_same_seed_gives_the_same_readings_and_another_one_others() -> None:
    names = pump_names(3)
    first, again, other = (played(Plant(names, seed), 200) for seed in (5, 5, 6))
    for name in names:
        assert np.array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])
    assert not np.array_equal(first["pump1"], first["pump2"])


def test_a_healthy_pump_stays_in_its_range_and_never_repeats_itself_for_long() -> None:
    readings = clean_readings(20_000, seed=3)
    assert np.isfinite(readings).all()
    low, high = readings.min(axis=0), readings.max(axis=0)
    assert (low > [0.5, 46.0, 5.6]).all()
    assert (high < [6.5, 59.0, 8.6]).all()
    # The cycle is what makes it hard for a fixed limit: it is far wider than the sensors' noise.
    assert (readings.std(axis=0) > 0.6).all()
    for channel in range(len(CHANNELS)):
        changes = np.flatnonzero(np.diff(readings[:, channel]))
        assert np.diff(changes).max() < 6


@given(seed=st.integers(0, 1000), pumps=st.integers(1, 6), seconds=st.integers(20, 120))
def test_faults_change_what_they_should_and_nothing_else(seed: int, pumps: int, seconds: int) -> None:
    seconds = max(seconds, int(shortest_run(pumps)))
    names, steps = pump_names(pumps), seconds * RATE_HZ
    faults = plan_faults(names, seconds, seed)
    assert {fault.kind for fault in faults} == {"spike", "drift", "stuck", "silent"}
    assert all(0 < fault.start < fault.end <= steps for fault in faults)
    if pumps >= len(faults):
        assert len({fault.pump for fault in faults}) == len(faults)
    healthy, faulty = played(Plant(names, seed), steps), played(Plant(names, seed, faults), steps)
    expected = {pump: values.copy() for pump, values in healthy.items()}
    for fault in faults:
        rows, values = slice(fault.start, fault.end), expected[fault.pump]
        match fault.kind:
            case "spike":
                values[rows, PRESSURE] += SURGE_BAR
            case "drift":
                values[rows, TEMPERATURE] += DRIFT_C_PER_S / RATE_HZ * np.arange(1, fault.steps + 1)
            case "stuck":
                values[rows, PRESSURE] = values[fault.start - 1, PRESSURE]
            case "silent":
                values[rows] = np.nan
    for pump in names:
        assert np.allclose(faulty[pump], expected[pump], rtol=0, atol=0.0051, equal_nan=True)


@pytest.mark.parametrize("pumps", [1, 2, 4])
def test_faults_of_one_pump_come_well_apart(pumps: int) -> None:
    for seed in range(20):
        faults = plan_faults(pump_names(pumps), shortest_run(pumps), seed)
        for before, after in pairwise(faults):
            if before.pump == after.pump:
                assert after.start - before.end >= 3 * RATE_HZ
