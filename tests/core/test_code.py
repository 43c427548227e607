"""What the compiler made of it: the numeric contract, read from the generated code itself."""

from __future__ import annotations

import platform
import re
from fractions import Fraction

import numba
import numpy as np
import pytest

from edge_rnn.core import simd
from edge_rnn.core.activations import activations
from edge_rnn.core.jit import jit, target
from edge_rnn.core.kernels import _build_step
from tests.core.zoo import VARIANTS

X86 = platform.machine() in {"x86_64", "AMD64"}
FUSED = re.compile(r"\bvfn?m(?:add|sub)" if X86 else r"\b(?:fml[as]|fn?m(?:add|sub))\b")
FAST = re.compile(r"\bf(?:add|sub|mul|div|cmp|neg)\s+(?:fast|nnan|ninf|nsz|arcp|contract|afn|reassoc)")
ADDRESSES = "void(int64, int64, int64, int64, int64)"


@pytest.fixture(scope="module", params=[(lanes, n == "F") for lanes, n in VARIANTS], ids=str)
def code(request):
    lanes, fused = request.param
    step = _build_step(lanes, fused)
    step.compile(ADDRESSES)
    (ir,), (asm,) = step.inspect_llvm().values(), step.inspect_asm().values()
    assert f"<{lanes} x float>" in ir  # the code under test is the whole step, with its vectors
    assert "fdiv" in ir
    return lanes, fused, ir, asm


def test_no_operation_may_be_rearranged_or_contracted(code) -> None:
    _, _, ir, _ = code
    assert not FAST.search(ir)
    assert not re.search(r"\bcall\s+(?:fast|nnan|ninf|nsz|arcp|contract|afn|reassoc)", ir)
    assert "fmuladd" not in ir
    assert "vector.reduce.fadd" not in ir


def test_class_f_fuses_and_class_u_never_does(code) -> None:
    _, fused, ir, asm = code
    assert ("@llvm.fma." in ir) == fused
    if fused and target().fused:
        assert FUSED.search(asm)
    if not fused:
        assert not FUSED.search(asm)


def test_no_library_function_computes_anything(code) -> None:
    _, fused, ir, asm = code
    if not fused or target().fused:
        assert not re.search(r"\b(?:fmaf?|tanhf?|expf?|exp2f?|_ZGV\w+)\b(?=@|\s|$)", asm)
    assert not re.search(r"@llvm\.(?:exp|pow|log|sin|cos|tanh|minnum|maxnum)", ir)


def test_the_running_sums_stay_in_registers_at_the_chosen_width() -> None:
    step = _build_step(target().lanes, target().fused)
    step.compile(ADDRESSES)
    (asm,) = step.inspect_asm().values()
    assert re.search(r"%[xyz]mm\d" if X86 else r"\bv\d+\.4s", asm)
    assert not re.findall(r"vmov[au]p[sd]\s+%[xyz]mm\d+, -?\d*\(%rsp" if X86 else r"str\s+q\d+, \[sp", asm)


def test_the_expression_for_fused_code_finds_it_and_for_flags_too() -> None:
    assert FUSED.search("\tvfmadd231ps\t(%rax), %zmm1, %zmm2" if X86 else "\tfmla\tv0.4s, v1.4s, v2.s[0]")
    assert FAST.search("%r = fadd contract <8 x float> %a, %b")


# A detector's arithmetic is float64 and must have two roundings for a*b + c, everywhere.
def product_plus(a, b, c):
    return a * b + c


def chain(values, factors):
    total = 0.0
    for k in range(len(values)):
        total += values[k] * factors[k]
    return total


def test_float64_code_is_never_contracted() -> None:
    compiled = jit(product_plus)
    looped = jit(chain)
    a, b = 1.0 + 2.0**-27, 1.0 - 2.0**-27
    c = -(a * b)
    exact = float(Fraction(a) * Fraction(b) + Fraction(c))
    assert exact != 0.0  # fused, the rounding error of the product would remain
    assert compiled(a, b, c) == 0.0
    assert looped(np.array([-1.0, a]), np.array([a * b, b])) == 0.0
    for function in (compiled, looped):
        (asm,) = function.inspect_asm().values()
        assert re.search(r"mulsd" if X86 else r"fmul", asm)
        assert not FUSED.search(asm)


