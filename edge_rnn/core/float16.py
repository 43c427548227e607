"""Weights of two bytes: which numbers they are.

Where a network's weights leave the caches, a step's time is that of moving them; of half the bytes it takes
less (DESIGN.md). The packed matrices are float16 and widened in registers, which is exact, so all arithmetic
stays that of float32: a stepper with float16 weights gives the bits of a float32 one for `rounded(model)`.

Matrices are rounded, to nearest even: w_ih, w_hh, w_hr and the head's. Biases stay float32, because there
are few. A gate with a sigmoid keeps half of each weight (`pack.py`), so there it is w/2 that is rounded. That
gives the float16 nearest to w, except below 2**-13, where float16 runs out of digits: the result is a
multiple of 2**-23 there and not of 2**-24.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from edge_rnn.core.model import Float32, Model, Recurrent

Weights = Literal["f32", "f16"]

# Of each gate in PyTorch's order, how many times larger a weight is than the number that is packed.
_SCALES: dict[str, tuple[float, ...]] = {
    "rnn_tanh": (1.0,),
    "rnn_relu": (1.0,),
    "lstm": (2.0, 2.0, 1.0, 2.0),
    "gru": (2.0, 2.0, 1.0),
}
LARGEST = float(np.finfo(np.float16).max)


def _rounded(weight: Float32, name: str, scale: Float32 | float = 1.0) -> Float32:
    """The matrix with numbers that are float16 once divided by `scale`, a column or one number.

    Raises:
        ValueError: a number is too large for float16.
    """
    if weight.size and not np.abs(weight).max() <= LARGEST:
        row, column = (int(i) for i in np.argwhere(~(np.abs(weight) <= LARGEST))[0])
        raise ValueError(
            f"{name}[{row}, {column}]: {weight[row, column]:g} does not fit into float16, whose largest "
            f'number is {LARGEST:g}; use weights="f32"'
        )
    factor = np.asarray(scale, np.float32)
    result: Float32 = (weight / factor).astype(np.float16).astype(np.float32) * factor
    return result


def _layer(layer: Recurrent, name: str) -> Recurrent:
    scales = np.repeat(np.array(_SCALES[layer.cell], np.float32), layer.hidden_size)[:, None]
    return replace(
        layer,
        w_ih=_rounded(layer.w_ih, f"{name}.w_ih", scales),
        w_hh=_rounded(layer.w_hh, f"{name}.w_hh", scales),
        w_hr=None if layer.w_hr is None else _rounded(layer.w_hr, f"{name}.w_hr"),
    )


def rounded(model: Model) -> Model:
    """`model` with the weights that float16 keeps; its digest (`digest.py`) is another one, mostly.

    Raises:
        ValueError: a weight is beyond +-65504; the message says which.
    """
    return replace(
        model,
        layers=tuple(_layer(y, f"layers[{i}]") for i, y in enumerate(model.layers)),
        head=tuple(
            replace(y, weight=_rounded(y.weight, f"head[{i}].weight")) for i, y in enumerate(model.head)
        ),
    )
