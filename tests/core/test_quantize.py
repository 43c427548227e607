"""w8a16: the compiled integers are those of the formulas, near the float network, and never overflow."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edge_rnn.core.integer_kernel import IntegerPacked
from edge_rnn.core.integer_step import IntegerStepper
from edge_rnn.core.integers import LARGEST, UNIT, IntegerLayer, Quantized, tanh_table
from edge_rnn.core.model import Linear, Model, Recurrent
from edge_rnn.core.quantize import quantize
from edge_rnn.core.reference import Reference
from edge_rnn.core.rounding import round_rows
from edge_rnn.core.stepper import Stepper
from edge_rnn.errors import DataError, ExportError
from tests.core import zoo

CASES = {
    "rnn_tanh": {"cell": "rnn_tanh"},
    "rnn_tanh, two layers": {"cell": "rnn_tanh", "layers": 2},
    "rnn_relu": {"cell": "rnn_relu"},
    "rnn_relu, two layers": {"cell": "rnn_relu", "layers": 2},
    "lstm": {"cell": "lstm"},
    "lstm, two layers": {"cell": "lstm", "layers": 2},
    "lstm, projection": {"cell": "lstm", "proj": 3},
    "lstm, three layers, rest": {"cell": "lstm", "layers": 3, "rest": True},
    "gru": {"cell": "gru"},
    "gru, two layers, no bias": {"cell": "gru", "layers": 2, "bias": False},
    "tanh head": {"cell": "gru", "head": [(3, "tanh")]},
    "sigmoid head": {"cell": "lstm", "head": [(3, "sigmoid")]},
    "relu head": {"cell": "lstm", "head": [(3, "relu")]},
    "no head": {"cell": "gru", "head": []},
}


def made(name: str) -> tuple[Model, np.ndarray]:
    model = zoo.model(**CASES[name], seed=3)
    return model, np.random.default_rng(5).standard_normal((600, model.input_size))


def tanh_(v: int, bits: int = 15) -> int:
    table, one = tanh_table(), 1 << bits
    a, step = min(v if v >= 0 else -v - 1, 8 * one - 1), one // 32
    low, high = int(table[a // step]), int(table[a // step + 1])
    y = low + (high - low) * (a % step) // step
    return -y - 1 if v < 0 else y


def sigmoid_(v: int, bits: int = 15) -> int:
    return UNIT // 2 + (tanh_(v, bits + 1) + 1) // 2


class Plain:
    """The formulas of integers.py in Python's integers, which have no width; every width is asserted."""

    def __init__(self, quantized: Quantized) -> None:
        self.q = quantized
        packed = IntegerPacked(quantized)
        words = packed.row(quantized, packed.layout.rest(quantized.model)).view(np.int32)
        self.h = [[int(v) for v in words[p.h_offset :][: p.h_size]] for p in packed.layout.layers]
        self.c = [[int(v) for v in words[p.c_offset :][: p.c_size]] for p in packed.layout.layers]

    @staticmethod
    def read(layer: IntegerLayer, h: list[int]) -> list[int]:
        if layer.cell == "gru":
            return [min(max((v + 256) >> 9, -UNIT), LARGEST) for v in h]
        return h

    @staticmethod
    def dot(row: np.ndarray, x: list[int]) -> int:
        total = sum(int(w) * v for w, v in zip(row, x, strict=True))
        assert abs(total) < 2**31
        return total

    def layer(self, i: int, x: list[int]) -> list[int]:
        q = self.q.layers[i]
        old, units, bits = self.read(q, self.h[i]), q.hidden_size, q.bits
        inner = []

        def value(gate: int, unit: int) -> int:
            r = gate * units + unit
            a, b = self.dot(q.w_x[r], x) * int(q.m_x[r]), self.dot(q.w_h[r], old) * int(q.m_h[r])
            v = a // 65536 + b // 65536 + int(q.bias[r])
            assert max(int(q.m_x[r]), int(q.m_h[r])) < 2**15
            assert abs(v) < 2**30
            return v

        for u in range(units):
            if q.cell == "lstm":
                gi, gf, gg, go = (value(g, u) for g in range(4))
                c = (sigmoid_(gf, bits) * self.c[i][u] + 16384) >> 15
                c += (sigmoid_(gi, bits) * tanh_(gg, bits) + 128) >> 8
                self.c[i][u] = c = min(max(c, -(2**30)), 2**30 - 1)
                inner.append((sigmoid_(go, bits) * tanh_(c, 22) + 16384) >> 15)
            elif q.cell == "gru":
                r = 2 * units + u
                vx = self.dot(q.w_x[r], x) * int(q.m_x[r]) // 65536 + int(q.bias[r])
                vh = self.dot(q.w_h[r], old) * int(q.m_h[r]) // 65536 + int(q.bias[r + units])
                n = tanh_(vx + ((sigmoid_(value(0, u), bits) * vh + 16384) >> 15), bits)
                z = sigmoid_(value(1, u), bits)
                inner.append(((32768 - z) * 512 * n + z * self.h[i][u] + 16384) >> 15)
                assert abs(inner[-1]) <= 2**24
            elif q.cell == "rnn_relu":
                inner.append(min(max(value(0, u), 0), LARGEST))
            else:
                inner.append(tanh_(value(0, u), bits))
        if q.w_r is not None:
            half = 1 << (q.shift_r - 1)
            sums = [(self.dot(w, inner) * int(m) + half) >> q.shift_r for w, m in zip(q.w_r, q.m_r)]  # noqa: B905
            inner = [min(max(v, -LARGEST), LARGEST) for v in sums]
        self.h[i] = inner
        return self.read(q, inner)

    def step(self, x: np.ndarray) -> np.ndarray:
        t = np.clip(np.float32(x) * self.q.input_scale, -LARGEST, LARGEST)
        signal = [int(v) for v in np.rint(t)]
        for i in range(len(self.q.layers)):
            signal = self.layer(i, signal)
        head = self.q.head
        if head is None:
            return np.array(signal, np.float32) * np.float32(self.q.layers[-1].h_scale)
        sums = np.array([self.dot(row, signal) for row in head.weight], np.int32).astype(np.float32)
        y = sums * head.scale + head.bias
        if head.activation == "none":
            return y
        # The float activations of class U, by a head that passes its input on.
        one = Recurrent("rnn_relu", np.eye(len(y)), np.zeros((len(y), len(y))))
        low = Stepper(Model((one,), (Linear(np.eye(len(y)), None, head.activation),)), numeric="U")
        high = Stepper(Model((one,), (Linear(-np.eye(len(y)), None, head.activation),)), numeric="U")
        return np.where(y < 0, high.run(-y[None])[0], low.run(y[None])[0])


