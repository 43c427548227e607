"""Float32 vectors as values of jitted code: with `activations.py` and `sums.py` all that knows LLVM.

`Vector(n)` is a Numba type over LLVM's `<n x float>`; LLVM legalises any n to AVX-512, AVX2, SSE2 or
NEON. A jitted function uses the operations below as functions: values of the type are ordinary local
variables, so a cell reads like its equations.

Every operation is a plain IEEE operation without any fast-math flag. `fma` is `llvm.fma` (one
rounding) in class F, and a multiplication and an addition (two roundings) in class U; never
`llvm.fmuladd`, which leaves the choice to the compiler.

Addresses are int64, offsets count elements. Nothing is checked: the callers own the arrays, keep them
alive and have validated the sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

FLOAT = ir.FloatType()
INT32 = ir.IntType(32)

Address = int
Number = float | np.float32


class Vec:
    """What a vector is to the type checker; jitted code never meets this class."""


class Vector(types.Type):  # type: ignore[misc]
    """Numba's type of a vector of `lanes` float32."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"float32x{lanes}")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(FLOAT, vector.lanes))


class Emit:
    """Vector arithmetic as LLVM instructions, for values of one vector type.

    Args:
        builder: llvmlite's, at the place where the instructions go.
        kind: the LLVM vector type.
        fused: class F or U.
    """

    def __init__(self, builder: Any, kind: Any, fused: bool) -> None:
        self.builder, self.kind, self.fused = builder, kind, fused

    def constant(self, value: float) -> Any:
        """`value` in every lane."""
        return ir.Constant(self.kind, [float(value)] * self.kind.count)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once in class F, twice in class U."""
        if not self.fused:
            return self.builder.fadd(self.builder.fmul(a, b), c)
        kind = ir.FunctionType(self.kind, [self.kind] * 3)
        name = f"llvm.fma.v{self.kind.count}f32"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, c])

    def horner(self, coefficients: Sequence[float], x: Any) -> Any:
        """The polynomial with these coefficients, lowest power first, one fma per power."""
        result = self.constant(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            result = self.fma(result, x, self.constant(coefficient))
        return result

    def at_most(self, x: Any, limit: float) -> Any:
        """x > limit ? limit : x, so a NaN passes."""
        bound = self.constant(limit)
        return self.builder.select(self.builder.fcmp_ordered(">", x, bound), bound, x)

    def at_least(self, x: Any, limit: float) -> Any:
        """x < limit ? limit : x, so a NaN passes."""
        bound = self.constant(limit)
        return self.builder.select(self.builder.fcmp_ordered("<", x, bound), bound, x)


def vector_function(name: str, operands: int, emit: Callable[..., Any], fused: bool) -> Callable[..., Vec]:
    """A jitted function of 1 to 3 vectors of one type, whatever it is: `emit(Emit, *values)`."""

    def typed(*vectors: Any) -> Any:
        kind = vectors[0]
        if not isinstance(kind, Vector) or any(v != kind for v in vectors):
            return None

        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
            return emit(Emit(builder, ir.VectorType(FLOAT, kind.lanes), fused), *values)

        return kind(*vectors), code

    # Numba reads the number of operands from the definition's signature.
    definitions: dict[int, Callable[..., Any]] = {
        1: lambda context, a: typed(a),  # noqa: ARG005
        2: lambda context, a, b: typed(a, b),  # noqa: ARG005
        3: lambda context, a, b, c: typed(a, b, c),  # noqa: ARG005
    }
    definition = definitions[operands]
    definition.__name__ = definition.__qualname__ = name
    return cast(Callable[..., Vec], intrinsic(definition))


def _pointer(builder: Any, address: Any, offset: Any, element: Any) -> Any:
    return builder.gep(builder.inttoptr(address, element.as_pointer()), [offset], inbounds=True)


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    undefined = ir.Constant(ir.VectorType(FLOAT, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(INT32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT32, lanes), [0] * lanes))


def _vector_pointer(builder: Any, address: Any, offset: Any, lanes: int) -> Any:
    pointer = _pointer(builder, address, offset, FLOAT)
    return builder.bitcast(pointer, ir.VectorType(FLOAT, lanes).as_pointer())


def vector_load(builder: Any, address: Any, offset: Any, lanes: int) -> Any:
    """The instruction for `VectorAccess.load`."""
    result = builder.load(_vector_pointer(builder, address, offset, lanes))
    result.align = 4
    return result


def number_splat(builder: Any, address: Any, offset: Any, lanes: int) -> Any:
    """The instructions for `VectorAccess.splat`."""
    return _splat(builder, builder.load(_pointer(builder, address, offset, FLOAT)), lanes)


@dataclass(frozen=True, slots=True)
class VectorAccess:
    """Loads and constants of vectors of one width.

    load(address, offset): the numbers from there on; need not be aligned.
    splat(address, offset): the number there, in every lane.
    spread(number): a float32 in every lane.
    zero(): +0 in every lane.
    """

    load: Callable[[Address, int], Vec]
    splat: Callable[[Address, int], Vec]
    spread: Callable[[float], Vec]
    zero: Callable[[], Vec]


def vector_access(lanes: int) -> VectorAccess:
    """The loads for vectors of `lanes`."""
    kind = Vector(lanes)

    @intrinsic  # type: ignore[untyped-decorator]
    def load(context: Any, address: Any, offset: Any) -> Any:  # noqa: ARG001
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
            return vector_load(builder, values[0], values[1], lanes)

        return kind(types.int64, types.int64), code

    @intrinsic  # type: ignore[untyped-decorator]
    def splat(context: Any, address: Any, offset: Any) -> Any:  # noqa: ARG001
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
            return number_splat(builder, values[0], values[1], lanes)

        return kind(types.int64, types.int64), code

    @intrinsic  # type: ignore[untyped-decorator]
    def spread(context: Any, number: Any) -> Any:  # noqa: ARG001
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
            return _splat(builder, values[0], lanes)

        return kind(types.float32), code

    @intrinsic  # type: ignore[untyped-decorator]
    def zero(context: Any) -> Any:  # noqa: ARG001
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
            return ir.Constant(ir.VectorType(FLOAT, lanes), [0.0] * lanes)

        return kind(), code

    return VectorAccess(load, splat, spread, zero)


def half_vector(builder: Any, address: Any, offset: Any, lanes: int, instruction: bool) -> Any:
    """The instructions for `half_load`."""
    element = ir.HalfType() if instruction else ir.IntType(16)
    pointer = _pointer(builder, address, offset, element)
    packed = builder.load(builder.bitcast(pointer, ir.VectorType(element, lanes).as_pointer()))
    packed.align = 2
    floats = ir.VectorType(FLOAT, lanes)
    if instruction:
        return builder.fpext(packed, floats)
    words = ir.VectorType(INT32, lanes)

    def every(value: int) -> Any:
        return ir.Constant(words, [value] * lanes)

    word = builder.zext(packed, words)
    sign = builder.shl(builder.and_(word, every(0x8000)), every(16))
    size = builder.bitcast(builder.shl(builder.and_(word, every(0x7FFF)), every(13)), floats)
    size = builder.fmul(size, ir.Constant(floats, [2.0**112] * lanes))
    return builder.bitcast(builder.or_(builder.bitcast(size, words), sign), floats)


def half_load(lanes: int, instruction: bool) -> Callable[[Address, int], Vec]:
    """load(address, offset): numbers that are float16 in memory; they are finite, and the result is exact.

    Args:
        lanes: of the result.
        instruction: the target has one for this. Otherwise it is done with whole numbers: the bits moved to
            their places in a float32 are the number times 2**-112, numbers below 2**-14 included.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def load(context: Any, address: Any, offset: Any) -> Any:  # noqa: ARG001
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
            return half_vector(builder, values[0], values[1], lanes, instruction)

        return Vector(lanes)(types.int64, types.int64), code

    return cast(Callable[[Address, int], Vec], load)


