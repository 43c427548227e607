"""The networks the benchmarks step: PyTorch's default initialisation, H -> I head, as forecasters have."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rnn.core.model import GATES, Linear, Model, Recurrent

SHAPES = [(1, 16, 1), (4, 32, 1), (8, 64, 1), (8, 64, 2), (16, 128, 2)]


def forecaster(cell: str, inputs: int, hidden: int, layers: int) -> Model:
    """A random network of the given size that forecasts its inputs."""
    rng = np.random.default_rng(0)

    def uniform(*shape: int) -> np.ndarray:
        return rng.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(hidden))

    rows = GATES[cell] * hidden
    stack = tuple(
        Recurrent(
            cell, uniform(rows, hidden if i else inputs), uniform(rows, hidden), uniform(rows), uniform(rows)
        )
        for i in range(layers)
    )
    return Model(stack, (Linear(uniform(inputs, hidden), uniform(inputs)),))


@pytest.fixture(params=[(cell, *shape) for cell in ("lstm", "gru") for shape in SHAPES], ids=str)
def network(request) -> Model:
    """Each cell in each shape (I, H, L)."""
    return forecaster(*request.param)
