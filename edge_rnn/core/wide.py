"""What 64-bit integers need beyond Python's operators, inside jitted code: one instruction each."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_U8 = types.uint64


@intrinsic  # type: ignore[untyped-decorator]
def high_product(_typing: Any, _a: Any, _b: Any) -> Any:
    """The upper 64 bits of the product of two uint64."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        a, b = (builder.zext(one, wide) for one in arguments)
        shifted = builder.lshr(builder.mul(a, b), ir.Constant(wide, 64))
        return builder.trunc(shifted, ir.IntType(64))

    return _U8(_U8, _U8), generate


@intrinsic  # type: ignore[untyped-decorator]
def leading_zeros(_typing: Any, _a: Any) -> Any:
    """How many bits of a uint64 above 0 are 0 before its first 1."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return _U8(_U8), generate


@intrinsic  # type: ignore[untyped-decorator]
def bits_of(_typing: Any, _a: Any) -> Any:
    """The uint64 with the bits of a float64."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return _U8(types.float64), generate


@intrinsic  # type: ignore[untyped-decorator]
def float_of(_typing: Any, _a: Any) -> Any:
    """The float64 with the bits of a uint64."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(_U8), generate