@pytest.mark.parametrize("name", CASES)
def test_the_compiled_step_gives_the_integers_of_the_formulas(name: str) -> None:
    model, xs = made(name)
    quantized = quantize(model, xs[:300])
    ours = IntegerStepper(quantized)
    plain = Plain(quantized)
    wild = np.concatenate([xs[300:420], xs[300:320] * 1e3, xs[320:340] * 1e30])
    expected = np.array([plain.step(x) for x in wild])
    assert np.ptp(expected) > 0.01
    assert ours.run(wild).view(np.uint32).tolist() == expected.view(np.uint32).tolist()


@pytest.mark.parametrize("name", CASES)
def test_steps_one_by_one_and_in_one_call_are_the_same(name: str) -> None:
    model, xs = made(name)
    stepper = IntegerStepper(quantize(model, xs[:300]))
    whole = stepper.run(xs)
    state = stepper.state
    stepper.reset()
    single = np.array([stepper.step(x) for x in xs])
    assert whole.tobytes() == single.tobytes()
    assert state.tolist() == stepper.state.tolist()


@pytest.mark.parametrize("cell", ["rnn_tanh", "rnn_relu", "lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 2])
def test_within_two_percent_of_the_spread_and_no_trend(cell: str, layers: int) -> None:
    """Of each output's standard deviation; an rnn_relu, whose units have no bound, may stray to 3 %."""
    model = zoo.model(cell, inputs=4, hidden=32, layers=layers, outputs=4, seed=2)
    rng = np.random.default_rng(99)
    xs = rng.standard_normal((10_000, 4)).astype(np.float32)
    expected = Reference(model).run(xs)
    error = np.abs(IntegerStepper(quantize(model, rng.standard_normal((3000, 4)))).run(xs) - expected)
    share = error / expected.std(axis=0)
    assert share.max() < (0.03 if cell == "rnn_relu" else 0.02)
    assert np.sqrt((share**2).mean(axis=0)).max() < 0.006
    assert share[-2000:].mean() < 1.3 * share[:2000].mean()


def test_the_table_is_near_tanh() -> None:
    v = np.arange(-9 * UNIT, 9 * UNIT, 37)
    error = [tanh_(int(k)) / UNIT - np.tanh(k / UNIT) for k in v]
    assert max(map(abs, error)) < 8e-5
    assert len(tanh_table()) * 2 == 514
    assert all(0 <= sigmoid_(int(k)) <= UNIT for k in v)
    assert all(sigmoid_(int(k)) + sigmoid_(-int(k) - 1) == UNIT for k in v)


def test_rounding_beats_the_nearest_step_where_inputs_move_together() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(12, 20))
    z = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 20)) + 0.05 * rng.normal(size=(500, 20))
    covariance = np.cov(z.T, bias=True)
    steps, scales, error = round_rows(weights, covariance, 8)
    scale = scales[:, (np.arange(20) >= 8).astype(int)]
    assert np.array_equal(error, weights - steps * scale)
    assert np.abs(steps).max() <= 127
    nearest = np.abs(weights[:, :8]).max(axis=1, keepdims=True) / 127
    nearest = np.hstack(
        [nearest.repeat(8, 1), (np.abs(weights[:, 8:]).max(1, keepdims=True) / 127).repeat(12, 1)]
    )
    plain = weights - np.rint(weights / nearest) * nearest
    ours, theirs = (np.einsum("rk,kl,rl->", e, covariance, e) for e in (error, plain))
    assert ours < 0.25 * theirs


