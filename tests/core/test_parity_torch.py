"""The zoo: PyTorch's modules with their default initialisation against our kernels and reference."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rnn import Linear, Model, Recurrent, Stepper
from edge_rnn.core.reference import Reference
from tests.core.zoo import bits
from tests.support import need

STEPS = 5_000
BOUND = 5e-7
CELLS = ("rnn_tanh", "rnn_relu", "lstm", "gru")
SIZES = (1, 3, 7, 16, 33, 64, 100)

# cell, inputs, hidden, layers, bias, projected units. Layers and biases go round, so all pairs occur.
# An rnn_relu's outputs grow with its inputs: 1 or 3 keep them of order 1, the scale of the absolute bound.
ZOO = [
    (
        cell,
        (1, 3)[s % 2] if cell == "rnn_relu" else (1, 3, 8)[(s + c) % 3],
        hidden,
        1 + (s + c + v) % 3,
        (s + v) % 2 == 0,
        0,
    )
    for c, cell in enumerate(CELLS)
    for s, hidden in enumerate(SIZES)
    for v in range(2)
] + [
    ("lstm", 3, hidden, 1 + p % 3, p % 2 == 0, p)
    for hidden, p in ((3, 1), (7, 3), (16, 7), (33, 16), (64, 33), (100, 20), (33, 5), (64, 1))
]


def torch_network(torch, cell, inputs, hidden, layers, bias, proj, seed):
    torch.manual_seed(seed)
    options = {"num_layers": layers, "bias": bias}
    if cell == "lstm":
        stack = torch.nn.LSTM(inputs, hidden, proj_size=proj, **options)
    elif cell == "gru":
        stack = torch.nn.GRU(inputs, hidden, **options)
    else:
        stack = torch.nn.RNN(inputs, hidden, nonlinearity=cell.removeprefix("rnn_"), **options)
    return stack, torch.nn.Linear(proj or hidden, 1 + seed % 18, bias=bias)


def as_model(cell, stack, linear):
    """Our model of the same tensors; a test of its own, so that no reader of files stands between."""
    tensors = {name: value.numpy() for name, value in stack.state_dict().items()}
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    layers = [
        Recurrent(cell, *(tensors.get(f"{kind}_l{index}") for kind in kinds))
        for index in range(stack.num_layers)
    ]
    bias = None if linear.bias is None else linear.bias.detach().numpy()
    return Model(tuple(layers), (Linear(linear.weight.detach().numpy(), bias),))


def test_the_zoo_is_as_large_as_promised() -> None:
    assert len(ZOO) == len(set(ZOO)) >= 60
    assert {case[0] for case in ZOO} == set(CELLS)
    assert {case[2] for case in ZOO} == set(SIZES)
    for cell in CELLS:
        assert {(case[3], case[4]) for case in ZOO if case[0] == cell} >= {
            (n, b) for n in (1, 2, 3) for b in (True, False)
        }


@pytest.mark.parametrize("case", ZOO, ids=lambda case: "-".join(map(str, case)))
def test_five_thousand_carried_steps_agree_with_float64_pytorch(case) -> None:
    torch = need.torch()
    cell, inputs, hidden, layers, bias, proj = case
    seed = ZOO.index(case)
    stack, linear = torch_network(torch, cell, inputs, hidden, layers, bias, proj, seed)
    network = as_model(cell, stack, linear)
    xs = np.random.default_rng(seed).standard_normal((STEPS, inputs)).astype(np.float32)
    with torch.no_grad():
        ys, state = stack.double()(torch.from_numpy(xs).double())
        exact = linear.double()(ys).numpy()
    stepper = Stepper(network)
    ours = stepper.run(xs)
    assert np.abs(ours - exact).max() <= BOUND
    h, c = state if cell == "lstm" else (state, None)
    ours_h, ours_c = stepper.get_state()
    assert np.abs(ours_h - h.numpy()).max() <= BOUND
    assert (c is None) == (ours_c is None)
    if c is not None:
        assert np.abs(ours_c - c.numpy()).max() <= 2 * BOUND  # c is not bounded by 1
    some = xs[:200]
    assert np.abs(Reference(network).run(some) - exact[:200]).max() <= 1e-12


@pytest.mark.parametrize("hidden", [3, 64])
def test_the_bound_of_an_unbounded_cell_is_in_units_of_its_outputs(hidden) -> None:
    torch = need.torch()
    stack, linear = torch_network(torch, "rnn_relu", 8, hidden, 1, True, 0, 28)
    stepper = Stepper(as_model("rnn_relu", stack, linear))
    xs = np.random.default_rng(28).standard_normal((STEPS, 8)).astype(np.float32) * 16
    with torch.no_grad():
        exact = linear.double()(stack.double()(torch.from_numpy(xs).double())[0]).numpy()
    assert np.abs(exact).max() > 2
    assert np.abs(stepper.run(xs) - exact).max() <= BOUND * np.abs(exact).max()


def test_pytorchs_state_is_taken_over_and_given_back() -> None:
    torch = need.torch()
    stack, linear = torch_network(torch, "lstm", 3, 33, 2, True, 5, 1)
    stepper = Stepper(as_model("lstm", stack, linear))
    x = torch.randn(40, 3)
    with torch.no_grad():
        _, (h, c) = stack.double()(x[:20].double())
        h, c = h.float(), c.float()
        expected, (h_end, c_end) = stack(x[20:].double(), (h.double(), c.double()))
        expected = linear.double()(expected).numpy()
    stepper.set_state(h, c)
    assert bits(stepper.get_state().h) == bits(h.numpy())
    assert np.abs(stepper.run(x[20:].numpy()) - expected).max() <= BOUND
    ours_h, ours_c = stepper.get_state()
    assert np.abs(ours_h - h_end.numpy()).max() <= BOUND
    assert np.abs(ours_c - c_end.numpy()).max() <= 2 * BOUND
    stepper.reset()
    stepper.set_state(h[:, None, :], c[:, None, :])
    assert np.abs(stepper.run(x[20:].numpy()) - expected).max() <= BOUND