def test_dividing_by_zero_is_ieee() -> None:
    @jit
    def divide(a, b):
        return a / b

    assert divide(1.0, 0.0) == np.inf
    assert np.isnan(divide(0.0, 0.0))


def vector_loop(function, lanes=16):
    """`function` of a vector, over a float32 array whose size is a multiple of `lanes`."""
    load, store = simd.vector_access(lanes).load, simd.store

    @numba.njit
    def loop(source, result, count):
        for k in range(0, count, lanes):
            store(result, k, function(load(source, k)))

    def apply(values):
        values = np.ascontiguousarray(values, np.float32)
        result = np.empty_like(values)
        loop(values.ctypes.data, result.ctypes.data, values.size)
        return result

    return apply


def sampled(low, high):
    """Every 997th float32 in [low, high], the bounds, zeros and their neighbours; padded to 16."""
    positive = np.arange(0, np.float32(max(-low, high)).view(np.uint32), 997, dtype=np.uint32).view(
        np.float32
    )
    values = np.concatenate([positive, -positive, np.array([low, high, 0.0, -0.0], np.float32)])
    values = values[(values >= low) & (values <= high)]
    return np.concatenate([values, np.zeros(-values.size % 16, np.float32)])


@pytest.fixture(scope="module", params=[True, False], ids=["F", "U"])
def functions(request):
    return request.param, activations(request.param)


def test_tanh_is_as_exact_as_stated(functions) -> None:
    fused, own = functions
    x = sampled(-10, 10)
    assert x.size > 2_000_000
    y, exact = vector_loop(own.tanh)(x), np.tanh(x.astype(np.float64))
    bound = 3.0e-7 if fused else 3.5e-7
    assert np.abs(y - exact).max() <= bound
    normal = np.abs(x) > 1e-30
    assert np.abs(y[normal] / exact[normal] - 1).max() <= bound
    assert np.abs(y).max() <= 1
    ends = np.repeat(np.array([8, 9, -8, -1e30], np.float32), 4)
    assert (vector_loop(own.tanh)(ends) == np.sign(ends) * np.float32(0.999999702)).all()
    assert not y[x == 0].any()
    assert (y == -vector_loop(own.tanh)(-x)).all()


def test_sigmoid_is_as_exact_as_stated_and_bounded(functions) -> None:
    _, own = functions
    x = sampled(-20, 20)
    y, exact = vector_loop(own.sigmoid)(x), 0.5 + 0.5 * np.tanh(x.astype(np.float64) / 2)
    assert np.abs(y - exact).max() <= 2e-7
    assert y.min() >= 0
    assert y.max() <= 1
    assert (vector_loop(own.gate)(x / 2) == y).all()


def test_exp_is_as_exact_as_stated(functions) -> None:
    _, own = functions
    x = sampled(-87, 0)
    y, exact = vector_loop(own.exp)(x), np.exp(x.astype(np.float64))
    assert x.size > 1_000_000
    assert np.abs(y / exact - 1).max() <= 1e-7
    assert (y[x == 0] == 1).all()
    assert (vector_loop(own.exp)(np.full(16, -1e30)) == vector_loop(own.exp)(np.full(16, -87))).all()


def test_every_activation_lets_a_nan_through(functions) -> None:
    _, own = functions
    for function in (own.tanh, own.gate, own.sigmoid, own.exp, own.relu):
        x = np.linspace(-4, 0, 16, dtype=np.float32)
        x[5] = np.nan
        y = vector_loop(function)(x)
        assert np.isnan(y).tolist() == np.isnan(x).tolist()


@pytest.mark.parametrize("lanes", [4, 8])
def test_activations_do_not_depend_on_the_width(functions, lanes) -> None:
    _, own = functions
    x = sampled(-10, 0)[:160_000]
    for function in (own.tanh, own.sigmoid, own.exp, own.relu):
        assert (
            vector_loop(function, lanes)(x).view(np.uint32) == vector_loop(function)(x).view(np.uint32)
        ).all()
