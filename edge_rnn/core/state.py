"""Between a core row and PyTorch's shapes of h and c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from edge_rnn.core.layout import StateLayout
from edge_rnn.core.loop import numbers
from edge_rnn.core.model import Float32, Model


class State(NamedTuple):
    """h and c of all layers.

    h: (L, H) as PyTorch without the batch ((L, P) with a projection), or a list of one array per layer
        where the sizes differ.
    c: the same for an lstm's cell state; in a model of several kinds of cells a list with None for the
        others; None where no layer is an lstm.
    """

    h: Float32 | list[Float32]
    c: Float32 | list[Float32 | None] | None


def read_state(row: Float32, model: Model, layout: StateLayout) -> State:
    """Copies of h and c in `row`."""
    h = [layout.h(row, i).copy() for i in range(len(model.layers))]
    c = [layout.c(row, i).copy() if r.cell == "lstm" else None for i, r in enumerate(model.layers)]
    cells = [value for value in c if value is not None]
    same_c = len(cells) == len(c) and len({v.size for v in cells}) == 1
    return State(
        np.stack(h) if len({v.size for v in h}) == 1 else h,
        None if not cells else np.stack(cells) if same_c else c,
    )


def write_state(
    h: ArrayLike | Sequence[ArrayLike],
    c: ArrayLike | Sequence[ArrayLike | None] | None,
    model: Model,
    layout: StateLayout,
) -> Float32:
    """A row with this h and c and y = 0.

    Raises:
        ValueError: a shape does not fit or a number is not finite.
    """
    count = len(model.layers)
    row = np.zeros(layout.core_size, np.float32)
    hs = _per_layer(h, "h", count)
    cs: list[ArrayLike | None] = [None] * count if c is None else _per_layer(c, "c", count)
    for index, layer in enumerate(model.layers):
        layout.h(row, index)[:] = _finite(hs[index], layer.output_size, f"h[{index}]")
        if layer.cell == "lstm":
            layout.c(row, index)[:] = _finite(cs[index], layer.hidden_size, f"c[{index}]")
        elif cs[index] is not None:
            raise ValueError(f"c[{index}]: expected None, because a {layer.cell} has no cell state")
    return row


def _per_layer(
    value: ArrayLike | Sequence[ArrayLike | None], name: str, count: int
) -> list[ArrayLike | None]:
    items: list[ArrayLike | None] = (
        list(value) if isinstance(value, list | tuple) else list(np.atleast_1d(np.asarray(value)))
    )
    if len(items) != count:
        raise ValueError(f"{name}: expected {count} layer(s), got {len(items)}")
    return items


def _finite(value: ArrayLike | None, size: int, name: str) -> Float32:
    if value is None:
        raise ValueError(f"{name}: expected {size} numbers, got None")
    array = np.asarray(value)
    if array.ndim == 2 and array.shape[0] == 1:  # PyTorch's (L, 1, H): a batch of one
        array = array[0]
    array = np.asarray(numbers(array, (size,), name))
    with np.errstate(over="ignore"):
        result = array.astype(np.float32)
    if not np.isfinite(result).all():
        raise ValueError(f"{name}: expected finite numbers, got {array[int(np.argmin(np.isfinite(result)))]}")
    return result
