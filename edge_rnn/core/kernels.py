"""The cells, the head, one step, and the loop over steps or rows: allocation-free, called by address.

Every function takes constants, state, scratch, input, output in this order, as int64 addresses. One
kernel per cell with all sizes from the plan: nothing is compiled per model. `kernels(lanes, fused, half)`
makes the functions for one vector width, numeric class and kind of weights; these are constants of the code.
Weights that are float16 (half) are widened when they are loaded; nothing else differs.

**Order of every sum** (the bits depend on it, the vector width does not enter it): for a unit and a gate,
chain A starts with the bias, takes the input rows, then the even rows of h; chain B starts with +0 and
takes the odd rows of h; z = A + B. Rows of a Linear or a projection: 16 partial sums, number j takes the
terms j, j+16, ... of the row padded with +0 to a multiple of 16; then the tree
s[j] + s[j+n] for n = 8, 4, 2, 1; then + bias (+0 where there is none).

h is written in place. Where a layer has more than one block of units, the blocks still to come need the
old h, so it is copied to scratch first; an lstm with projection reads h in all blocks before the
projection writes it, so nothing is copied there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from edge_rnn.core import activations as activations_module
from edge_rnn.core import arrays as arrays_module
from edge_rnn.core import entries as entries_module
from edge_rnn.core import fields as at
from edge_rnn.core import header, simd
from edge_rnn.core import jit as jit_module
from edge_rnn.core import model as model_module
from edge_rnn.core import pairs as pairs_module
from edge_rnn.core import products as products_module
from edge_rnn.core import runs as runs_module
from edge_rnn.core import sums as sums_module
from edge_rnn.core.activations import activations
from edge_rnn.core.arrays import fits
from edge_rnn.core.entries import DONE, UNFIT
from edge_rnn.core.jit import EntryPoint, inlined, jit, source_digest
from edge_rnn.core.pairs import build_pairs
from edge_rnn.core.products import build_dense, weight_load
from edge_rnn.core.runs import build_run
from edge_rnn.core.simd import Address
from edge_rnn.core.sums import row_products

StepFunction = Callable[[Address, Address, Address, Address, Address], None]


@dataclass(frozen=True, slots=True, eq=False)
class Kernels:
    """Jitted functions for one vector width and numeric class.

    Attributes:
        lanes: units per block; pack the model with the same number.
        fused: class F, else U.
        half: weights are float16; pack the model so.
        key: digest of everything that decides this code; put it into the key of code that calls `step`.
        step: step(plan, weights, state, scratch, x) for use in other jitted code. x float32 (I,), finite;
            updates h and c in the state row and writes y (O,) at its place in the row.
        drive: drive(table, x) as an entry point, see `StepLoop.table` in `loop.py`: T steps of one
            row, or one step each of many. Where the table has no address of the inputs, x is the `id` of an
            object, which must be a NumPy array as the table describes it. Returns DONE; or UNFIT where x is
            anything else, or its numbers do not lie side by side; or the flat index of the first input
            that is not finite. Unless DONE, nothing was stepped.
    """

    lanes: int
    fused: bool
    half: bool
    key: str
    step: StepFunction
    drive: EntryPoint


def _sources() -> str:
    modules = (
        activations_module, arrays_module, at, entries_module, header, jit_module, model_module, pairs_module,
        products_module, runs_module, simd, sums_module,
    )  # fmt: skip
    return source_digest(__file__, *(str(m.__file__) for m in modules))


def _build_step(lanes: int, fused: bool, half: bool = False) -> StepFunction:
    N = lanes
    V = (2 if half else 4) * N  # bytes of a vector of weights
    store, store_float, load_float, load_int, tree = (
        simd.store, simd.store_float, simd.load_float, simd.load_int, simd.tree,
    )  # fmt: skip
    vectors, math, functions = simd.vector_access(lanes), simd.vector_math(fused), activations(fused)
    load, splat, zero = vectors.load, vectors.splat, vectors.zero
    fma, add, sub, div = math.fma, math.add, math.sub, math.div
    tanh, sigmoid, exp, relu = functions.tanh, functions.sigmoid, functions.exp, functions.relu
    wide = simd.vector_access(16)
    load16, spread16, zero16 = wide.load, wide.spread, wide.zero
    weight, dense, pairs = weight_load(lanes, half), build_dense(fused, half), build_pairs(lanes, fused, half)
    lstm_sums, lstm_cell, gru_sums, gru_cell = (
        pairs.lstm_sums, pairs.lstm_cell, pairs.gru_sums, pairs.gru_cell,
    )  # fmt: skip
    row4, row3 = row_products(lanes, fused, 4, half), row_products(lanes, fused, 3, half)
    # Two blocks together keep 16 sums: 32 registers of their width are there where 16 lanes are chosen.
    paired = lanes == 16

    @jit
    def rnn(
        w: Address, x: Address, n_x: int, h: Address, n_h: int, new_h: Address, blocks: int, is_relu: bool
    ) -> None:
        for block in range(blocks):
            a = load(w, 0)
            b = zero()
            w += 4 * N
            for j in range(n_x):
                a = fma(splat(x, j), weight(w, 0), a)
                w += V
            for k in range(0, n_h - 1, 2):
                a = fma(splat(h, k), weight(w, 0), a)
                b = fma(splat(h, k + 1), weight(w, N), b)
                w += 2 * V
            if n_h & 1:
                a = fma(splat(h, n_h - 1), weight(w, 0), a)
                w += V
            z = add(a, b)
            if is_relu:
                store(new_h, block * N, relu(z))
            else:
                store(new_h, block * N, tanh(z))

    @jit
    def lstm(
        w: Address, x: Address, n_x: int, h: Address, n_h: int, c: Address, new_h: Address, blocks: int
    ) -> None:
        for block in range(blocks):
            a, b = (load(w, 0), load(w, N), load(w, 2 * N), load(w, 3 * N)), (zero(), zero(), zero(), zero())
            w += 16 * N
            for k in range(n_x):
                a = row4(w, splat(x, k), a)
                w += 4 * V
            for k in range(0, n_h - 1, 2):
                a, b = row4(w, splat(h, k), a), row4(w + 4 * V, splat(h, k + 1), b)
                w += 8 * V
            if n_h & 1:
                a = row4(w, splat(h, n_h - 1), a)
                w += 4 * V
            z = (add(a[0], b[0]), add(a[1], b[1]), add(a[2], b[2]), add(a[3], b[3]))
            one, one_h = lstm_cell(z, load(c, block * N))
            store(c, block * N, one)
            store(new_h, block * N, one_h)

    @jit
    def gru(w: Address, x: Address, n_x: int, h: Address, n_h: int, new_h: Address, blocks: int) -> None:
        for block in range(blocks):
            a, b = (load(w, 0), load(w, N), load(w, 2 * N)), (zero(), zero(), zero())
            nh = load(w, 3 * N)
            w += 16 * N
            for k in range(n_x):
                a = row3(w, splat(x, k), a)
                w += 3 * V
            nx, a = a[2], (a[0], a[1], nh)
            for k in range(0, n_h - 1, 2):
                a, b = row3(w, splat(h, k), a), row3(w + 3 * V, splat(h, k + 1), b)
                w += 6 * V
            if n_h & 1:
                a = row3(w, splat(h, n_h - 1), a)
                w += 3 * V
            z = (add(a[0], b[0]), add(a[1], b[1]), nx, add(a[2], b[2]))
            store(new_h, block * N, gru_cell(z, load(h, block * N)))

    @jit
    def lstm_pair(w: Address, x: Address, n_x: int, h: Address, n_h: int, c: Address) -> None:
        first, second = lstm_sums(w, x, n_x, h, n_h)
        one, one_h = lstm_cell(first, load(c, 0))
        two, two_h = lstm_cell(second, load(c, N))
        store(c, 0, one)
        store(c, N, two)
        store(h, 0, one_h)
        store(h, N, two_h)

    @jit
    def gru_pair(w: Address, x: Address, n_x: int, h: Address, n_h: int) -> None:
        first, second = gru_sums(w, x, n_x, h, n_h)
        one, two = gru_cell(first, load(h, 0)), gru_cell(second, load(h, N))
        store(h, 0, one)
        store(h, N, two)

    @inlined
    def fill_padding(y: Address, columns: int) -> None:
        for k in range(columns, (columns + 15) & -16):
            store_float(y, k, np.float32(0))

    @jit
    def activate(kind: int, y: Address, columns: int) -> None:
        if kind == at.RELU:
            for k in range(0, columns, 16):
                store(y, k, relu(load16(y, k)))
        elif kind == at.TANH:
            for k in range(0, columns, 16):
                store(y, k, tanh(load16(y, k)))
        elif kind == at.SIGMOID:
            for k in range(0, columns, 16):
                store(y, k, sigmoid(load16(y, k)))
        elif kind == at.SOFTMAX:
            largest = load_float(y, 0)
            for k in range(1, columns):
                if load_float(y, k) > largest:  # noqa: PLR1730 (max() treats a NaN otherwise)
                    largest = load_float(y, k)
            for k in range(0, columns, 16):
                store(y, k, exp(sub(load16(y, k), spread16(largest))))
            fill_padding(y, columns)
            sums = zero16()
            for k in range(0, columns, 16):
                sums = add(sums, load16(y, k))
            total = spread16(tree(sums))
            for k in range(0, columns, 16):
                store(y, k, div(load16(y, k), total))

    @jit
    def step(plan: Address, weights: Address, state: Address, scratch: Address, x: Address) -> None:
        source, rows = x, load_int(plan, at.INPUTS)
        record = plan + 4 * at.HEADER
        for _ in range(load_int(plan, at.LAYERS)):
            cell, blocks, hidden = (
                load_int(record, at.CELL),
                load_int(record, at.BLOCKS),
                load_int(record, at.HIDDEN),
            )
            n_x, n_h, projection = (
                load_int(record, at.ROWS), load_int(record, at.UNITS_OUT), load_int(record, at.PROJECTION),
            )  # fmt: skip
            w = weights + 4 * load_int(record, at.WEIGHTS)
            h, c = state + 4 * load_int(record, at.H), state + 4 * load_int(record, at.C)
            old, new = h, h
            spare = scratch + 4 * load_int(plan, at.OLD)
            pair = blocks == 2 and projection < 0 and cell in (at.LSTM, at.GRU) if paired else False
            if projection >= 0:
                new = spare
            elif blocks > 1 and not pair:
                for k in range(0, n_h, 16):
                    store(spare, k, load16(h, k))
                old = spare
            if paired and pair and cell == at.LSTM:
                lstm_pair(w, source, n_x, h, n_h, c)
            elif paired and pair:
                gru_pair(w, source, n_x, h, n_h)
            elif cell == at.LSTM:
                lstm(w, source, n_x, old, n_h, c, new, blocks)
            elif cell == at.GRU:
                gru(w, source, n_x, old, n_h, new, blocks)
            else:
                rnn(w, source, n_x, old, n_h, new, blocks, cell == at.RNN_RELU)
            if projection >= 0:
                rest = ((hidden + 15) & -16) - blocks * N
                for k in range(rest):
                    store_float(new, blocks * N + k, np.float32(0))
                dense(weights + 4 * projection, new, (hidden + 15) & -16, n_h, h)
            source, rows = h, n_h
            record += 4 * at.LAYER
        y = state + 4 * load_int(plan, at.Y)
        linears = load_int(plan, at.LINEARS)
        for index in range(linears):
            columns = load_int(record, at.COLUMNS)
            target = y
            if index + 1 < linears:
                target = scratch + 4 * load_int(plan, at.WORK_A + (index & 1))
            # The padding first, as a whole: behind the outputs it would take a call of `memset`.
            store(target, ((columns + 15) & -16) - 16, zero16())
            dense(
                weights + 4 * load_int(record, at.DENSE), source, load_int(record, at.ROWS16), columns, target
            )
            kind = load_int(record, at.ACTIVATION)
            if kind:
                activate(kind, target, columns)
                fill_padding(target, columns)
            source = target
            record += 4 * at.LINEAR
        if linears == 0:
            for k in range(0, rows, 16):
                store(y, k, load16(source, k))

    return step


@jit
def _no_run(*_: int) -> bool:
    """In the place of `build_run`'s function for weights that it is not for."""
    return False


