"""Makes golden.npz: networks with PyTorch's default initialisation and what PyTorch gave for them.

    python -m tests.data.make_golden

Outputs are computed by PyTorch in float64 from the float32 weights. The file lets parity be checked where
torch is not installed; it names the torch version that made it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).with_name("golden.npz")
STEPS = 150

# cell, inputs, hidden, layers, proj_size, bias, head activations
CASES = [
    ("rnn_tanh", 3, 7, 2, 0, True, ("none",)),
    ("rnn_relu", 2, 16, 1, 0, True, ("sigmoid",)),
    ("rnn_relu", 1, 33, 2, 0, False, ("none",)),
    ("lstm", 1, 1, 1, 0, True, ("none",)),
    ("lstm", 4, 20, 2, 0, True, ("relu", "none")),
    ("lstm", 3, 33, 1, 5, True, ("softmax",)),
    ("lstm", 2, 9, 2, 4, True, ()),
    ("gru", 3, 17, 2, 0, True, ("tanh", "softmax")),
    ("gru", 5, 3, 3, 0, False, ("none",)),
    ("gru", 1, 40, 1, 0, True, ("none",)),
]
ACTIVATIONS = {
    "none": lambda y: y,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softmax": lambda y: torch.softmax(y, -1),
}


def recurrent_module(
    cell: str, inputs: int, hidden: int, layers: int, proj: int, bias: bool
) -> torch.nn.RNNBase:
    """The torch module of one stack."""
    options = {"num_layers": layers, "bias": bias}
    if cell == "lstm":
        return torch.nn.LSTM(inputs, hidden, proj_size=proj, **options)
    if cell == "gru":
        return torch.nn.GRU(inputs, hidden, **options)
    return torch.nn.RNN(inputs, hidden, nonlinearity=cell.removeprefix("rnn_"), **options)


def main() -> None:
    """Write golden.npz beside this file."""
    torch.manual_seed(20261121)
    arrays = {"torch_version": np.array(torch.__version__)}
    for index, (cell, inputs, hidden, layers, proj, bias, head) in enumerate(CASES):
        stack = recurrent_module(cell, inputs, hidden, layers, proj, bias)
        x = torch.randn(STEPS, inputs)
        size, linears = proj or hidden, []
        for position, _ in enumerate(head):
            linears.append(torch.nn.Linear(size, 4 + position))
            size = 4 + position
        arrays[f"{index}/cell"] = np.array(cell)
        arrays[f"{index}/head"] = np.array(head, dtype=str)
        for name, tensor in stack.state_dict().items():
            arrays[f"{index}/{name}"] = tensor.numpy().copy()
        for position, module in enumerate(linears):
            arrays[f"{index}/head.{position}.weight"] = module.weight.detach().numpy().copy()
            arrays[f"{index}/head.{position}.bias"] = module.bias.detach().numpy().copy()
        with torch.no_grad():
            y = stack.double()(x.double())[0]
            for module, activation in zip(linears, head, strict=True):
                y = ACTIVATIONS[activation](module.double()(y))
        arrays[f"{index}/x"], arrays[f"{index}/y"] = x.numpy(), y.numpy()
    np.savez_compressed(GOLDEN, **arrays)


if __name__ == "__main__":
    main()
