"""Whether an object whose `id` compiled code was given is the array it needs; see header.py."""

from __future__ import annotations

from edge_rnn.core import fields as at
from edge_rnn.core import header
from edge_rnn.core.jit import inlined
from edge_rnn.core.simd import Address, load_int, load_word


@inlined
def is_array(table: Address, array: Address, dimensions: int) -> bool:
    """An array, not of a subclass, whose numbers lie side by side."""
    return (
        load_word(array + header.TYPE, 0) == load_word(table, at.ARRAY_TYPE)
        and load_int(array + header.DIMENSIONS, 0) == dimensions
        and load_int(array + header.FLAGS, 0) & header.SIDE_BY_SIDE == header.SIDE_BY_SIDE
    )


@inlined
def fits(table: Address, array: Address, dimensions: int, count: int, inputs: int) -> bool:
    """Readings: float32 or float64, (inputs,) if there is one dimension, else (count, inputs)."""
    if not is_array(table, array, dimensions):
        return False
    dtype, shape = load_word(array + header.DTYPE, 0), load_word(array + header.SHAPE, 0)
    if dtype != load_word(table, at.ARRAY_FLOAT32) and dtype != load_word(table, at.ARRAY_FLOAT64):
        return False
    return load_word(shape, dimensions - 1) == inputs and (dimensions == 1 or load_word(shape, 0) == count)