@functools.cache
def kernels(lanes: int, fused: bool, half: bool = False) -> Kernels:
    """The kernels for vectors of `lanes` float32 in class F (fused) or U; built once per process.

    Args:
        lanes, fused, half: see `Kernels`.

    Raises:
        ValueError: `lanes` is not 4, 8 or 16.
    """
    if lanes not in (4, 8, 16):
        raise ValueError(f"lanes: expected 4, 8 or 16, got {lanes}")
    step = _build_step(lanes, fused, half)
    run = _no_run if half else build_run(lanes, fused)
    # Part of this loop, small networks take a sixth less time; the detector's loop would lose by it.
    step_inside = inlined(cast(Any, step).__wrapped__)
    load_word, load_int, load_float, load_double, store_float, store_word = (
        simd.load_word, simd.load_int, simd.load_float, simd.load_double, simd.store_float, simd.store_word,
    )  # fmt: skip
    key = f"lanes={lanes} fused={fused} half={half} sources={_sources()}"

    def drive(table: Address, array: Address) -> int:
        plan, weights, scratch = (
            load_word(table, at.PLAN_AT), load_word(table, at.WEIGHTS_AT), load_word(table, at.SCRATCH_AT),
        )  # fmt: skip
        states, row_bytes, row_list = (
            load_word(table, at.STATES_AT), load_word(table, at.ROW_BYTES), load_word(table, at.ROW_LIST),
        )  # fmt: skip
        xs, wide, ys = load_word(table, at.XS_AT), load_word(table, at.WIDE) != 0, load_word(table, at.YS_AT)
        count, steps = load_word(table, at.COUNT), load_word(table, at.STEPS_AT)
        inputs, outputs = load_int(plan, at.INPUTS), load_int(plan, at.OUTPUTS)
        y, own_x = load_int(plan, at.Y), scratch + 4 * load_int(plan, at.X)
        if xs == 0:
            if not fits(table, array, load_word(table, at.ARRAY_DIMENSIONS), count, inputs):
                return UNFIT
            xs = load_word(array + header.DATA, 0)
            wide = load_word(array + header.DTYPE, 0) == load_word(table, at.ARRAY_FLOAT64)
        for k in range(count * inputs):
            value = np.float32(load_double(xs, k)) if wide else load_float(xs, k)
            if value - value != 0:
                return k
        if row_list == 0 and count > 1 and run(plan, weights, states, scratch, xs, wide, ys, count):
            if steps:
                store_word(steps, 0, load_word(steps, 0) + count)
            return DONE
        for t in range(count):
            row = load_word(row_list, t) if row_list else 0
            state = states + row_bytes * row
            if steps:
                store_word(steps, row, load_word(steps, row) + 1)
            x = xs + 4 * t * inputs
            if wide:
                for k in range(inputs):
                    store_float(own_x, k, np.float32(load_double(xs, t * inputs + k)))
                x = own_x
            step_inside(plan, weights, state, scratch, x)
            for k in range(outputs):
                store_float(ys, t * outputs + k, load_float(state, y + k))
        return DONE

    probe = np.zeros(at.WORDS + at.HEADER, np.int64)
    probe[at.PLAN_AT] = probe[at.WORDS :].ctypes.data
    probe[at.SCRATCH_AT] = probe[at.WORDS :].ctypes.data
    probe[at.XS_AT] = probe[at.WORDS :].ctypes.data
    entry = EntryPoint(drive, "int64(int64, int64)", key, probe, DONE, (0,))
    return Kernels(lanes, fused, half, key, step, entry)


def drive(lanes: int, fused: bool) -> EntryPoint:
    """The loop over steps or rows for one vector width and numeric class."""
    return kernels(lanes, fused).drive


def drive_half(lanes: int, fused: bool) -> EntryPoint:
    """The same for float16 weights."""
    return kernels(lanes, fused, half=True).drive
