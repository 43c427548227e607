"""Many streams side by side: vectors run over streams, not over units.

The single step reads all weights for one stream, so from 64 units up its time is that of reading them. Here
a tile of streams takes the step together: each weight is read once and used for all of them. Inside a tile
the state lies as [unit][stream]; rows of the state table are turned into that form and back, so nobody else
sees it.

**Same order, same bits.** A lane does for its stream what `kernels.py` does for a unit: chain A from the bias
over the input rows and the even rows of h, chain B over the odd rows, z = A + B. The sums of both chains do
not fit into the registers, so those of A wait in scratch while B runs. A projection is summed as 16 partial
sums and the tree, as is the usual head, one Linear; another head is left to the single step's code.

The weights are those of `pack(model, 1)`: unit after unit, each with its biases and its rows in order.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_rnn.core import fields as at
from edge_rnn.core import simd
from edge_rnn.core.activations import activations
from edge_rnn.core.jit import inlined, jit
from edge_rnn.core.simd import Address
from edge_rnn.core.tiling import streams

TileFunction = Callable[[Address, Address, Address, Address, int], bool]


def build_tile(lanes: int, fused: bool) -> TileFunction:
    """tile(plan, weights, rows, scratch, area): one step for `streams(lanes)` rows; whether y is done, too.

    plan, weights: of `pack(model, 1)`. rows: addresses of as many different state rows, as int64. scratch:
    five areas of `area` float32 each: the inputs [input][stream], the layer's outputs, its old h, its c, and
    sums that wait. New h and c are written to the rows. A head of one Linear without activation is done, too;
    any other is left, with its y as it was.
    """
    S, N = streams(lanes), lanes
    store, load_int = simd.store, simd.load_int
    vectors, math, functions = simd.vector_access(S), simd.vector_math(fused), activations(fused)
    load, splat, zero = vectors.load, vectors.splat, vectors.zero
    # A cell's update goes through half a tile at a time: with all of it, constants of tanh go to the stack.
    T = S // 2
    part = simd.vector_access(T).load
    fma, add, sub, mul = math.fma, math.add, math.sub, math.mul
    tanh, gate, relu = functions.tanh, functions.gate, functions.relu
    gather, scatter = simd.turned_rows(lanes)

    @jit
    def rnn(
        w: Address, x: Address, n_x: int, h: Address, n_h: int, new_h: Address, hidden: int, is_relu: bool
    ) -> None:
        # Two units at a time, because one alone spends its time on loading h; a last one is done twice.
        for pair in range(0, hidden, 2):
            one, two = pair, min(pair + 1, hidden - 1)
            u, v = w + 4 * one * (1 + n_x + n_h), w + 4 * two * (1 + n_x + n_h)
            a, b, c, d = splat(u, 0), zero(), splat(v, 0), zero()
            u, v = u + 4, v + 4
            for j in range(n_x):
                p = load(x, j * S)
                a = fma(p, splat(u, j), a)
                c = fma(p, splat(v, j), c)
            u, v = u + 4 * n_x, v + 4 * n_x
            for k in range(0, n_h - 1, 2):
                p = load(h, k * S)
                a = fma(p, splat(u, k), a)
                c = fma(p, splat(v, k), c)
                p = load(h, (k + 1) * S)
                b = fma(p, splat(u, k + 1), b)
                d = fma(p, splat(v, k + 1), d)
            if n_h & 1:
                p = load(h, (n_h - 1) * S)
                a = fma(p, splat(u, n_h - 1), a)
                c = fma(p, splat(v, n_h - 1), c)
            a, c = add(a, b), add(c, d)
            if is_relu:
                a, c = relu(a), relu(c)
            else:
                a, c = tanh(a), tanh(c)
            store(new_h, one * S, a)
            store(new_h, two * S, c)

    @jit
    def lstm(
        w: Address, x: Address, n_x: int, h: Address, n_h: int, c: Address, new_h: Address, hidden: int,
        park: Address,
    ) -> None:  # fmt: skip
        for unit in range(hidden):
            i, f, g, o = splat(w, 0), splat(w, 1), splat(w, 2), splat(w, 3)
            w += 16
            for j in range(n_x):
                v = load(x, j * S)
                i = fma(v, splat(w, 0), i)
                f = fma(v, splat(w, 1), f)
                g = fma(v, splat(w, 2), g)
                o = fma(v, splat(w, 3), o)
                w += 16
            for k in range(0, n_h, 2):
                v = load(h, k * S)
                i = fma(v, splat(w, 4 * k), i)
                f = fma(v, splat(w, 4 * k + 1), f)
                g = fma(v, splat(w, 4 * k + 2), g)
                o = fma(v, splat(w, 4 * k + 3), o)
            store(park, 0, i)
            store(park, S, f)
            store(park, 2 * S, g)
            store(park, 3 * S, o)
            i, f, g, o = zero(), zero(), zero(), zero()
            for k in range(1, n_h, 2):
                v = load(h, k * S)
                i = fma(v, splat(w, 4 * k), i)
                f = fma(v, splat(w, 4 * k + 1), f)
                g = fma(v, splat(w, 4 * k + 2), g)
                o = fma(v, splat(w, 4 * k + 3), o)
            w += 16 * n_h
            store(park, 4 * S, i)
            store(park, 5 * S, f)
            store(park, 6 * S, g)
            store(park, 7 * S, o)
            for s in range(0, S, T):
                p = park + 4 * s
                new = mul(gate(add(part(p, 0), part(p, 4 * S))), tanh(add(part(p, 2 * S), part(p, 6 * S))))
                new = fma(gate(add(part(p, S), part(p, 5 * S))), part(c, unit * S + s), new)
                store(c, unit * S + s, new)
                new = mul(gate(add(part(p, 3 * S), part(p, 7 * S))), tanh(new))
                store(new_h, unit * S + s, new)

    @jit
    def gru(
        w: Address, x: Address, n_x: int, h: Address, n_h: int, new_h: Address, hidden: int, park: Address
    ) -> None:
        for unit in range(hidden):
            r, z, nx, nh = splat(w, 0), splat(w, 1), splat(w, 2), splat(w, 3)
            w += 16
            for j in range(n_x):
                v = load(x, j * S)
                r = fma(v, splat(w, 0), r)
                z = fma(v, splat(w, 1), z)
                nx = fma(v, splat(w, 2), nx)
                w += 12
            store(park, 3 * S, nx)
            for k in range(0, n_h, 2):
                v = load(h, k * S)
                r = fma(v, splat(w, 3 * k), r)
                z = fma(v, splat(w, 3 * k + 1), z)
                nh = fma(v, splat(w, 3 * k + 2), nh)
            store(park, 0, r)
            store(park, S, z)
            store(park, 2 * S, nh)
            r, z, nh = zero(), zero(), zero()
            for k in range(1, n_h, 2):
                v = load(h, k * S)
                r = fma(v, splat(w, 3 * k), r)
                z = fma(v, splat(w, 3 * k + 1), z)
                nh = fma(v, splat(w, 3 * k + 2), nh)
            w += 12 * n_h
            store(park, 4 * S, r)
            store(park, 5 * S, z)
            store(park, 6 * S, nh)
            for s in range(0, S, T):
                p = park + 4 * s
                n = gate(add(part(p, 0), part(p, 4 * S)))
                n = tanh(fma(n, add(part(p, 2 * S), part(p, 6 * S)), part(p, 3 * S)))
                new = fma(gate(add(part(p, S), part(p, 5 * S))), sub(part(h, unit * S + s), n), n)
                store(new_h, unit * S + s, new)

    @jit
    def project(w: Address, x: Address, rows16: int, columns: int, y: Address, park: Address) -> None:
        """Rows of w_hr or a Linear over x [unit][stream]: partial sums j and j + 8 at once, then the tree."""
        row = w + 4 * ((columns + 15) & -16)
        for o in range(columns):
            for j in range(8):
                a, b = zero(), zero()
                for k in range(j, rows16, 16):
                    a = fma(splat(row, k), load(x, k * S), a)
                    b = fma(splat(row, k + 8), load(x, (k + 8) * S), b)
                store(park, j * S, add(a, b))
            n = 4
            while n:
                for j in range(n):
                    store(park, j * S, add(load(park, j * S), load(park, (j + n) * S)))
                n >>= 1
            store(y, o * S, add(load(park, 0), splat(w, o)))
            row += 4 * rows16

    @inlined
    def clear(y: Address, first: int, end: int) -> None:
        for k in range(first, end):
            store(y, k * S, zero())

    @jit
    def fetch(rows: Address, field: int, units: int, target: Address) -> None:
        """A field of the rows [stream][unit] as [unit][stream]; padding of the field comes along."""
        for k in range(0, units, N):
            for s in range(0, S, N):
                gather(rows + 8 * s, field + k, target + 4 * (k * S + s), S)

    @jit
    def deliver(source: Address, rows: Address, field: int, units: int) -> None:
        """The way back; source is +0 from `units` to the next multiple of the vectors' width."""
        for k in range(0, units, N):
            for s in range(0, S, N):
                scatter(source + 4 * (k * S + s), S, rows + 8 * s, field + k)

    @jit
    def tile(plan: Address, weights: Address, rows: Address, scratch: Address, area: int) -> bool:
        x, out = scratch, scratch + 4 * area
        h, c, park = scratch + 8 * area, scratch + 12 * area, scratch + 16 * area
        record = plan + 4 * at.HEADER
        for _ in range(load_int(plan, at.LAYERS)):
            cell, hidden = load_int(record, at.CELL), load_int(record, at.HIDDEN)
            n_x, n_h, projection = (
                load_int(record, at.ROWS), load_int(record, at.UNITS_OUT), load_int(record, at.PROJECTION),
            )  # fmt: skip
            w = weights + 4 * load_int(record, at.WEIGHTS)
            fetch(rows, load_int(record, at.H), n_h, h)
            if cell == at.LSTM:
                fetch(rows, load_int(record, at.C), hidden, c)
                lstm(w, x, n_x, h, n_h, c, out, hidden, park)
                deliver(c, rows, load_int(record, at.C), hidden)
            elif cell == at.GRU:
                gru(w, x, n_x, h, n_h, out, hidden, park)
            else:
                rnn(w, x, n_x, h, n_h, out, hidden, cell == at.RNN_RELU)
            clear(out, hidden, (hidden + 15) & -16)
            if projection >= 0:
                x, out = out, x
                project(weights + 4 * projection, x, (hidden + 15) & -16, n_h, out, park)
                clear(out, n_h, (n_h + 15) & -16)
            deliver(out, rows, load_int(record, at.H), n_h)
            x, out = out, x
            record += 4 * at.LAYER
        if load_int(plan, at.LINEARS) != 1 or load_int(record, at.ACTIVATION) != at.NONE:
            return False
        columns = load_int(record, at.COLUMNS)
        dense = weights + 4 * load_int(record, at.DENSE)
        project(dense, x, load_int(record, at.ROWS16), columns, out, park)
        clear(out, columns, (columns + 15) & -16)
        deliver(out, rows, load_int(plan, at.Y), columns)
        return True

    return tile