@dataclass(frozen=True, slots=True)
class VectorMath:
    """Arithmetic of one numeric class on vectors of any width; both operands of one width."""

    fma: Callable[[Vec, Vec, Vec], Vec]
    add: Callable[[Vec, Vec], Vec]
    sub: Callable[[Vec, Vec], Vec]
    mul: Callable[[Vec, Vec], Vec]
    div: Callable[[Vec, Vec], Vec]


def vector_math(fused: bool) -> VectorMath:
    """The arithmetic of class F (fused) or U."""
    return VectorMath(
        fma=vector_function("fma", 3, Emit.fma, fused),
        add=vector_function("add", 2, lambda e, a, b: e.builder.fadd(a, b), fused),
        sub=vector_function("sub", 2, lambda e, a, b: e.builder.fsub(a, b), fused),
        mul=vector_function("mul", 2, lambda e, a, b: e.builder.fmul(a, b), fused),
        div=vector_function("div", 2, lambda e, a, b: e.builder.fdiv(a, b), fused),
    )


@intrinsic  # type: ignore[untyped-decorator]
def _store(context: Any, address: Any, offset: Any, vector: Any) -> Any:  # noqa: ARG001
    if not isinstance(vector, Vector):
        return None

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        pointer = _vector_pointer(builder, values[0], values[1], vector.lanes)
        builder.store(values[2], pointer).align = 4
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, vector), code


