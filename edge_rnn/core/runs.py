"""Many steps in one call of the smallest networks, whose step is shorter than what stands around it.

They have one lstm or gru layer of one whole block of units (as many as lanes) or, at 16 lanes, of two
blocks, and a head of one Linear. The head of a step is taken in the next one, between its sums and its cells,
where the processor waits for the chain of the cells; at the end of its own step it would itself wait for h,
and hold up the next products. Bits are those of the general loop in `kernels.py`, which takes all other
networks.

With one block the chain from h to the next h is all that counts. So the gates needed last are summed last
(the lstm's o, the gru's z), and the first rows take h from the register it was computed in.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_rnn.core import fields as at
from edge_rnn.core import simd
from edge_rnn.core.activations import activations
from edge_rnn.core.jit import inlined, jit
from edge_rnn.core.pairs import build_pairs
from edge_rnn.core.products import build_dense
from edge_rnn.core.simd import Address
from edge_rnn.core.sums import block_sums, row_products, unrelated

# run(plan, weights, state, scratch, xs, wide, ys, count)
Run = Callable[[Address, Address, Address, Address, Address, bool, Address, int], bool]


def build_run(lanes: int, fused: bool) -> Run:
    """run(plan, weights, state, scratch, xs, wide, ys, count): `count` steps of one row, if this file's loops
    are for the network; whether they are. The first four as `kernels.Kernels.step`; xs float32, or float64 if
    wide.
    """
    N = lanes
    pairs_too = lanes == 16
    store, store_float, load_float, load_double, load_int = (
        simd.store, simd.store_float, simd.load_float, simd.load_double, simd.load_int,
    )  # fmt: skip
    vectors, math, functions = simd.vector_access(lanes), simd.vector_math(fused), activations(fused)
    load, splat = vectors.load, vectors.splat
    fma, sub, mul = math.fma, math.sub, math.mul
    tanh, gate = functions.tanh, functions.gate
    pairs = build_pairs(lanes, fused)
    lstm_sums, lstm_cell, gru_sums, gru_cell = (
        pairs.lstm_sums, pairs.lstm_cell, pairs.gru_sums, pairs.gru_cell,
    )  # fmt: skip
    lstm_first, lstm_last = block_sums(lanes, fused, 4, (0, 2, 1)), block_sums(lanes, fused, 4, (3,))
    gru_first, gru_last = block_sums(lanes, fused, 3, (0, 2)), block_sums(lanes, fused, 3, (1,))
    dense = build_dense(fused)
    row4, row3 = row_products(lanes, fused, 4), row_products(lanes, fused, 3)

    @inlined
    def reading(xs: Address, wide: bool, t: int, n_x: int, own: Address) -> Address:
        """The address of reading t as float32; `own` is room for one."""
        if wide:
            for k in range(n_x):
                store_float(own, k, np.float32(load_double(xs, t * n_x + k)))
            return own
        return xs + 4 * t * n_x

    @jit
    def lstm_one(
        w: Address, xs: Address, wide: bool, own: Address, n_x: int, h: Address, c: Address,
        head: Address, outputs: int, ys: Address, count: int,
    ) -> None:  # fmt: skip
        new_h, new_c, old = load(h, 0), load(c, 0), unrelated(h)
        rows = w + 16 * N
        h_rows = rows + 16 * N * n_x
        for t in range(count):
            x = reading(xs, wide, t, n_x, own)
            a = (load(w, 0), load(w, N), load(w, 2 * N), load(w, 3 * N))
            u = rows
            for k in range(n_x):
                a = row4(u, splat(x, k), a)
                u += 16 * N
            i, g, f = lstm_first(h_rows, old, new_h, (a[0], a[2], a[1]))
            if t:
                dense(head, h, 16, outputs, ys + 4 * outputs * (t - 1))
            i, g, f = gate(i), tanh(g), gate(f)
            (o,) = lstm_last(h_rows, old, new_h, (a[3],))
            o = gate(o)
            new_c = fma(f, new_c, mul(i, g))
            new_h = mul(o, tanh(new_c))
            store(h, 0, new_h)
        store(c, 0, new_c)
        dense(head, h, 16, outputs, ys + 4 * outputs * (count - 1))

    @jit
    def gru_one(
        w: Address, xs: Address, wide: bool, own: Address, n_x: int, h: Address,
        head: Address, outputs: int, ys: Address, count: int,
    ) -> None:  # fmt: skip
        new_h, old = load(h, 0), unrelated(h)
        rows = w + 16 * N
        h_rows = rows + 12 * N * n_x
        for t in range(count):
            x = reading(xs, wide, t, n_x, own)
            a, nh = (load(w, 0), load(w, N), load(w, 2 * N)), load(w, 3 * N)
            u = rows
            for k in range(n_x):
                a = row3(u, splat(x, k), a)
                u += 12 * N
            r, nh = gru_first(h_rows, old, new_h, (a[0], nh))
            if t:
                dense(head, h, 16, outputs, ys + 4 * outputs * (t - 1))
            r = gate(r)
            (z,) = gru_last(h_rows, old, new_h, (a[1],))
            n = tanh(fma(r, nh, a[2]))
            z = gate(z)
            new_h = fma(z, sub(new_h, n), n)
            store(h, 0, new_h)
        dense(head, h, 16, outputs, ys + 4 * outputs * (count - 1))

    @jit
    def lstm_two(
        w: Address, xs: Address, wide: bool, own: Address, n_x: int, h: Address, n_h: int, c: Address,
        head: Address, outputs: int, ys: Address, count: int,
    ) -> None:  # fmt: skip
        for t in range(count):
            x = reading(xs, wide, t, n_x, own)
            first, second = lstm_sums(w, x, n_x, h, n_h)
            if t:
                dense(head, h, 32, outputs, ys + 4 * outputs * (t - 1))
            one, one_h = lstm_cell(first, load(c, 0))
            two, two_h = lstm_cell(second, load(c, N))
            store(c, 0, one)
            store(c, N, two)
            store(h, 0, one_h)
            store(h, N, two_h)
        dense(head, h, 32, outputs, ys + 4 * outputs * (count - 1))

    @jit
    def gru_two(
        w: Address, xs: Address, wide: bool, own: Address, n_x: int, h: Address, n_h: int,
        head: Address, outputs: int, ys: Address, count: int,
    ) -> None:  # fmt: skip
        for t in range(count):
            x = reading(xs, wide, t, n_x, own)
            first, second = gru_sums(w, x, n_x, h, n_h)
            if t:
                dense(head, h, 32, outputs, ys + 4 * outputs * (t - 1))
            one, two = gru_cell(first, load(h, 0)), gru_cell(second, load(h, N))
            store(h, 0, one)
            store(h, N, two)
        dense(head, h, 32, outputs, ys + 4 * outputs * (count - 1))

    @jit
    def run(
        plan: Address, weights: Address, state: Address, scratch: Address, xs: Address, wide: bool,
        ys: Address, count: int,
    ) -> bool:  # fmt: skip
        layer, linear = plan + 4 * at.HEADER, plan + 4 * (at.HEADER + at.LAYER)
        cell, blocks, n_h = (
            load_int(layer, at.CELL),
            load_int(layer, at.BLOCKS),
            load_int(layer, at.UNITS_OUT),
        )
        if cell not in (at.LSTM, at.GRU) or load_int(layer, at.PROJECTION) >= 0:
            return False
        if load_int(plan, at.LAYERS) != 1:
            return False
        if not (blocks == 1 and n_h == N) and not (pairs_too and blocks == 2):
            return False
        if load_int(plan, at.LINEARS) != 1 or load_int(linear, at.ACTIVATION) != at.NONE:
            return False
        n_x, outputs = load_int(layer, at.ROWS), load_int(linear, at.COLUMNS)
        if xs < ys + 4 * outputs * count and ys < xs + (8 if wide else 4) * n_x * count:
            return False  # a reading may be an output: it must be written before it is read
        h, c = state + 4 * load_int(layer, at.H), state + 4 * load_int(layer, at.C)
        w = weights + 4 * load_int(layer, at.WEIGHTS)
        own, y = scratch + 4 * load_int(plan, at.X), state + 4 * load_int(plan, at.Y)
        head = weights + 4 * load_int(linear, at.DENSE)
        if blocks == 1:
            if cell == at.LSTM:
                lstm_one(w, xs, wide, own, n_x, h, c, head, outputs, ys, count)
            else:
                gru_one(w, xs, wide, own, n_x, h, head, outputs, ys, count)
        elif pairs_too:
            if cell == at.LSTM:
                lstm_two(w, xs, wide, own, n_x, h, n_h, c, head, outputs, ys, count)
            else:
                gru_two(w, xs, wide, own, n_x, h, n_h, head, outputs, ys, count)
        for k in range(outputs):
            store_float(y, k, load_float(ys, (count - 1) * outputs + k))
        return True

    return run
