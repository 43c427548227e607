"""WindowStepper gives, at every reading, the model's answer from zeros over the last readings."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rnn import Stepper, WindowStepper
from edge_rnn.core.reference import Reference
from tests.core.zoo import ODD_MODELS, bits, model, readings


@pytest.mark.parametrize("length", [1, 2, 5, 8])
@pytest.mark.parametrize(
    "name", ["lstm-3-7-2-4", "gru-5-20-3-16", "rnn_relu-2-16-1-5", "projection", "mixed"]
)
def test_each_output_is_that_of_the_window_alone(name, length) -> None:
    network = ODD_MODELS[name]()
    xs = readings(30, network.input_size)
    windows = WindowStepper(network, length)
    ys = np.array([windows.step(x) for x in xs])
    for t in range(len(xs)):
        window = xs[max(0, t - length + 1) : t + 1]
        assert bits(ys[t]) == bits(Stepper(network).run(window)[-1])
    np.testing.assert_allclose(ys[-1], Reference(network).run(xs[-length:])[-1], atol=1e-6)
    again = WindowStepper(network, length)
    assert bits(again.run(xs[:11])) == bits(ys[:11])
    assert bits(again.run(xs[11:].astype(np.float64))) == bits(ys[11:])


def test_a_window_starts_from_zeros_not_from_the_rest_state() -> None:
    rested, plain = model("lstm", 3, 20, rest=True), model("lstm", 3, 20)
    xs = readings(6, 3)
    assert bits(WindowStepper(rested, 4).run(xs)) == bits(WindowStepper(plain, 4).run(xs))


def test_reset_forgets_all_readings() -> None:
    windows = WindowStepper(model("gru", 3, 20), 4)
    xs = readings(6, 3)
    first = windows.run(xs)
    windows.reset()
    assert bits(windows.run(xs)) == bits(first)


def test_a_bad_reading_is_refused_and_the_window_unchanged() -> None:
    network = model("gru", 3, 20)
    windows, expected = WindowStepper(network, 4), WindowStepper(network, 4)
    xs = readings(9, 3)
    windows.run(xs[:6])
    expected.run(xs[:6])
    for call, message in (
        (lambda: windows.step([0, np.nan, 0]), r"x\[1\]: expected a finite float32, got nan"),
        (lambda: windows.step([1e300, 0, 0]), "out of float32's range"),
        (lambda: windows.step([1, 2]), r"x: expected shape \(3,\), got \(2,\)"),
        (lambda: windows.run([[1, 2, 3], [1, 2, np.inf]]), r"xs\[1, 2\]: expected a finite float32, got inf"),
        (lambda: WindowStepper(network, 0), "length: expected at least 1 reading, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert bits(windows.run(xs[6:])) == bits(expected.run(xs[6:]))
