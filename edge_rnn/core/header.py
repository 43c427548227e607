"""Where NumPy keeps what it knows about an array, for compiled code that is given the array's `id`.

Asking an array for its type, shape, flags and address takes Python longer than a small network takes for
a step. CPython's `id` of an object is its address, and the first fields of an array are part of NumPy's
binary interface (`PyArrayObject_fields`), which other extension modules compile against: the object's own
header, which ends in its type; then data, number of dimensions (int), dimensions, strides, base, dtype,
flags (int). Offsets here are in bytes. `readable` compares them with real arrays once; where they fail,
arrays are asked the ordinary way.
"""

from __future__ import annotations

import ctypes
import functools

import numpy as np

_OBJECT = object.__basicsize__
TYPE, DATA, DIMENSIONS, SHAPE, DTYPE, FLAGS = (
    _OBJECT - 8, _OBJECT, _OBJECT + 8, _OBJECT + 16, _OBJECT + 40, _OBJECT + 48,
)  # fmt: skip
# C-contiguous and aligned; equal on every version of NumPy.
SIDE_BY_SIDE = 0x0001 | 0x0100


@functools.cache
def readable() -> bool:
    """Whether a NumPy array's fields are where this module says."""
    if ctypes.sizeof(ctypes.c_void_p) != 8 or np.ndarray.__basicsize__ < FLAGS + 4:
        return False
    for array in (np.zeros((3, 5), np.float32), np.zeros((7, 5, 2), np.float64).T[:, 1:]):
        at = id(array)
        if _word(at + TYPE) != id(np.ndarray) or _word(at + DTYPE) != id(array.dtype):
            return False
        if _word(at + DATA) != array.ctypes.data or _int(at + DIMENSIONS) != array.ndim:
            return False
        shape = _word(at + SHAPE)
        if tuple(_word(shape + 8 * k) for k in range(array.ndim)) != array.shape:
            return False
        contiguous = bool(array.flags.c_contiguous and array.flags.aligned)
        if (_int(at + FLAGS) & SIDE_BY_SIDE == SIDE_BY_SIDE) != contiguous:
            return False
    return True


def _word(address: int) -> int:
    return ctypes.c_int64.from_address(address).value


def _int(address: int) -> int:
    return ctypes.c_int32.from_address(address).value
