"""Sums as LLVM instructions: a row of weights at once, a block's rows unrolled, four trees together.

Same order as everywhere (`kernels.py`): a gate's chain A takes the even rows and B the odd ones, rising; the
partial sums of a Linear are added by the tree. A row as one operation also compiles in half the time that one
operation per gate takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from edge_rnn.core.jit import widens_halves
from edge_rnn.core.simd import INT32, Address, Emit, Vec, Vector, half_vector, number_splat, vector_load

# Rows whose numbers of h are taken from the register that still holds it, which is sooner there than h read
# back from memory; more of them take longer than the memory.
_FROM_REGISTER = 4


Vectors = TypeVar("Vectors", bound=tuple[Vec, ...])


class Row(Protocol):
    """A row of weights, see `row_products`."""

    def __call__(self, w: Address, v: Vec, a: Vectors) -> Vectors:
        """One product added to each of a."""


class BlockSums(Protocol):
    """All rows of h of one block, see `block_sums`."""

    def __call__(self, w: Address, h: Address, last: Vec, a: Vectors) -> Vectors:
        """The sums."""


def row_products(lanes: int, fused: bool, gates: int, half: bool = False) -> Row:
    """row(w, v, a): fma(v, weights of gate g, a[g]) for the `gates` vectors of weights at w, as a tuple."""
    kind, word = Vector(lanes), ir.IntType(64)
    instruction = half and widens_halves()

    @intrinsic  # type: ignore[untyped-decorator]
    def row(context: Any, w: Any, v: Any, a: Any) -> Any:  # noqa: ARG001
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            w, v, a = values
            emit, sums = Emit(builder, v.type, fused), []
            for g, chain in enumerate(cgutils.unpack_tuple(builder, a, gates)):
                offset = ir.Constant(word, g * lanes)
                if half:
                    weights = half_vector(builder, w, offset, lanes, instruction)
                else:
                    weights = vector_load(builder, w, offset, lanes)
                sums.append(emit.fma(v, weights, chain))
            return context.make_tuple(builder, signature.return_type, sums)

        return types.UniTuple(kind, gates)(types.int64, v, a), code

    return cast(Row, row)


def block_sums(lanes: int, fused: bool, gates: int, places: tuple[int, ...]) -> BlockSums:
    """sums(w, h, last, a) -> z of some gates of one block of as many units as there are lanes.

    Args:
        lanes: N, which is the number of rows of h, too.
        fused: class F or U.
        gates: vectors of weights in a row.
        places: which of them.

    w: the first row of h's weights. h: the old h, float32 (N,); last: the same numbers as a vector. a: per
    place chain A with the bias and the input rows.
    """
    kind, count = Vector(lanes), len(places)
    word, shape = ir.IntType(64), ir.VectorType(INT32, lanes)

    @intrinsic  # type: ignore[untyped-decorator]
    def sums(context: Any, w: Any, h: Any, last: Any, a: Any) -> Any:  # noqa: ARG001
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            w, h, last, a = values
            emit = Emit(builder, last.type, fused)
            undefined = ir.Constant(last.type, ir.Undefined)
            chains = [list(cgutils.unpack_tuple(builder, a, count)), [emit.constant(0.0)] * count]
            for k in range(lanes):
                if k < _FROM_REGISTER:
                    v = builder.shuffle_vector(last, undefined, ir.Constant(shape, [k] * lanes))
                else:
                    v = number_splat(builder, h, ir.Constant(word, k), lanes)
                for i, place in enumerate(places):
                    weight = vector_load(builder, w, ir.Constant(word, (k * gates + place) * lanes), lanes)
                    chains[k & 1][i] = emit.fma(v, weight, chains[k & 1][i])
            sums = [builder.fadd(even, odd) for even, odd in zip(*chains, strict=True)]
            return context.make_tuple(builder, signature.return_type, sums)

        result = types.UniTuple(kind, count)
        return result(types.int64, types.int64, last, a), code

    return cast(BlockSums, sums)


@intrinsic  # type: ignore[untyped-decorator]
def _tree_of_four(context: Any, a: Any, b: Any, c: Any, d: Any) -> Any:  # noqa: ARG001
    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        def chosen(x: Any, y: Any, lanes: list[int]) -> Any:
            return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(INT32, len(lanes)), lanes))

        def halves(x: Any, y: Any, width: int) -> Any:
            """Of x, then of y: in every group of 2 * width lanes the lower half plus the upper."""
            low = [g + k for g in range(0, 32, 2 * width) for k in range(width)]
            return builder.fadd(chosen(x, y, low), chosen(x, y, [k + width for k in low]))

        a, b, c, d = values
        sums = halves(halves(a, b, 8), halves(c, d, 8), 4)
        while sums.type.count > 4:
            undefined, width = ir.Constant(sums.type, ir.Undefined), sums.type.count // 8
            low = [g + k for g in range(0, sums.type.count, 2 * width) for k in range(width)]
            sums = builder.fadd(
                chosen(sums, undefined, low), chosen(sums, undefined, [k + width for k in low])
            )
        return sums

    return Vector(4)(a, b, c, d), code


@intrinsic  # type: ignore[untyped-decorator]
def _unrelated(context: Any, address: Any) -> Any:  # noqa: ARG001
    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        word = ir.IntType(64)
        return builder.asm(ir.FunctionType(word, [word]), "", "=r,0", [values[0]], side_effect=False)

    return types.int64(types.int64), code


# tree_of_four(a, b, c, d): `simd.tree` of four vectors of 16 lanes, as one of 4.
tree_of_four: Callable[[Vec, Vec, Vec, Vec], Vec] = _tree_of_four
# unrelated(address): the same, of which the compiler knows nothing. What is stored at the one is then really
# loaded at the other; else it would take the stored vector apart in registers, which is slower.
unrelated: Callable[[Address], Address] = _unrelated
