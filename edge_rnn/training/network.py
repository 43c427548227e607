"""From a trained forecaster to a `Model` with its proof: self-test, resting state, activation ranges.

The resting state is the mean of each layer's state over the training rows: a stream that starts there is
sooner in step with its sensor than one that starts from zeros, which no running network ever passes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.model import Float32, Model, Recurrent, RestState, SelfTest
from edge_rnn.core.reference import Reference
from edge_rnn.errors import ExportError
from edge_rnn.training.export import tolerance
from edge_rnn.training.extra import torch
from edge_rnn.training.parts import linear, recurrent_layers
from edge_rnn.training.trainer import Forecaster, Rows

SELF_TEST_STEPS = 32
STATE_STEPS = 2000
SMALLEST_TOLERANCE = 5e-7  # model space, where a channel has spread 1; see the numeric contract


def bare_model(network: Forecaster) -> Model:
    """Layers and head only."""
    return Model(layers=tuple(recurrent_layers(network.body)), head=(linear(network.head, "none"),))


def states(network: Forecaster, rows: Rows) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Per layer h (T, H) and, for an lstm, c (T, H) over at most `STATE_STEPS` rows from a zero state."""
    hs: list[list[Float32]] = []
    cs: list[list[Float32]] = []
    state = None
    with torch.no_grad():
        for row in torch.from_numpy(rows.x[:STATE_STEPS]):
            _, state = network.body(row[None, None], state)
            h, c = state if isinstance(state, tuple) else (state, None)
            hs.append(h[:, 0].numpy().copy())
            if c is not None:
                cs.append(c[:, 0].numpy().copy())
    by_layer = np.array(hs, dtype=np.float64).swapaxes(0, 1)
    return list(by_layer), list(np.array(cs, dtype=np.float64).swapaxes(0, 1)) if cs else []


def rest_and_ranges(
    network: Forecaster, layers: Sequence[Recurrent], rows: Rows, burn_in: int
) -> tuple[RestState, tuple[float, ...]]:
    """The mean state after the first `burn_in` steps, and per layer the largest |h| of all steps."""
    hs, cs = states(network, rows)
    start = min(burn_in, len(hs[0]) - 1)
    rest = RestState(
        h=tuple(h[start:].mean(0).astype(np.float32) for h in hs),
        c=tuple(
            cs[i][start:].mean(0).astype(np.float32) if layer.cell == "lstm" else None
            for i, layer in enumerate(layers)
        ),
    )
    return rest, tuple(max(float(np.abs(h).max()), 1e-6) for h in hs)


def self_test(network: Forecaster, model: Model, rest: RestState, rows: Rows) -> SelfTest:
    """What PyTorch gives for the first rows from the resting state, compared with the reference.

    Raises:
        ExportError: our equations do not reproduce PyTorch's outputs.
    """
    x = rows.x[:SELF_TEST_STEPS]
    h = torch.from_numpy(np.stack(rest.h))[:, None]
    c = [part for part in rest.c if part is not None]
    state = (h, torch.from_numpy(np.stack(c))[:, None]) if c else h
    network.eval()
    with torch.no_grad():
        y = np.asarray(network(torch.from_numpy(x)[None], state)[0][0].numpy())
    reference = Reference(model)
    reference.set_state(rest.h, rest.c)
    # Outputs that hardly move for the first steps: their range says nothing about what float32 can hold.
    allowed = max(tolerance(y), SMALLEST_TOLERANCE)
    difference = float(np.abs(reference.run(x) - y).max())
    if not difference <= allowed:
        raise ExportError(
            f"the trained network is not reproduced: largest difference {difference:.3g}, allowed "
            f"{allowed:.3g}; please report this with the PyTorch version {torch.__version__}"
        )
    return SelfTest(x, y, allowed)
