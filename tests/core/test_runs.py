"""The loops for small networks (`runs.py`) give the bits of single steps, which take the general way."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rnn import Stepper
from tests.core.zoo import VARIANTS, model, readings

STEPS = 9


def bits(array):
    return np.ascontiguousarray(array, np.float32).view(np.uint32).tolist()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(("lanes", "numeric"), VARIANTS)
def test_runs_of_small_networks_are_steps_bit_for_bit(cell, lanes, numeric) -> None:
    for hidden in (lanes, 17, 24, 31, 32, 33):
        for inputs, outputs in ((1, 1), (3, 4), (2, 6), (1, 17)):
            network = model(cell, inputs, hidden, outputs=outputs, seed=hidden, rest=True)
            xs = readings(STEPS, inputs)
            whole, wide, single = (Stepper(network, numeric, lanes) for _ in range(3))
            expected = bits([single.step(x) for x in xs])
            assert bits(whole.run(xs)) == expected
            assert bits(wide.run(xs.astype(np.float64))) == expected
            assert whole.snapshot() == wide.snapshot() == single.snapshot()
            assert bits(whole.run(xs[:1])) == bits([single.step(xs[0])])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_outputs_that_are_the_next_readings_are_read_after_they_are_written(cell) -> None:
    lanes = Stepper(model(cell)).lanes
    for hidden in (lanes, lanes + 5):
        network = model(cell, 2, hidden, outputs=2)
        closed, by_hand = Stepper(network), Stepper(network)
        closed.step([1.0, -1.0])
        y, expected = by_hand.step([1.0, -1.0]), []
        for _ in range(STEPS):
            y = by_hand.step(y.copy())
            expected.append(y.copy())
        assert bits(closed.forecast(STEPS)) == bits(expected)


def test_an_input_that_is_not_finite_steps_nothing() -> None:
    network = model("lstm", 2, 16, outputs=3)
    stepper, xs = Stepper(network), readings(STEPS, 2)
    before = stepper.snapshot()
    xs[5, 1] = np.inf
    with pytest.raises(ValueError, match=r"xs\[5, 1\].*nothing was stepped"):
        stepper.run(xs)
    assert stepper.snapshot() == before


def test_networks_beside_the_small_ones_take_the_general_loop() -> None:
    heads = [[(3, "tanh")], [(4, "none"), (2, "none")], []]
    for network in [model("lstm", 2, 16, head=h) for h in heads] + [
        model("gru", 2, 16, layers=2), model("lstm", 2, 16, proj=5), model("rnn_tanh", 2, 16),
    ]:  # fmt: skip
        whole, single, xs = Stepper(network), Stepper(network), readings(STEPS, 2)
        assert bits(whole.run(xs)) == bits([single.step(x) for x in xs])
