"""What every part of the kernel multiplies with: weights of four bytes or two, and the rows of a Linear."""

from __future__ import annotations

import functools
from collections.abc import Callable

from edge_rnn.core import simd
from edge_rnn.core.jit import jit, widens_halves
from edge_rnn.core.simd import Address, Vec
from edge_rnn.core.sums import tree_of_four

# dense(w, x, rows16, columns, y)
Dense = Callable[[Address, Address, int, int, Address], None]


def weight_load(lanes: int, half: bool) -> Callable[[Address, int], Vec]:
    """load(address, offset): weights as float32, from float32 or, with `half`, from float16."""
    return simd.half_load(lanes, widens_halves()) if half else simd.vector_access(lanes).load


@functools.cache
def build_dense(fused: bool, half: bool = False) -> Dense:
    """dense(w, x, rows16, columns, y): y = the rows of a Linear or projection times x, + bias.

    x float32 (rows16,), a multiple of 16, padded with +0. Four rows go together: their trees take half the
    instructions that four trees would, in the same order.
    """
    B = 2 if half else 4
    store, store_float, load_float, tree = simd.store, simd.store_float, simd.load_float, simd.tree
    weight, wide, math = weight_load(16, half), simd.vector_access(16), simd.vector_math(fused)
    load, zero, fma, add = wide.load, wide.zero, math.fma, math.add
    load4 = simd.vector_access(4).load

    @jit
    def dense(w: Address, x: Address, rows16: int, columns: int, y: Address) -> None:
        row, size = w + 4 * ((columns + 15) & -16), B * rows16
        for o in range(0, columns - 3, 4):
            a, b, c, d = zero(), zero(), zero(), zero()
            for k in range(0, rows16, 16):
                v = load(x, k)
                a = fma(weight(row, k), v, a)
                b = fma(weight(row + size, k), v, b)
                c = fma(weight(row + 2 * size, k), v, c)
                d = fma(weight(row + 3 * size, k), v, d)
            store(y, o, add(tree_of_four(a, b, c, d), load4(w, o)))
            row += 4 * size
        for o in range(columns & -4, columns):
            a = zero()
            for k in range(0, rows16, 16):
                a = fma(weight(row, k), load(x, k), a)
            store_float(y, o, tree(a) + load_float(w, o))
            row += size

    return dense
