"""Parity without torch: recorded PyTorch outputs, the float64 reference, and the kernels."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rnn import Linear, Model, Recurrent, Stepper
from edge_rnn.core.reference import Reference
from tests.core.zoo import ODD_MODELS, model, readings
from tests.support.need import ROOT

GOLDEN = np.load(ROOT / "tests" / "data" / "golden.npz")
CASES = sorted({int(name.split("/")[0]) for name in GOLDEN.files if "/" in name})


def golden_model(index: int) -> Model:
    def tensor(name):
        key = f"{index}/{name}"
        return GOLDEN[key] if key in GOLDEN.files else None

    layers = []
    while tensor(f"weight_ih_l{len(layers)}") is not None:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        layers.append(
            Recurrent(str(GOLDEN[f"{index}/cell"]), *(tensor(f"{name}_l{len(layers)}") for name in names))
        )
    head = [
        Linear(tensor(f"head.{i}.weight"), tensor(f"head.{i}.bias"), str(activation))
        for i, activation in enumerate(GOLDEN[f"{index}/head"])
    ]
    return Model(tuple(layers), tuple(head))


def test_the_recorded_file_is_whole() -> None:
    assert len(CASES) == 10
    assert str(GOLDEN["torch_version"])
    assert {str(GOLDEN[f"{i}/cell"]) for i in CASES} == {"rnn_tanh", "rnn_relu", "lstm", "gru"}


@pytest.mark.parametrize("index", CASES)
def test_recorded_pytorch_outputs_are_reproduced(index) -> None:
    network, x, y = golden_model(index), GOLDEN[f"{index}/x"], GOLDEN[f"{index}/y"]
    assert np.abs(y).max() > 1e-2
    assert np.abs(Reference(network).run(x) - y).max() <= 1e-12
    for numeric in ("F", "U"):
        assert np.abs(Stepper(network, numeric).run(x) - y).max() <= 5e-7


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru"])
def test_saturating_weights_stay_within_the_bound(cell, scale) -> None:
    for inputs, hidden, layers in ((1, 16, 1), (8, 64, 2)):
        network = model(cell, inputs, hidden, layers, inputs, scale=scale)
        if cell == "rnn_tanh" and scale > 1:
            continue  # chaotic: no two roundings agree for long
        xs = readings(2000, inputs)
        exact = Reference(network).run(xs)
        for numeric in ("F", "U"):
            error = np.abs(Stepper(network, numeric).run(xs) - exact).max()
            assert error <= 5e-7 * max(1.0, np.abs(exact).max())


@pytest.mark.parametrize("name", ODD_MODELS)
def test_reference_and_kernel_agree(name) -> None:
    network = ODD_MODELS[name]()
    xs = readings(300, network.input_size)
    exact = Reference(network).run(xs)
    assert np.abs(Stepper(network).run(xs) - exact).max() <= 5e-7 * max(1.0, np.abs(exact).max())


def test_reference_state_is_the_kernels() -> None:
    network = ODD_MODELS["mixed"]()
    reference, stepper = Reference(network), Stepper(network)
    xs = readings(20, 2)
    reference.run(xs)
    stepper.run(xs)
    for index, layer in enumerate(network.layers):
        np.testing.assert_allclose(stepper.hidden(index), reference.h[index], atol=1e-6)
        if layer.cell == "lstm":
            np.testing.assert_allclose(stepper.cell(index), reference.c[index], atol=1e-6)
        else:
            assert reference.c[index] is None
