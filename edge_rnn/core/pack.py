"""From a model's tensors to the kernels' order: one plan of integers, one arena of weights.

All constants are computed in float64 and rounded to float32 once. `sigmoid(x) = 0.5 + 0.5 tanh(x/2)`,
so the rows and biases of sigmoid gates (LSTM i f o, GRU r z) are halved here, which is exact. The
biases of a gate are added (`b_ih + b_hh`), except for the GRU's n, which needs them apart.

**Weights of a layer.** For each block of N units (N = the machine's lanes): the biases, one vector of N
per gate; then for every input row j one vector per gate; then for every row k of h one vector per gate.
Gates are in the order LSTM i f g o, GRU r z n (biases: r z, b_in, b_hn), RNN one. The kernel reads
them strictly forward, once a step. Units are padded to N with zeros, rows are not padded.

**Weights of a Linear and of a projection.** The biases padded to 16, then one row per output, padded to
16: the order of the sum is 16 partial sums, whatever N is.

**Weights of two bytes** (`float16.py`): all of these but the biases are float16 then. The arena stays one of
float32 numbers, two of them in the place of one; there is an even number of them in every row.

The plan's fields are named in `fields.py`. Plan and weights depend on N; neither is ever saved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.layout import PAD, StateLayout, aligned, padded
from edge_rnn.core.model import ACTIVATIONS, CELLS, Float32, Float64, Model, Recurrent

# Per cell the factor of each gate, in PyTorch's order: a half for those with a sigmoid.
_GATES: dict[str, tuple[float, ...]] = {
    "rnn_tanh": (1.0,),
    "rnn_relu": (1.0,),
    "lstm": (0.5, 0.5, 1.0, 0.5),
    "gru": (0.5, 0.5, 1.0),
}


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """The constants of one model for one vector width; read-only, shared by all streams.

    Attributes:
        plan: int32, see the module.
        weights: float32 arena, starts at a multiple of 64 bytes.
        layout: the state row's fields.
        scratch_size: float32 numbers a caller lends to a step; their content means nothing between steps.
        lanes: N, the units per block.
    """

    plan: NDArray[np.int32]
    weights: Float32
    layout: StateLayout
    scratch_size: int
    lanes: int


def _layer_bias(layer: Recurrent) -> Float64:
    """Biases (B, H): one row per gate, two for the GRU's n."""
    factors = np.array(_GATES[layer.cell])[:, None]
    size = (len(factors), layer.hidden_size)
    if layer.b_ih is None or layer.b_hh is None:
        return np.zeros((4 if layer.cell == "gru" else len(factors), layer.hidden_size))
    b_ih, b_hh = layer.b_ih.astype(np.float64).reshape(size), layer.b_hh.astype(np.float64).reshape(size)
    both = (b_ih + b_hh) * factors
    return np.vstack([both[:2], b_ih[2:], b_hh[2:]]) if layer.cell == "gru" else both


def _stored(weights: Float64, half: bool) -> Float32:
    """Rounded to float32, or to float16 with two in the place of one."""
    return weights.astype(np.float16).view(np.float32) if half else weights.astype(np.float32)


def _pack_layer(layer: Recurrent, lanes: int, half: bool) -> Float32:
    """All blocks of one layer as one vector."""
    gates, hidden = len(_GATES[layer.cell]), layer.hidden_size
    blocks = -(-hidden // lanes)
    factors = np.array(_GATES[layer.cell])[:, None, None]
    matrix = np.hstack([layer.w_ih, layer.w_hh]).astype(np.float64)
    rows = matrix.reshape(gates, hidden, -1) * factors  # (gate, unit, row)
    units = np.zeros((gates, blocks * lanes, rows.shape[2]))
    units[:, :hidden] = rows
    bias = _layer_bias(layer)
    biases = np.zeros((len(bias), blocks * lanes))
    biases[:, :hidden] = bias
    return np.concatenate(
        [
            np.concatenate(
                [
                    biases[:, b * lanes : (b + 1) * lanes].ravel().astype(np.float32),
                    _stored(units[:, b * lanes : (b + 1) * lanes].transpose(2, 0, 1).ravel(), half),
                ]
            )
            for b in range(blocks)
        ]
    )


def _pack_dense(weight: Float32, bias: Float32 | None, half: bool) -> Float32:
    """Bias (padded to 16), then the rows (O, padded to 16), as one vector."""
    outputs, inputs = weight.shape
    b = np.zeros(padded(outputs))
    if bias is not None:
        b[:outputs] = bias
    rows = np.zeros((outputs, padded(inputs)))
    rows[:, :inputs] = weight
    return np.concatenate([b.astype(np.float32), _stored(rows.ravel(), half)])


def pack(model: Model, lanes: int, half: bool = False) -> Packed:
    """The constants of `model` for vectors of `lanes` float32: 4, 8 or 16, or 1 for an export to C.

    Args:
        model: the network; with `half`, one whose weights are float16 already (`float16.rounded`).
        lanes: N.
        half: store weights as float16; not for N = 1.

    Raises:
        ValueError: another number of lanes.
    """
    if lanes not in ((4, 8, 16) if half else (1, 4, 8, 16)):
        raise ValueError(f"lanes: expected 1, 4, 8 or 16, got {lanes}")
    layout = StateLayout(model)
    arena: list[Float32] = []
    size = 0

    def add(values: Float32) -> int:
        nonlocal size
        start = size
        arena.append(np.pad(values, (0, padded(values.size) - values.size)))
        size += padded(values.size)
        return start

    records: list[int] = []
    for layer, fields in zip(model.layers, layout.layers, strict=True):
        weights = add(_pack_layer(layer, lanes, half))
        projection = -1 if layer.w_hr is None else add(_pack_dense(layer.w_hr, None, half))
        records += [
            CELLS.index(layer.cell), layer.input_size, layer.hidden_size, layer.output_size,
            -(-layer.hidden_size // lanes), weights, fields.h_offset, fields.c_offset, projection,
        ]  # fmt: skip
    for linear in model.head:
        records += [
            padded(linear.input_size), linear.output_size, ACTIVATIONS.index(linear.activation),
            add(_pack_dense(linear.weight, linear.bias, half)),
        ]  # fmt: skip

    units = max(padded(layer.hidden_size) for layer in model.layers)
    work = max((padded(linear.output_size) for linear in model.head), default=PAD)
    header = [
        len(model.layers), len(model.head), model.input_size, model.output_size, layout.y_offset,
        0, units, units + work, units + 2 * work,
    ]  # fmt: skip
    plan = np.array(header + records, np.int32)
    values = aligned(1, size)[0]
    values[:] = np.concatenate(arena)
    plan.setflags(write=False)
    values.setflags(write=False)
    scratch_size = units + 2 * work + padded(model.input_size)
    return Packed(plan, values, layout, scratch_size, lanes)
