"""Layers of two blocks of units: both blocks' sums in one loop, then both cells.

A cell's update is a long chain of short steps. While a block's chain runs, the processor's queue is full
of instructions that wait for it, so the next block's products do not begin. Two chains side by side take
hardly longer than one, and each number of h is spread once for both blocks. The sums take 16 registers, so
this is for targets that have 32 wide ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from edge_rnn.core import simd
from edge_rnn.core.activations import activations
from edge_rnn.core.jit import inlined
from edge_rnn.core.simd import Address, Vec
from edge_rnn.core.sums import row_products

Four = tuple[Vec, Vec, Vec, Vec]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Inlined helpers for one vector width, numeric class and kind of weights.

    lstm_sums(w, x, n_x, h, n_h): z of i f g o of the first block, and of the second.
    lstm_cell(z, c): the new c and h of one block.
    gru_sums(w, x, n_x, h, n_h): z of r and z, the n of the input and the n of h, of both blocks.
    gru_cell(z, h): the new h of one block.
    """

    lstm_sums: Callable[[Address, Address, int, Address, int], tuple[Four, Four]]
    lstm_cell: Callable[[Four, Vec], tuple[Vec, Vec]]
    gru_sums: Callable[[Address, Address, int, Address, int], tuple[Four, Four]]
    gru_cell: Callable[[Four, Vec], Vec]


@functools.cache
def build_pairs(lanes: int, fused: bool, half: bool = False) -> Pairs:
    """The helpers; arguments as `kernels.Kernels`."""
    N = lanes
    V = (2 if half else 4) * N
    vectors, math, functions = simd.vector_access(lanes), simd.vector_math(fused), activations(fused)
    load, splat, zero = vectors.load, vectors.splat, vectors.zero
    fma, add, sub, mul = math.fma, math.add, math.sub, math.mul
    tanh, gate = functions.tanh, functions.gate
    row4, row3 = row_products(lanes, fused, 4, half), row_products(lanes, fused, 3, half)

    @inlined
    def lstm_sums(w: Address, x: Address, n_x: int, h: Address, n_h: int) -> tuple[Four, Four]:
        u = w + 16 * N + 4 * V * (n_x + n_h)
        a = (load(w, 0), load(w, N), load(w, 2 * N), load(w, 3 * N))
        c = (load(u, 0), load(u, N), load(u, 2 * N), load(u, 3 * N))
        b = d = (zero(), zero(), zero(), zero())
        w += 16 * N
        u += 16 * N
        for k in range(n_x):
            v = splat(x, k)
            a, c = row4(w, v, a), row4(u, v, c)
            w += 4 * V
            u += 4 * V
        for k in range(0, n_h - 1, 2):
            v = splat(h, k)
            a, c = row4(w, v, a), row4(u, v, c)
            v = splat(h, k + 1)
            b, d = row4(w + 4 * V, v, b), row4(u + 4 * V, v, d)
            w += 8 * V
            u += 8 * V
        if n_h & 1:
            v = splat(h, n_h - 1)
            a, c = row4(w, v, a), row4(u, v, c)
        one = (add(a[0], b[0]), add(a[1], b[1]), add(a[2], b[2]), add(a[3], b[3]))
        return one, (add(c[0], d[0]), add(c[1], d[1]), add(c[2], d[2]), add(c[3], d[3]))

    @inlined
    def lstm_cell(z: Four, c: Vec) -> tuple[Vec, Vec]:
        i, g, f = gate(z[0]), tanh(z[2]), gate(z[1])
        c = fma(f, c, mul(i, g))
        return c, mul(gate(z[3]), tanh(c))

    @inlined
    def gru_sums(w: Address, x: Address, n_x: int, h: Address, n_h: int) -> tuple[Four, Four]:
        u = w + 16 * N + 3 * V * (n_x + n_h)
        a, nh = (load(w, 0), load(w, N), load(w, 2 * N)), load(w, 3 * N)
        c, mh = (load(u, 0), load(u, N), load(u, 2 * N)), load(u, 3 * N)
        b = d = (zero(), zero(), zero())
        w += 16 * N
        u += 16 * N
        for k in range(n_x):
            v = splat(x, k)
            a, c = row3(w, v, a), row3(u, v, c)
            w += 3 * V
            u += 3 * V
        nx, mx = a[2], c[2]
        a, c = (a[0], a[1], nh), (c[0], c[1], mh)
        for k in range(0, n_h - 1, 2):
            v = splat(h, k)
            a, c = row3(w, v, a), row3(u, v, c)
            v = splat(h, k + 1)
            b, d = row3(w + 3 * V, v, b), row3(u + 3 * V, v, d)
            w += 6 * V
            u += 6 * V
        if n_h & 1:
            v = splat(h, n_h - 1)
            a, c = row3(w, v, a), row3(u, v, c)
        one = (add(a[0], b[0]), add(a[1], b[1]), nx, add(a[2], b[2]))
        return one, (add(c[0], d[0]), add(c[1], d[1]), mx, add(c[2], d[2]))

    @inlined
    def gru_cell(z: Four, h: Vec) -> Vec:
        n = tanh(fma(gate(z[0]), z[3], z[2]))
        return fma(gate(z[1]), sub(h, n), n)

    return Pairs(lstm_sums, lstm_cell, gru_sums, gru_cell)
