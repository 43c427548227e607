"""The integer step of w8a16, compiled: the formulas of `integers.py`, called by address as the float kernels
are.

`IntegerPacked` puts the constants into an int64 plan and an arena of 32-bit words (integers, or the bits of a
float32). `integer_step` has the signature of the float kernels' step and takes the same state row: h and c of
a layer are int32 words in the places of the float's, y is float32 as ever. So the detector's loop runs on
either.

All integers are int64 here; that nothing would overflow in the widths the C code uses is said in
`integers.py`. A right shift of a negative number rounds down, in Python, Numba and in C as the export checks
it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from edge_rnn.core import activations, fields, simd
from edge_rnn.core import jit as jit_module
from edge_rnn.core import model as model_module
from edge_rnn.core.integers import (
    CELL_BITS,
    GRU_BITS,
    LARGEST,
    TABLE_SIZE,
    UNIT,
    IntegerLayer,
    Quantized,
    tanh_table,
)
from edge_rnn.core.jit import compiled, inlined, jit, source_digest
from edge_rnn.core.layout import StateLayout, address
from edge_rnn.core.model import ACTIVATIONS, CELLS, Float32

# Words of the plan; those of a layer start at LAYER * its index + HEADER.
LAYERS, INPUTS, OUTPUTS, Y, INPUT_SCALE, TABLE, HEAD, HEAD_W, HEAD_SCALE, HEAD_BIAS, ACTIVATION, H_SCALE = (
    range(12)
)
XQ, OLD, INNER, CORE, HEADER = range(12, 17)
CELL, ROWS, UNITS, OUT, BITS, W_X, W_H, M_X, M_H, BIAS, H, C, W_R, M_R, SHIFT_R, LAYER = range(16)

RNN_TANH, RNN_RELU, LSTM, GRU = fields.RNN_TANH, fields.RNN_RELU, fields.LSTM, fields.GRU
RELU, TANH, SIGMOID = fields.RELU, fields.TANH, fields.SIGMOID

# An integer in jitted code, which Numba types.
Whole = Any


class IntegerPacked:
    """The constants of one quantised model for the compiled step; attributes as those of `Packed`.

    plan: int64; weights: the arena, int32 words; layout: of the state row; scratch_size: 32-bit words.
    """

    def __init__(self, quantized: Quantized) -> None:
        model = quantized.model
        self.layout = StateLayout(model)
        arena: list[NDArray[np.int32]] = []
        size = 0

        def add(values: NDArray[np.generic]) -> int:
            nonlocal size
            start = size
            words = values.view(np.int32) if values.dtype == np.float32 else values.astype(np.int32)
            arena.append(words.ravel())
            size += words.size
            return start

        inputs = model.input_size
        widest = max(layer.output_size for layer in model.layers)
        plan = np.zeros(HEADER + LAYER * len(model.layers), np.int64)
        plan[[LAYERS, INPUTS, Y]] = len(model.layers), inputs, self.layout.y_offset
        plan[INPUT_SCALE], plan[TABLE] = add(quantized.input_scale), add(tanh_table())
        plan[OUTPUTS] = model.output_size
        if quantized.head is not None:
            head = quantized.head
            plan[HEAD], plan[ACTIVATION] = 1, ACTIVATIONS.index(head.activation)
            plan[HEAD_W], plan[HEAD_SCALE], plan[HEAD_BIAS] = (
                add(head.weight),
                add(head.scale),
                add(head.bias),
            )
        plan[H_SCALE] = add(np.array([quantized.layers[-1].h_scale], np.float32))
        plan[XQ], plan[OLD], plan[INNER] = 0, max(inputs, widest), max(inputs, widest) + widest
        plan[CORE] = self.layout.core_size
        units = max(layer.hidden_size for layer in model.layers)
        self.scratch_size = int(plan[INNER]) + units
        for i, (layer, place) in enumerate(zip(quantized.layers, self.layout.layers, strict=True)):
            record = plan[HEADER + LAYER * i :][:LAYER]
            record[[CELL, ROWS, UNITS, OUT, BITS, SHIFT_R]] = (
                CELLS.index(layer.cell), layer.input_size, layer.hidden_size, layer.output_size, layer.bits,
                layer.shift_r,
            )  # fmt: skip
            record[[H, C]] = place.h_offset, place.c_offset
            record[[W_X, W_H, M_X, M_H, BIAS]] = (
                add(layer.w_x), add(layer.w_h), add(layer.m_x), add(layer.m_h), add(layer.bias)
            )  # fmt: skip
            record[W_R] = -1
            if layer.w_r is not None and layer.m_r is not None:
                record[W_R], record[M_R] = add(layer.w_r), add(layer.m_r)
        self.plan = plan
        self.weights = np.concatenate(arena)
        self.plan.setflags(write=False)
        self.weights.setflags(write=False)

    def row(self, quantized: Quantized, core: Float32) -> Float32:
        """A float core row (core_size,) as the integer step's: each h and c to the nearest step, limited."""
        result = core.copy()
        words = result.view(np.int32)
        for layer, place in zip(quantized.layers, self.layout.layers, strict=True):
            h = slice(place.h_offset, place.h_offset + place.h_size)
            words[h] = _nearest(core[h] / h_unit(layer), *_limits(layer))
            if place.c_size:
                c = slice(place.c_offset, place.c_offset + place.c_size)
                words[c] = _nearest(core[c].astype(np.float64) * 2.0**CELL_BITS, -(2**30), 2**30 - 1)
        return result

    def core(self, quantized: Quantized, row: Float32) -> Float32:
        """The inverse of `row`: h and c in float32."""
        result = row.copy()
        words = row.view(np.int32)
        for layer, place in zip(quantized.layers, self.layout.layers, strict=True):
            h = slice(place.h_offset, place.h_offset + place.h_size)
            result[h] = words[h] * h_unit(layer)
            if place.c_size:
                c = slice(place.c_offset, place.c_offset + place.c_size)
                result[c] = words[c] / 2.0**CELL_BITS
        return result