@intrinsic  # type: ignore[untyped-decorator]
def _tree(context: Any, vector: Any) -> Any:  # noqa: ARG001
    if not isinstance(vector, Vector):
        return None

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        sums, n = values[0], vector.lanes
        while n > 1:
            n //= 2
            undefined, shape = ir.Constant(sums.type, ir.Undefined), ir.VectorType(INT32, n)
            low = builder.shuffle_vector(sums, undefined, ir.Constant(shape, list(range(n))))
            high = builder.shuffle_vector(sums, undefined, ir.Constant(shape, list(range(n, 2 * n))))
            sums = builder.fadd(low, high)
        return builder.extract_element(sums, ir.Constant(INT32, 0))

    return types.float32(vector), code


@intrinsic  # type: ignore[untyped-decorator]
def _store_word(context: Any, address: Any, offset: Any, number: Any) -> Any:  # noqa: ARG001
    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        builder.store(values[2], _pointer(builder, values[0], values[1], ir.IntType(64)))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), code


def _scalar_load(element: Any, result: Any, widen: bool = False) -> Any:
    def definition(context: Any, address: Any, offset: Any) -> Any:  # noqa: ARG001
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
            value = builder.load(_pointer(builder, values[0], values[1], element))
            return builder.sext(value, ir.IntType(64)) if widen else value

        return result(types.int64, types.int64), code

    return intrinsic(definition)


@intrinsic  # type: ignore[untyped-decorator]
def _store_float(context: Any, address: Any, offset: Any, number: Any) -> Any:  # noqa: ARG001
    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        builder.store(values[2], _pointer(builder, values[0], values[1], FLOAT))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32), code


