"""Weights of two bytes: the bits of a float32 network with rounded weights, however it is stepped."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest

from edge_rnn import Stepper, StepperBatch, WindowStepper
from edge_rnn.core import simd
from edge_rnn.core.float16 import rounded
from edge_rnn.core.jit import widens_halves
from edge_rnn.core.pack import pack
from edge_rnn.errors import SnapshotError
from tests.core.zoo import ODD_MODELS, VARIANTS, bits, model, readings

STEPS = 20


@pytest.mark.parametrize(("lanes", "numeric"), VARIANTS)
def test_bits_are_those_of_float32_with_rounded_weights(lanes, numeric) -> None:
    for name, make in ODD_MODELS.items():
        network = make()
        xs = readings(STEPS, network.input_size)
        expected, own = (
            Stepper(rounded(network), numeric, lanes),
            Stepper(network, numeric, lanes, weights="f16"),
        )
        ys = bits(expected.run(xs))
        assert bits(own.run(xs)) == ys, name
        single = Stepper(network, numeric, lanes, weights="f16")
        assert [bits(single.step(x)) for x in xs] == ys, name
        assert own.snapshot() == single.snapshot() == expected.snapshot(), name


@pytest.mark.parametrize("name", ["lstm-5-20-3-16", "gru-4-33-2-17", "projection-17", "mixed"])
def test_batch_and_window_give_the_same_bits(name) -> None:
    network = ODD_MODELS[name]()
    xs = readings(STEPS, network.input_size)
    expected = bits(Stepper(network, weights="f16").run(xs))
    for n in (2, 64):
        batch = StepperBatch(network, n, weights="f16")
        ys = np.array([batch.step(np.stack([x] * n)) for x in xs])
        assert all(bits(ys[:, row]) == expected for row in range(n))
    window = WindowStepper(network, STEPS, weights="f16")
    assert bits(window.run(xs)) == expected


@pytest.mark.parametrize("name", ODD_MODELS)
def test_rounded_weights_are_float16_and_the_nearest(name) -> None:
    network = ODD_MODELS[name]()
    again = rounded(network)
    pairs = [
        (a, b)
        for one, other in zip(network.layers, again.layers, strict=True)
        for a, b in ((one.w_ih, other.w_ih), (one.w_hh, other.w_hh), (one.w_hr, other.w_hr))
        if a is not None
    ]
    pairs += [(a.weight, b.weight) for a, b in zip(network.head, again.head, strict=True)]
    for a, b in pairs:
        assert bits(b.astype(np.float16)) == bits(b)
        near = np.abs(a) >= 2**-13
        assert bits(a[near].astype(np.float16)) == bits(b[near])
        assert np.abs(a - b)[~near].max(initial=0) <= 2**-24
    for one, other in zip(network.layers, again.layers, strict=True):
        assert one.b_ih is other.b_ih or bits(one.b_ih) == bits(other.b_ih)
    assert all(bits(a) == bits(b) for a, b in zip(_weights(again), _weights(rounded(again)), strict=True))


def _weights(network):
    return [w for y in network.layers for w in (y.w_ih, y.w_hh)] + [y.weight for y in network.head]


def test_matrices_take_half_the_memory() -> None:
    network = rounded(model("lstm", 16, 128))
    whole, half = pack(network, 8), pack(network, 8, half=True)
    assert half.weights.nbytes < 0.51 * whole.weights.nbytes
    assert half.scratch_size == whole.scratch_size
    assert half.layout.digest == whole.layout.digest
    with pytest.raises(ValueError, match="lanes: expected"):
        pack(network, 1, half=True)


@pytest.mark.parametrize("instruction", [True, False])
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_every_finite_float16_is_widened_exactly(lanes, instruction) -> None:
    if instruction and not widens_halves():
        pytest.skip("this processor has no instruction for it")
    load, store = simd.half_load(lanes, instruction), simd.store

    @numba.njit
    def widen(source, result, count):
        for k in range(0, count, lanes):
            store(result, k, load(source, k))

    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)]
    wide = np.empty(every.size, np.float32)
    widen(every.ctypes.data, wide.ctypes.data, every.size)
    assert every.size == 63488
    assert bits(wide) == bits(every)


@pytest.mark.parametrize("field", ["w_ih", "w_hh", "weight"])
def test_a_weight_beyond_float16_is_refused(field) -> None:
    network = model("gru", 3, 7)
    owner = network.head[0] if field == "weight" else network.layers[0]
    weight = getattr(owner, field).copy()
    weight[1, 2] = -65520.0
    changed = replace(owner, **{field: weight})
    network = replace(network, **({"head": (changed,)} if field == "weight" else {"layers": (changed,)}))
    with pytest.raises(ValueError, match=rf"\.{field}\[1, 2\]: -65520 does not fit into float16.*65504"):
        Stepper(network, weights="f16")


def test_snapshots_name_the_rounded_weights() -> None:
    network = model("lstm", 3, 20)
    whole, half = Stepper(network), Stepper(network, weights="f16")
    half.run(readings(3, 3))
    for one, other in ((whole, half), (half, whole)):
        with pytest.raises(SnapshotError, match="expected the weights"):
            one.restore(other.snapshot())
    batch = StepperBatch(network, 2, weights="f16")
    batch.restore(1, half.snapshot())
    assert batch.snapshot(1) == half.snapshot()


def test_unknown_weights_and_libraries_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match='weights: expected "f32" or "f16", got \'int8\''):
        Stepper(model(), weights="int8")
    with pytest.raises(ValueError, match="weights: a library has float32 weights only"):
        Stepper(model(), library=tmp_path, weights="f16")