def h_unit(layer: IntegerLayer) -> float:
    """What one step of the layer's stored h is worth: a gru keeps it finer than the products read it."""
    return 2.0**-GRU_BITS if layer.cell == "gru" else layer.h_scale


def _limits(layer: IntegerLayer) -> tuple[int, int]:
    return (-(2**GRU_BITS), 2**GRU_BITS) if layer.cell == "gru" else (-LARGEST - 1, LARGEST)


def _nearest(values: NDArray[np.floating[Any]], low: int, high: int) -> NDArray[np.int32]:
    return np.clip(np.rint(values.astype(np.float64)), low, high).astype(np.int32)


def _pointer_to(element: Any) -> Any:
    """An intrinsic int64 -> pointer to the Numba type `element`."""

    @intrinsic  # type: ignore[untyped-decorator]
    def pointer(typing_context: Any, address: Any) -> Any:  # noqa: ARG001  (Numba's calling convention)
        result = types.CPointer(element)  # type: ignore[attr-defined]

        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(result))

        return result(types.int64), generate

    return pointer


_i4, _i8, _f4 = (_pointer_to(t) for t in (types.int32, types.int64, types.float32))


@inlined
def _ints(address: int, at: int, size: int) -> NDArray[np.int32]:
    return numba.carray(_i4(address + 4 * at), size)  # type: ignore[no-any-return]


@inlined
def _words(address: int, at: int, size: int) -> NDArray[np.int64]:
    return numba.carray(_i8(address + 8 * at), size)  # type: ignore[no-any-return]


@inlined
def _floats(address: int, at: int, size: int) -> Float32:
    return numba.carray(_f4(address + 4 * at), size)  # type: ignore[no-any-return]


@jit
def _dot(a: NDArray[np.int32], start: int, b: NDArray[np.int32], size: int) -> Whole:
    total = np.int32(0)
    for k in range(size):
        total += np.int32(a[start + k] * b[k])
    return np.int64(total)


@jit
def _lookup(v: Whole, bits: Whole, table: NDArray[np.int32]) -> Whole:
    """v in steps of 2^-bits of the table's: a line drawn between two entries, all bits inverted for v < 0."""
    most = (np.int64(TABLE_SIZE - 1) << bits) - 1
    sign = np.int64(v) >> 63
    a = min(np.int64(v) ^ sign, most)
    i, r = a >> bits, a & ((np.int64(1) << bits) - 1)
    low = np.int64(table[i])
    return (low + (((np.int64(table[i + 1]) - low) * r) >> bits)) ^ sign


@jit
def _tanh(v: Whole, bits: Whole, table: NDArray[np.int32]) -> Whole:
    """Q`bits` -> Q15; 32 entries of the table are 1."""
    return _lookup(v, bits - 5, table)


@jit
def _sigmoid(v: Whole, bits: Whole, table: NDArray[np.int32]) -> Whole:
    """Q`bits` -> Q15, 0..32768."""
    return UNIT // 2 + ((_lookup(v, bits - 4, table) + 1) >> 1)


_ROUND = np.float32(activations.ROUND)
_P = tuple(np.float32(v) for v in activations.TANH_P)
_Q = tuple(np.float32(v) for v in activations.TANH_Q)


