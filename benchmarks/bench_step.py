"""The step's time: called once per reading, inside one call, and many streams in one call.

    pytest benchmarks/bench_step.py --benchmark-enable --benchmark-only --benchmark-group-by=param:network

`step` is a Python call per reading; `run` and `batch` are one call for COUNT readings or streams, so their
times are divided by COUNT. NumPy by hand and plain Numba loops are what one would write without this
package; they run in the same session with the same weights, and their outputs are compared.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import pytest

from benchmarks.conftest import SHAPES
from edge_rnn import Model, Stepper, StepperBatch

COUNT = 256
Step = Callable[[np.ndarray], np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def numpy_by_hand(model: Model) -> Step:
    """One reading in float32 NumPy, as most people would write it."""
    state = [[np.zeros(r.hidden_size, np.float32), np.zeros(r.hidden_size, np.float32)] for r in model.layers]
    linear = model.head[0]

    def step(x: np.ndarray) -> np.ndarray:
        for layer, hc in zip(model.layers, state, strict=True):
            h, c = hc
            from_x, from_h = layer.w_ih @ x + layer.b_ih, layer.w_hh @ h + layer.b_hh
            if layer.cell == "lstm":
                i, f, g, o = np.split(from_x + from_h, 4)
                hc[1] = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                hc[0] = sigmoid(o) * np.tanh(hc[1])
            else:
                (rx, zx, nx), (rh, zh, nh) = np.split(from_x, 3), np.split(from_h, 3)
                z = sigmoid(zx + zh)
                n = np.tanh(nx + sigmoid(rx + rh) * nh)
                hc[0] = (1 - z) * n + z * h
            x = hc[0]
        return linear.weight @ x + linear.bias

    return step


@numba.njit
def plain_lstm(w_ih, w_hh, b_ih, b_hh, x, h, c, z):
    size = h.shape[0]
    for row in range(4 * size):
        total = b_ih[row] + b_hh[row]
        for j in range(x.shape[0]):
            total += w_ih[row, j] * x[j]
        for k in range(size):
            total += w_hh[row, k] * h[k]
        z[row] = total
    for u in range(size):
        i, f = 1 / (1 + np.exp(-z[u])), 1 / (1 + np.exp(-z[size + u]))
        c[u] = f * c[u] + i * np.tanh(z[2 * size + u])
        h[u] = np.tanh(c[u]) / (1 + np.exp(-z[3 * size + u]))


def numba_plain_loops(model: Model) -> Step:
    """One reading in plain Numba loops over arrays (lstm only)."""
    state = [[np.zeros(n * r.hidden_size, np.float32) for n in (1, 1, 4)] for r in model.layers]
    linear = model.head[0]

    def step(x: np.ndarray) -> np.ndarray:
        for layer, (h, c, z) in zip(model.layers, state, strict=True):
            plain_lstm(layer.w_ih, layer.w_hh, layer.b_ih, layer.b_hh, x, h, c, z)
            x = h
        return linear.weight @ x + linear.bias

    return step


def readings(model: Model, count: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, model.input_size)).astype(np.float32)


def check(model: Model, step: Step) -> None:
    """A benchmark of wrong numbers is worth nothing."""
    xs = readings(model, 20)
    ys = np.array([step(x) for x in xs])
    np.testing.assert_allclose(Stepper(model).run(xs), ys, atol=2e-6)


def test_step(benchmark, network) -> None:
    stepper = Stepper(network)
    check(network, Stepper(network).step)
    benchmark(stepper.step, readings(network, 1)[0])


def test_step_numpy_by_hand(benchmark, network) -> None:
    check(network, numpy_by_hand(network))
    benchmark(numpy_by_hand(network), readings(network, 1)[0])


@pytest.mark.parametrize("network", [("lstm", *shape) for shape in SHAPES], indirect=True, ids=str)
def test_step_numba_plain_loops(benchmark, network) -> None:
    check(network, numba_plain_loops(network))
    benchmark(numba_plain_loops(network), readings(network, 1)[0])


def test_run(benchmark, network) -> None:
    stepper, xs = Stepper(network), readings(network, COUNT)
    benchmark.extra_info["per"] = COUNT
    ys = benchmark(stepper.run, xs)
    assert ys.shape == xs.shape


def test_batch_some(benchmark, network) -> None:
    batch, xs = StepperBatch(network, 16 * COUNT), readings(network, COUNT)
    some = np.arange(0, 16 * COUNT, 16)
    benchmark.extra_info["per"] = COUNT
    assert benchmark(batch.step_some, some, xs).shape == xs.shape


def test_batch(benchmark, network) -> None:
    batch, xs = StepperBatch(network, COUNT), readings(network, COUNT)
    benchmark.extra_info["per"] = COUNT
    ys = benchmark(batch.step, xs)
    assert ys.shape == xs.shape
