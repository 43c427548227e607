"""T, S and E: the activations as listed polynomials, the same bits on every machine.

No library's `tanh` or `exp` is used, because they differ between libraries and processors. Each
function is the same sequence of IEEE operations per lane (fma as its class says); the coefficients are
float32 numbers, given as their exact bits.

    T(x), tanh:             x clamped to [-8, 8];  s = x*x;  (x * P(s)) / Q(s), P and Q of degree 4 by Horner
    S(t), sigmoid of 2t:    fma(T(t), 0.5, 0.5)
    E(x), exp of x <= 0:    x clamped to >= -87;  k = fma(x, log2(e), M) - M with M = 1.5 * 2^23: an integer;
                            r = fma(k, -ln2_low, fma(k, -ln2_high, x));  p = fma(r*r, C(r), r) + 1;  p * 2^k

T: at most 3.0e-7 from tanh in class F, 3.5e-7 in class U, absolute and relative; |T| <= 1. The clamps
have the form that lets a NaN through, so a NaN that got past the guards shows at the output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from llvmlite import ir

from edge_rnn.core.simd import INT32, Emit, Vec, vector_function


def _numbers(*bits: int) -> tuple[float, ...]:
    return tuple(float(v) for v in np.array(bits, np.uint32).view(np.float32))


# Minimax fits (iterated least squares with Lawson's weights), lowest power first.
TANH_P = _numbers(0x3F800000, 0x3E09AC01, 0x3B6A11EB, 0x37B7AB58, 0x3282D546)
TANH_Q = _numbers(0x3F800000, 0x3EEF80A9, 0x3CD65707, 0x39B2DA2A, 0x3564C76D)
TANH_LIMIT = 8.0
EXP_C = _numbers(0x3EFFFFFE, 0x3E2AAA49, 0x3D2AAC79, 0x3C091D10, 0x3AB511E8)
LOG2_E, LN2_HIGH, LN2_LOW = _numbers(0x3FB8AA3B, 0x3F318000, 0xB95E8083)
EXP_LIMIT = -87.0
ROUND = 12582912.0
_ROUND_BITS = 0x4B400000


def _tanh(e: Emit, x: Any) -> Any:
    x = e.at_least(e.at_most(x, TANH_LIMIT), -TANH_LIMIT)
    s = e.builder.fmul(x, x)
    return e.builder.fdiv(e.builder.fmul(x, e.horner(TANH_P, s)), e.horner(TANH_Q, s))


def _sigmoid_of_double(e: Emit, t: Any) -> Any:
    return e.fma(_tanh(e, t), e.constant(0.5), e.constant(0.5))


def _sigmoid(e: Emit, x: Any) -> Any:
    return _sigmoid_of_double(e, e.builder.fmul(x, e.constant(0.5)))


def _exp(e: Emit, x: Any) -> Any:
    b = e.builder
    x = e.at_least(x, EXP_LIMIT)
    shifted = e.fma(x, e.constant(LOG2_E), e.constant(ROUND))
    k = b.fsub(shifted, e.constant(ROUND))
    r = e.fma(k, e.constant(-LN2_LOW), e.fma(k, e.constant(-LN2_HIGH), x))
    p = b.fadd(e.fma(b.fmul(r, r), e.horner(EXP_C, r), r), e.constant(1.0))
    # The low bits of `shifted` are k: moved into the exponent they are 2^k (k >= -126, so it is normal).
    whole = ir.VectorType(INT32, e.kind.count)
    bias = ir.Constant(whole, [_ROUND_BITS - 127] * e.kind.count)
    exponent = b.shl(b.sub(b.bitcast(shifted, whole), bias), ir.Constant(whole, [23] * e.kind.count))
    return b.fmul(p, b.bitcast(exponent, e.kind))


def _relu(e: Emit, x: Any) -> Any:
    return e.at_least(x, 0.0)


@dataclass(frozen=True, slots=True)
class Activations:
    """The activations of one numeric class on vectors of any width.

    tanh: T.  gate: S, the sigmoid of twice its argument (the half is in the packed weights).
    sigmoid: S(x / 2).  exp: E, for x <= 0.  relu: x < 0 ? 0 : x.
    """

    tanh: Callable[[Vec], Vec]
    gate: Callable[[Vec], Vec]
    sigmoid: Callable[[Vec], Vec]
    exp: Callable[[Vec], Vec]
    relu: Callable[[Vec], Vec]


def activations(fused: bool) -> Activations:
    """The activations of class F (fused) or U."""

    def function(name: str, emit: Callable[[Emit, Any], Any]) -> Callable[[Vec], Vec]:
        return cast(Callable[[Vec], Vec], vector_function(name, 1, emit, fused))

    return Activations(
        tanh=function("tanh", _tanh),
        gate=function("gate", _sigmoid_of_double),
        sigmoid=function("sigmoid", _sigmoid),
        exp=function("exp", _exp),
        relu=function("relu", _relu),
    )