@jit
def _tanh_float(value: np.float32) -> np.float32:
    """T of `activations.py` in class U."""
    x = max(min(value, np.float32(8)), np.float32(-8))
    s = x * x
    p = _P[4] * s + _P[3]
    p = p * s + _P[2]
    p = p * s + _P[1]
    p = p * s + _P[0]
    q = _Q[4] * s + _Q[3]
    q = q * s + _Q[2]
    q = q * s + _Q[1]
    q = q * s + _Q[0]
    return np.float32((x * p) / q)


@jit
def _activated(y: np.float32, kind: int) -> np.float32:
    if kind == RELU:
        return np.float32(0) if y < np.float32(0) else y
    if kind == TANH:
        return _tanh_float(y)
    if kind == SIGMOID:
        return np.float32(_tanh_float(np.float32(y * np.float32(0.5))) * np.float32(0.5) + np.float32(0.5))
    return y


@jit
def _layer(
    r: NDArray[np.int64], weights: int, state: int, table: NDArray[np.int32], x: NDArray[np.int32],
    old: NDArray[np.int32], inner: NDArray[np.int32],
) -> None:  # fmt: skip
    cell, n_x, units, n_h, bits = r[CELL], r[ROWS], r[UNITS], r[OUT], r[BITS]
    gates = 4 if cell == LSTM else 3 if cell == GRU else 1
    rows = gates * units
    w_x, w_h = _ints(weights, r[W_X], rows * n_x), _ints(weights, r[W_H], rows * n_h)
    m_x, m_h = _ints(weights, r[M_X], rows), _ints(weights, r[M_H], rows)
    bias = _ints(weights, r[BIAS], rows + units)
    h, c = _ints(state, r[H], n_h), _ints(state, r[C], units)
    for k in range(n_h):
        value: Whole = np.int64(h[k])
        if cell == GRU:
            value = min(max((value + 256) >> 9, -UNIT), LARGEST)
        old[k] = np.int32(value)
    for unit in range(units):
        v0: Whole = np.int64(0)
        v1: Whole = np.int64(0)
        v2: Whole = np.int64(0)
        v3: Whole = np.int64(0)
        for gate in range(gates):
            row = gate * units + unit
            a = (_dot(w_x, row * n_x, x, n_x) * m_x[row]) >> 16
            b = (_dot(w_h, row * n_h, old, n_h) * m_h[row]) >> 16
            if cell == GRU and gate == 2:
                v2 = a + bias[row]
                v3 = b + bias[row + units]
            else:
                v = a + b + bias[row]
                if gate == 0:
                    v0 = v
                elif gate == 1:
                    v1 = v
                elif gate == 2:
                    v2 = v
                else:
                    v3 = v
        if cell == LSTM:
            i, f = _sigmoid(v0, bits, table), _sigmoid(v1, bits, table)
            g, o = _tanh(v2, bits, table), _sigmoid(v3, bits, table)
            new: Whole = ((f * np.int64(c[unit]) + 16384) >> 15) + ((i * g + 128) >> 8)
            new = min(max(new, -(1 << 30)), (1 << 30) - 1)
            c[unit] = np.int32(new)
            out = (o * _tanh(new, CELL_BITS, table) + 16384) >> 15
            if r[W_R] >= 0:
                inner[unit] = np.int32(out)
            else:
                h[unit] = np.int32(out)
        elif cell == GRU:
            reset, z = _sigmoid(v0, bits, table), _sigmoid(v1, bits, table)
            n = _tanh(v2 + ((reset * v3 + 16384) >> 15), bits, table)
            h[unit] = np.int32(((UNIT - z) * (n * 512) + z * np.int64(h[unit]) + 16384) >> 15)
        elif cell == RNN_RELU:
            h[unit] = np.int32(min(max(v0, 0), LARGEST))
        else:
            h[unit] = np.int32(_tanh(v0, bits, table))
    if r[W_R] >= 0:
        w_r, m_r = _ints(weights, r[W_R], n_h * units), _ints(weights, r[M_R], n_h)
        half = np.int64(1) << (r[SHIFT_R] - 1)
        for k in range(n_h):
            value = (_dot(w_r, k * units, inner, units) * m_r[k] + half) >> r[SHIFT_R]
            h[k] = np.int32(min(max(value, -LARGEST), LARGEST))


