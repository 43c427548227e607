"""One step each of many rows of a state table: in tiles of streams where that is faster, else row by row.

A tile takes different rows only: a row that comes a second time begins a new tile, so it takes its steps one
after the other. Which rows go through a tile depends on numbers alone (`FEWEST`) and changes no bit.
"""

from __future__ import annotations

import functools

import numpy as np

from edge_rnn.core import arrays as arrays_module
from edge_rnn.core import fields as at
from edge_rnn.core import header, simd
from edge_rnn.core import tiles as tiles_module
from edge_rnn.core import tiling as tiling_module
from edge_rnn.core.arrays import fits, is_array
from edge_rnn.core.entries import DONE, NO_ROW, UNFIT
from edge_rnn.core.jit import EntryPoint, jit, source_digest
from edge_rnn.core.kernels import kernels
from edge_rnn.core.simd import Address
from edge_rnn.core.tiles import build_tile
from edge_rnn.core.tiling import streams


@functools.cache
def many(lanes: int, fused: bool) -> EntryPoint:
    """The loop for one vector width and numeric class.

    many(table, rows, xs, ys), the last three the `id` of arrays: rows int64 (k,), or 0 for all rows in
    order; xs float32 or float64 (k, I); ys float32 (k, O), filled, made by the caller. Where the table has
    the inputs' address, it has all of them and the number of rows instead. Returns DONE; or UNFIT where
    rows or xs is no such array; or the flat index of the first input that is not finite; or NO_ROW - t where
    rows[t] is not in the table. Unless DONE, nothing was stepped.
    """
    S = streams(lanes)
    base = kernels(lanes, fused)
    step, tile = base.step, build_tile(lanes, fused)
    load_word, load_int, load_float, load_double, store_float, store_word = (
        simd.load_word, simd.load_int, simd.load_float, simd.load_double, simd.store_float, simd.store_word,
    )  # fmt: skip

    @jit
    def alone(table: Address, xs: Address, wide: bool, ys: Address, t: int, row: int) -> None:
        plan, scratch = load_word(table, at.PLAN_AT), load_word(table, at.SCRATCH_AT)
        inputs, outputs = load_int(plan, at.INPUTS), load_int(plan, at.OUTPUTS)
        state = load_word(table, at.STATES_AT) + load_word(table, at.ROW_BYTES) * row
        x = xs + 4 * t * inputs
        if wide:
            x = scratch + 4 * load_int(plan, at.X)
            for k in range(inputs):
                store_float(x, k, np.float32(load_double(xs, t * inputs + k)))
        step(plan, load_word(table, at.WEIGHTS_AT), state, scratch, x)
        for k in range(outputs):
            store_float(ys, t * outputs + k, load_float(state, load_int(plan, at.Y) + k))

    @jit
    def together(table: Address, xs: Address, wide: bool, ys: Address, first: int, count: int) -> None:
        """Steps `first` and the `count` - 1 behind it; the addresses of their rows are at TILE_ROWS."""
        plan, weights = load_word(table, at.TILE_PLAN_AT), load_word(table, at.TILE_WEIGHTS_AT)
        head, scratch = load_word(table, at.TILE_HEAD_AT), load_word(table, at.SCRATCH_AT)
        rows, x = load_word(table, at.TILE_ROWS), load_word(table, at.TILE_SCRATCH)
        inputs, outputs = load_int(plan, at.INPUTS), load_int(plan, at.OUTPUTS)
        for s in range(count):
            start = (first + s) * inputs
            if wide:
                for k in range(inputs):
                    store_float(x, k * S + s, np.float32(load_double(xs, start + k)))
            else:
                for k in range(inputs):
                    store_float(x, k * S + s, load_float(xs, start + k))
        for s in range(count, S):  # places without a stream: a row of nobody, no reading
            store_word(rows, s, load_word(table, at.TILE_SPARE))
            for k in range(inputs):
                store_float(x, k * S + s, np.float32(0))
        done = tile(plan, weights, rows, x, load_word(table, at.TILE_AREA))
        y = 4 * load_int(plan, at.Y)
        top = 4 * load_word(table, at.TILE_TOP)
        for s in range(count):
            state = load_word(rows, s)
            if not done:
                step(head, weights, state, scratch, state + top)
            for k in range(outputs):
                store_float(ys, (first + s) * outputs + k, load_float(state + y, k))

    def drive_many(table: Address, row_array: Address, x_array: Address, y_array: Address) -> int:
        plan, capacity = load_word(table, at.PLAN_AT), load_word(table, at.CAPACITY)
        rows, xs, ys = load_word(table, at.ROW_LIST), load_word(table, at.XS_AT), load_word(table, at.YS_AT)
        wide, count = load_word(table, at.WIDE) != 0, load_word(table, at.COUNT)
        inputs = load_int(plan, at.INPUTS)
        if xs == 0:
            count = capacity
            if row_array:
                if not is_array(table, row_array, 1):
                    return UNFIT
                if load_word(row_array + header.DTYPE, 0) != load_word(table, at.ARRAY_INT64):
                    return UNFIT
                rows = load_word(row_array + header.DATA, 0)
                count = load_word(load_word(row_array + header.SHAPE, 0), 0)
            if not fits(table, x_array, 2, count, inputs):
                return UNFIT
            xs, ys = load_word(x_array + header.DATA, 0), load_word(y_array + header.DATA, 0)
            wide = load_word(x_array + header.DTYPE, 0) == load_word(table, at.ARRAY_FLOAT64)
        if rows:
            for t in range(count):
                if load_word(rows, t) < 0 or load_word(rows, t) >= capacity:
                    return NO_ROW - t
        for k in range(count * inputs):
            value = np.float32(load_double(xs, k)) if wide else load_float(xs, k)
            if value - value != 0:
                return k
        states, row_bytes = load_word(table, at.STATES_AT), load_word(table, at.ROW_BYTES)
        steps, fewest = load_word(table, at.STEPS_AT), load_word(table, at.FEWEST)
        stamps, places = load_word(table, at.STAMPS_AT), load_word(table, at.TILE_ROWS)
        t = 0
        while t < count:
            ready = min(S, count - t)
            if ready >= fewest:
                stamp = load_word(table, at.STAMP) + 1
                store_word(table, at.STAMP, stamp)
                found = 0
                while found < ready:
                    row = load_word(rows, t + found) if rows else t + found
                    if load_word(stamps, row) == stamp:
                        break
                    store_word(stamps, row, stamp)
                    store_word(places, found, states + row_bytes * row)
                    found += 1
                ready = found
            for s in range(ready):
                row = load_word(rows, t + s) if rows else t + s
                store_word(steps, row, load_word(steps, row) + 1)
                if ready < fewest:
                    alone(table, xs, wide, ys, t + s, row)
            if ready >= fewest:
                together(table, xs, wide, ys, t, ready)
            t += ready
        return DONE

    sources = source_digest(
        __file__, *(str(m.__file__) for m in (arrays_module, tiles_module, tiling_module))
    )
    probe = np.zeros(at.WORDS + at.HEADER, np.int64)
    probe[at.PLAN_AT] = probe[at.XS_AT] = probe[at.WORDS :].ctypes.data
    return EntryPoint(
        drive_many, "int64(int64, int64, int64, int64)", f"{base.key} many={sources}", probe, DONE, (0, 0, 0)
    )