def test_the_same_data_give_the_same_constants() -> None:
    model, xs = made("lstm")
    assert quantize(model, xs).digest == quantize(model, xs).digest
    assert quantize(model, xs).digest != quantize(model, 2 * xs).digest


def test_without_data_the_ranges_of_the_model_file_count() -> None:
    model, xs = made("rnn_relu")
    with pytest.raises(ExportError, match="range of its h is not known"):
        quantize(model)
    ranges = (float(np.abs(Reference(model).run(xs)).max()),)
    layer = quantize(dataclasses.replace(model, activation_ranges=ranges)).layers[0]
    assert layer.h_scale == pytest.approx(3 * ranges[0] / LARGEST)


def test_state_goes_to_integers_and_back() -> None:
    model, xs = made("lstm, three layers, rest")
    quantized = quantize(model, xs)
    packed = IntegerPacked(quantized)
    core = packed.layout.rest(model)
    again = packed.core(quantized, packed.row(quantized, core))
    h = np.concatenate([packed.layout.h(core, i) for i in range(3)])
    back = np.concatenate([packed.layout.h(again, i) for i in range(3)])
    assert np.abs(back - np.clip(h, -1, 1)).max() < 4e-5
    assert np.abs(packed.layout.c(again, 1) - packed.layout.c(core, 1)).max() < 2e-7


@pytest.mark.parametrize(
    ("head", "message"),
    [([(3, "softmax")], "softmax"), ([(3, "relu"), (2, "none")], "at most one Linear")],
)
def test_heads_without_integer_form_are_refused_by_name(head: list, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        quantize(zoo.model("lstm", head=head))


def test_a_network_that_grows_without_bound_has_no_range() -> None:
    model, xs = made("rnn_relu")
    growing = dataclasses.replace(model.layers[0], w_hh=np.full_like(model.layers[0].w_hh, 3.0))
    with pytest.raises(ExportError, match=r"layers\[0\]: its h grows without bound"):
        quantize(Model((growing,), model.head), xs)


def test_what_could_overflow_is_refused_by_name() -> None:
    model, xs = made("lstm")
    layer = model.layers[0]
    huge = dataclasses.replace(layer, w_hh=layer.w_hh * 1e7)
    with pytest.raises(ExportError, match=r"layers\[0\]"):
        quantize(Model((huge,), model.head), xs)
    wide = Recurrent("rnn_tanh", np.ones((1, 600)), np.zeros((1, 1)))
    with pytest.raises(ExportError, match=r"layers\[0\].w_ih: a row of 600 columns"):
        quantize(Model((wide,)), np.random.default_rng(0).choice([-1.0, 1.0], (50, 600)))


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros((5, 2)), np.full((5, 3), np.nan), np.zeros(3)])
def test_calibration_data_must_fit(bad: np.ndarray) -> None:
    with pytest.raises(DataError, match="calibration data"):
        quantize(made("lstm")[0], bad)


def test_inputs_that_are_not_finite_are_refused() -> None:
    model, xs = made("gru")
    stepper = IntegerStepper(quantize(model, xs))
    before = stepper.state
    xs[7, 1] = np.nan
    with pytest.raises(ValueError, match=r"xs\[7, 1\]"):
        stepper.run(xs)
    assert stepper.state.tolist() == before.tolist()