@jit
def integer_step(plan: int, weights: int, state: int, scratch: int, x: int) -> None:
    """One step: x float32 (I,), finite; h and c in the row as integers, y (O,) as float32 at its place."""
    p = _words(plan, 0, HEADER)
    inputs = p[INPUTS]
    values, scale = _floats(x, 0, inputs), _floats(weights, p[INPUT_SCALE], inputs)
    table = _ints(weights, p[TABLE], TABLE_SIZE)
    widest = p[OLD]
    xq = _ints(scratch, p[XQ], widest)
    old, inner = _ints(scratch, p[OLD], p[INNER] - p[OLD]), _ints(scratch, p[INNER], 1)
    for k in range(inputs):
        t = np.float32(values[k] * scale[k])
        if not t > np.float32(-LARGEST):
            t = np.float32(-LARGEST)
        t = min(t, np.float32(LARGEST))
        xq[k] = np.int32(np.float32(t + _ROUND) - _ROUND)
    for index in range(p[LAYERS]):
        r = _words(plan, HEADER + LAYER * index, LAYER)
        _layer(r, weights, state, table, xq, old, inner)
        h = _ints(state, r[H], r[OUT])
        for k in range(r[OUT]):
            value: Whole = np.int64(h[k])
            if r[CELL] == GRU:
                value = min(max((value + 256) >> 9, -UNIT), LARGEST)
            xq[k] = np.int32(value)
    last = _words(plan, HEADER + LAYER * (p[LAYERS] - 1), LAYER)
    outputs, n = p[OUTPUTS], last[OUT]
    y = _floats(state, p[Y], outputs)
    if p[HEAD]:
        w = _ints(weights, p[HEAD_W], outputs * n)
        factor, bias = _floats(weights, p[HEAD_SCALE], outputs), _floats(weights, p[HEAD_BIAS], outputs)
        for k in range(outputs):
            total = np.float32(np.float32(np.int32(_dot(w, k * n, xq, n))) * factor[k])
            y[k] = _activated(np.float32(total + bias[k]), p[ACTIVATION])
    else:
        unit = _floats(weights, p[H_SCALE], 1)[0]
        for k in range(outputs):
            y[k] = np.float32(np.float32(xq[k]) * unit)


def source_key() -> str:
    """Digest of everything that decides this code, for the key of code that calls `integer_step`."""
    modules = (activations, fields, jit_module, model_module, simd)
    return f"w8a16 sources={source_digest(__file__, *(str(m.__file__) for m in modules))}"


@functools.cache
def integer_run() -> Callable[[int], int]:
    """`run(words)`: T steps of one row, compiled.

    words: the addresses of plan, weights, state, scratch, xs, ys; T; I; where to keep the state rows, or 0.
    """

    def run(words: int) -> int:
        a = _words(words, 0, 9)
        inputs, outputs, y = a[7], _words(a[0], OUTPUTS, 1)[0], _words(a[0], Y, 1)[0]
        size = _words(a[0], CORE, 1)[0]
        for t in range(a[6]):
            integer_step(a[0], a[1], a[2], a[3], a[4] + 4 * t * inputs)
            said, out = _floats(a[2], y, outputs), _floats(a[5], t * outputs, outputs)
            for k in range(outputs):
                out[k] = said[k]
            if a[8]:
                row, kept = _ints(a[2], 0, size), _ints(a[8], t * size, size)
                for k in range(size):
                    kept[k] = row[k]
        return 0

    return compiled(run, "int64(int64)", source_key())


def run_rows(
    packed: IntegerPacked, row: Float32, xs: Float32, *, keep: bool = False
) -> tuple[Float32, NDArray[np.int32]]:
    """Step `row` through xs (T, I), finite: y (T, O), and with `keep` the state row after each step."""
    ys = np.empty((len(xs), int(packed.plan[OUTPUTS])), np.float32)
    kept = np.empty((len(xs) if keep else 0, packed.layout.core_size), np.int32)
    scratch = np.zeros(packed.scratch_size, np.int32)
    arrays: tuple[NDArray[Any], ...] = (packed.plan, packed.weights, row, scratch, xs, ys)
    where = [*(address(a) for a in arrays), len(xs), xs.shape[1], address(kept) if keep else 0]
    words = np.array(where, np.int64)
    integer_run()(address(words))
    return ys, kept


def trajectory(
    quantized: Quantized, xs: Float32, stretch: int
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Through xs (T, I), from rest every `stretch` steps: per layer h as products read it, before and after
    each step, float64 (T, P) each."""
    packed = IntegerPacked(quantized)
    rest = packed.row(quantized, packed.layout.rest(quantized.model))
    before: list[NDArray[np.int32]] = []
    after: list[NDArray[np.int32]] = []
    for start in range(0, len(xs), stretch):
        row = rest.copy()
        _, kept = run_rows(packed, row, xs[start : start + stretch], keep=True)
        before += [rest.view(np.int32)[None], kept[:-1]]
        after.append(kept)
    rows = np.vstack(before), np.vstack(after)
    found: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for layer, place in zip(quantized.layers, packed.layout.layers, strict=True):
        pair = []
        for words in rows:
            h = words[:, place.h_offset : place.h_offset + place.h_size].astype(np.int64)
            if layer.cell == "gru":
                h = np.clip((h + 256) >> 9, -UNIT, LARGEST)
            pair.append(h * np.float64(layer.h_scale))
        found.append((pair[0], pair[1]))
    return found
