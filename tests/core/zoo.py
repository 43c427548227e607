"""Models for the kernel's tests: every cell, odd shapes, made without torch."""

from __future__ import annotations

import numpy as np

from edge_rnn.core.model import GATES, Linear, Model, Recurrent, RestState

VARIANTS = [(lanes, numeric) for numeric in ("F", "U") for lanes in (4, 8, 16)]


def uniform(rng, shape, bound):
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def recurrent(rng, cell, inputs, hidden, *, bias=True, proj=0, scale=1.0):
    """A layer with PyTorch's default initialisation, times `scale`."""
    gates, bound = GATES[cell], scale / np.sqrt(hidden)
    outputs = proj or hidden
    return Recurrent(
        cell,
        uniform(rng, (gates * hidden, inputs), bound),
        uniform(rng, (gates * hidden, outputs), bound),
        uniform(rng, gates * hidden, bound) if bias else None,
        uniform(rng, gates * hidden, bound) if bias else None,
        uniform(rng, (proj, hidden), bound) if proj else None,
    )


def linear(rng, inputs, outputs, activation="none", *, bias=True):
    bound = 1 / np.sqrt(inputs)
    return Linear(
        uniform(rng, (outputs, inputs), bound), uniform(rng, outputs, bound) if bias else None, activation
    )


def model(
    cell="lstm", inputs=3, hidden=7, layers=1, outputs=2, *, bias=True, proj=0, head=None, scale=1.0, seed=0,
    rest=False,
):  # fmt: skip
    """A model of equal layers; `head` is a list of (outputs, activation), default one plain Linear."""
    rng = np.random.default_rng(seed)
    stack = []
    size = inputs
    for _ in range(layers):
        stack.append(recurrent(rng, cell, size, hidden, bias=bias, proj=proj, scale=scale))
        size = stack[-1].output_size
    return Model(
        tuple(stack), _head(rng, size, outputs, head, bias), rest_state=_rest(rng, stack) if rest else None
    )


def mixed(seed=0):
    """Different cells and sizes per layer, a projection inside, two head layers."""
    rng = np.random.default_rng(seed)
    stack = (
        recurrent(rng, "gru", 2, 5),
        recurrent(rng, "lstm", 5, 18, proj=3),
        recurrent(rng, "rnn_relu", 3, 33),
        recurrent(rng, "rnn_tanh", 33, 4, bias=False),
    )
    return Model(stack, (linear(rng, 4, 19, "sigmoid"), linear(rng, 19, 3, "softmax", bias=False)))


def _head(rng, size, outputs, head, bias):
    result = []
    for columns, activation in [(outputs, "none")] if head is None else head:
        result.append(linear(rng, size, columns, activation, bias=bias))
        size = columns
    return tuple(result)


def _rest(rng, stack):
    return RestState(
        tuple(uniform(rng, layer.output_size, 0.5) for layer in stack),
        tuple(uniform(rng, layer.hidden_size, 0.5) if layer.cell == "lstm" else None for layer in stack),
    )


def readings(count, inputs, seed=1):
    return np.random.default_rng(seed).standard_normal((count, inputs)).astype(np.float32)


def bits(array):
    """An array's float32 words: -0 differs from +0 and a NaN equals itself."""
    return np.ascontiguousarray(array, np.float32).view(np.uint32).tolist()


CELLS = ("rnn_tanh", "rnn_relu", "lstm", "gru")

# H below, at and above every vector width; O at and around 1, 4 and 16; one to three layers.
SHAPES = [(1, 1, 1, 1), (3, 7, 2, 4), (2, 16, 1, 5), (5, 20, 3, 16), (4, 33, 2, 17)]

ODD_MODELS = {
    **{
        f"{cell}-{i}-{h}-{n}-{o}": (lambda cell=cell, i=i, h=h, n=n, o=o: model(cell, i, h, n, o, seed=h))
        for cell in CELLS
        for i, h, n, o in SHAPES
    },
    "projection": lambda: model("lstm", 3, 20, 2, 4, proj=5),
    "projection-17": lambda: model("lstm", 3, 33, 3, 1, proj=17, bias=False),
    "mixed": mixed,
    "no-head": lambda: model("gru", 2, 17, 1, head=[]),
    "saturating": lambda: model("lstm", 3, 33, 2, 3, scale=3.0),
    "heads": lambda: model("gru", 2, 9, head=[(17, "relu"), (33, "tanh"), (5, "softmax")]),
    "rest": lambda: model("lstm", 3, 20, 2, 4, rest=True),
}