def _turned(builder: Any, rows: list[Any]) -> list[Any]:
    """The transpose of a square of numbers, both as rows: 4, 8 or 16 vectors of as many lanes.

    Twice pairs of rows are interleaved within groups of four lanes, which is one instruction on every
    target; then, of pairs of rows 4 and 8 apart, even groups go to one row and odd ones to the other.
    """
    lanes = len(rows)
    shape = ir.VectorType(INT32, lanes)

    def pairs(distance: int, low: list[int], high: list[int]) -> None:
        for i in range(lanes):
            if not i & distance:
                a, b = rows[i], rows[i + distance]
                rows[i] = builder.shuffle_vector(a, b, ir.Constant(shape, low))
                rows[i + distance] = builder.shuffle_vector(a, b, ir.Constant(shape, high))

    def in_groups(
        four: tuple[int, ...],
    ) -> list[int]:  # 0-3: lanes of the first row's group, 4-7: the second's
        return [g + p if p < 4 else lanes + g + p - 4 for g in range(0, lanes, 4) for p in four]

    rows = list(rows)
    pairs(1, in_groups((0, 4, 1, 5)), in_groups((2, 6, 3, 7)))
    for i in range(0, lanes, 4):
        rows[i + 1], rows[i + 2] = rows[i + 2], rows[i + 1]
    pairs(1, in_groups((0, 1, 4, 5)), in_groups((2, 3, 6, 7)))
    groups = [k // 4 % 2 for k in range(2 * lanes)]
    for distance in (d for d in (4, 8) if d < lanes):
        pairs(distance, *([k for k in range(2 * lanes) if groups[k] == odd] for odd in (0, 1)))
    return rows


def turned_rows(lanes: int) -> tuple[Callable[[Address, int, Address, int], None], ...]:
    """Squares of `lanes` numbers between rows anywhere and a table, rows becoming columns.

    gather(rows, offset, target, stride): numbers from `offset` on of the row at each of the int64 addresses
        at `rows`; number u of row s goes to target[u * stride + s].
    scatter(source, stride, rows, offset): the way back.
    """
    arguments = types.void(types.int64, types.int64, types.int64, types.int64)

    def at_row(builder: Any, rows: Any, offset: Any, s: int) -> Any:
        row = builder.load(_pointer(builder, rows, ir.Constant(ir.IntType(64), s), ir.IntType(64)))
        return _vector_pointer(builder, row, offset, lanes)

    def at_line(builder: Any, table: Any, stride: Any, u: int) -> Any:
        return _vector_pointer(builder, table, builder.mul(stride, ir.Constant(ir.IntType(64), u)), lanes)

    def move(builder: Any, sources: list[Any], targets: list[Any]) -> None:
        loaded = [builder.load(pointer) for pointer in sources]
        for value in loaded:
            value.align = 4
        for value, pointer in zip(_turned(builder, loaded), targets, strict=True):
            builder.store(value, pointer).align = 4

    @intrinsic  # type: ignore[untyped-decorator]
    def gather(context: Any, rows: Any, offset: Any, target: Any, stride: Any) -> Any:  # noqa: ARG001
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
            sources = [at_row(builder, values[0], values[1], s) for s in range(lanes)]
            move(builder, sources, [at_line(builder, values[2], values[3], u) for u in range(lanes)])
            return context.get_dummy_value()

        return arguments, code

    @intrinsic  # type: ignore[untyped-decorator]
    def scatter(context: Any, source: Any, stride: Any, rows: Any, offset: Any) -> Any:  # noqa: ARG001
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
            lines = [at_line(builder, values[0], values[1], u) for u in range(lanes)]
            move(builder, lines, [at_row(builder, values[2], values[3], s) for s in range(lanes)])
            return context.get_dummy_value()

        return arguments, code

    return gather, scatter


# store(address, offset, vector); tree(v): v[j] + v[j+n] for n = lanes/2 ... 1, then v[0].
store: Callable[[Address, int, Vec], None] = _store
tree: Callable[[Vec], float] = _tree
# One number at address + offset elements of its type: float32, float64, int32 (as int64), int64.
load_float: Callable[[Address, int], float] = _scalar_load(FLOAT, types.float32)
load_double: Callable[[Address, int], float] = _scalar_load(ir.DoubleType(), types.float64)
load_int: Callable[[Address, int], int] = _scalar_load(INT32, types.int64, widen=True)
load_word: Callable[[Address, int], int] = _scalar_load(ir.IntType(64), types.int64)
store_float: Callable[[Address, int, Number], None] = _store_float
store_word: Callable[[Address, int, int], None] = _store_word
