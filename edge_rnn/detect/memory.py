"""Array views at addresses, inside jitted code.

The compiled detector is called with addresses, as the kernels are: unpacking one integer costs a fraction of
unpacking ten arrays. Inside, rows are looked at as ordinary one-dimensional arrays, which these helpers make
without copying or allocating. Nothing checks the address or the size: only `DetectorTable`, which made the
memory, calls code that uses them.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from edge_rnn.core.jit import inlined


def pointer_to(element: Any) -> Any:
    """An intrinsic int64 -> pointer to the Numba type `element`."""

    @intrinsic  # type: ignore[untyped-decorator]
    def pointer(typing_context: Any, address: Any) -> Any:  # noqa: ARG001  (Numba's calling convention)
        result = types.CPointer(element)  # type: ignore[attr-defined]

        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(result))

        return result(types.int64), generate

    return pointer


_f4, _f8, _i8, _u1 = (pointer_to(t) for t in (types.float32, types.float64, types.int64, types.uint8))


@inlined
def f4_at(address: int, size: int) -> NDArray[np.float32]:
    """The `size` float32 at `address`."""
    return numba.carray(_f4(address), size)  # type: ignore[no-any-return]


@inlined
def f8_at(address: int, size: int) -> NDArray[np.float64]:
    """The `size` float64 at `address`."""
    return numba.carray(_f8(address), size)  # type: ignore[no-any-return]


@inlined
def i8_at(address: int, size: int) -> NDArray[np.int64]:
    """The `size` int64 at `address`."""
    return numba.carray(_i8(address), size)  # type: ignore[no-any-return]


@inlined
def u1_at(address: int, size: int) -> NDArray[np.uint8]:
    """The `size` bytes at `address`."""
    return numba.carray(_u1(address), size)  # type: ignore[no-any-return]
