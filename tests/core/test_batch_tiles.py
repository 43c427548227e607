"""Many streams in one call: the bits of single steppers, whichever way the rows go through the kernels."""

from __future__ import annotations

import re

import numpy as np
import pytest

from edge_rnn import Stepper, StepperBatch
from edge_rnn.core import batch as batch_module
from edge_rnn.core.jit import jit, target
from edge_rnn.core.simd import turned_rows
from edge_rnn.core.tiles import build_tile
from edge_rnn.core.tiling import fewest_ready, streams
from tests.core.test_code import ADDRESSES, FAST, FUSED, X86
from tests.core.zoo import ODD_MODELS, VARIANTS, bits, model, readings

COUNTS = (1, 2, 3, 15, 16, 17, 63, 64, 65, 200)
ALWAYS, NEVER = 1, 2**62
# As many streams take their steps in one stepper each as its row of states can hold: slow, so few models.
NAMES = ("lstm-4-33-2-17", "gru-5-20-3-16", "rnn_tanh-3-7-2-4", "rnn_relu-2-16-1-5", "projection", "mixed")


def batch(monkeypatch, fewest, *arguments):
    """A batch that uses tiles from `fewest` ready rows on."""
    monkeypatch.setattr(batch_module, "fewest_ready", lambda _model, _lanes: fewest)
    return StepperBatch(*arguments)


def rows_of(of):
    return bits(of._states)


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_that_many_steppers(monkeypatch, name, n) -> None:
    network = ODD_MODELS[name]()
    tiled, alone = batch(monkeypatch, ALWAYS, network, n), [Stepper(network) for _ in range(n)]
    for t in range(3):
        xs = readings(n, network.input_size, seed=t)
        expected = [stepper.step(x) for stepper, x in zip(alone, xs, strict=True)]
        assert bits(tiled.step(xs)) == bits(expected)
    assert rows_of(tiled) == bits([stepper._row for stepper in alone])
    assert [tiled.steps(i) for i in range(n)] == [3] * n


@pytest.mark.parametrize(("lanes", "numeric"), VARIANTS)
@pytest.mark.parametrize("name", ODD_MODELS)
def test_tiles_change_no_bit_in_any_model_width_or_class(monkeypatch, name, lanes, numeric) -> None:
    network = ODD_MODELS[name]()
    for n in (1, streams(lanes) - 1, 2 * streams(lanes) + 3):
        tiled, single = (batch(monkeypatch, f, network, n, numeric, lanes) for f in (ALWAYS, NEVER))
        for t in range(4):
            xs = readings(n, network.input_size, seed=t)
            xs = xs.astype(np.float64) if t == 2 else xs
            assert bits(tiled.step(xs)) == bits(single.step(xs))
        assert rows_of(tiled) == rows_of(single)
        assert not tiled._states[:, tiled._layout.padding()].any()


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
@pytest.mark.parametrize("fewest", [ALWAYS, 5, NEVER])
def test_rows_in_any_order_and_named_several_times(monkeypatch, cell, fewest) -> None:
    network = model(cell, 3, 33, 2, 4, seed=5)
    n = 90
    some = batch(monkeypatch, fewest, network, n)
    alone = [Stepper(network) for _ in range(n)]
    rng = np.random.default_rng(7)
    for t, most in enumerate((1, 2, 5, 64, 70, 200, 40, 0)):
        chosen = rng.permutation(n)[:most] if t % 2 else rng.integers(0, n, most)
        k = len(chosen)
        xs = readings(k, 3, seed=t)
        expected = [alone[i].step(x) for i, x in zip(chosen, xs, strict=True)]
        given = chosen.tolist() if t == 3 else chosen.astype(np.int16) if t == 4 else chosen
        ys = some.step_some(given, xs.tolist() if t == 1 else xs)
        assert ys.shape == (k, 4)
        assert bits(ys) == bits(np.array(expected, np.float32).reshape(k, 4))
    assert rows_of(some) == bits([stepper._row for stepper in alone])
    assert [some.steps(i) for i in range(n)] == [stepper.steps for stepper in alone]


@pytest.mark.parametrize("fewest", [ALWAYS, NEVER])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e300])
def test_one_bad_reading_and_no_stream_is_stepped(monkeypatch, fewest, wrong) -> None:
    network = model("gru", 3, 20, 1, 2)
    some = batch(monkeypatch, fewest, network, 70)
    some.step(readings(70, 3))
    before = rows_of(some)
    xs = readings(70, 3).astype(np.float64)
    xs[68, 1] = wrong
    with pytest.raises(ValueError, match=r"xs\[68, 1\]: expected a finite float32"):
        some.step(xs)
    with pytest.raises(ValueError, match=r"xs\[68, 1\]: expected a finite float32"):
        some.step_some(np.arange(70)[::-1], xs)
    assert rows_of(some) == before
    assert some.steps(3) == 1


@pytest.mark.parametrize("row", [-1, 70, 2**40, -(2**63)])
def test_one_row_that_is_none_and_no_stream_is_stepped(monkeypatch, row) -> None:
    some = batch(monkeypatch, ALWAYS, model("gru", 3, 20, 1, 2), 70)
    before = rows_of(some)
    with pytest.raises(ValueError, match=rf"indices: expected streams 0 to 69, got {row}"):
        some.step_some(np.array([3, row, 4]), readings(3, 3))
    with pytest.raises(ValueError, match="indices: expected whole numbers"):
        some.step_some(np.array([3.0]), readings(1, 3))
    with pytest.raises(ValueError, match="xs: expected shape"):
        some.step_some([3, 4], readings(3, 3))
    assert rows_of(some) == before


def test_answers_are_the_callers(monkeypatch) -> None:
    some = batch(monkeypatch, ALWAYS, model("gru", 2, 5, 1, 2), 8)
    first = some.step(readings(8, 2))
    kept = first.copy()
    second = some.step(readings(8, 2))
    assert not np.shares_memory(first, second)
    assert bits(first) == bits(kept)


def test_arrays_that_compiled_code_cannot_read_give_the_same(monkeypatch) -> None:
    network = model("lstm", 3, 20, 1, 2)
    plain = batch(monkeypatch, ALWAYS, network, 70)
    other = batch(monkeypatch, ALWAYS, network, 70)
    other._words[batch_module.at.ARRAY_TYPE] = 0  # as where NumPy keeps its fields elsewhere
    for t in range(3):
        xs = readings(70, 3, seed=t)
        assert bits(other.step(xs)) == bits(plain.step(np.asfortranarray(xs)))
        twice = np.array([5, 6, 5])
        assert bits(other.step_some(twice, xs[:3])) == bits(plain.step_some(twice, xs[:3]))
    assert rows_of(other) == rows_of(plain)


def test_small_networks_few_rows_and_other_widths_have_their_own_lines() -> None:
    for lanes in (4, 8, 16):
        for cell in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
            for hidden in (1, 16, 17, 64, 500):
                assert 2 <= fewest_ready(model(cell, 2, hidden), lanes) <= streams(lanes)
    assert fewest_ready(model("lstm", 2, 128), 16) < fewest_ready(model("lstm", 2, 32), 16)


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_squares_are_turned_there_and_back(lanes) -> None:
    gather, scatter = turned_rows(lanes)

    @jit
    def there(rows, target):
        gather(rows, 2, target, lanes + 1)

    @jit
    def back(source, rows):
        scatter(source, lanes + 1, rows, 3)

    rows = np.random.default_rng(0).standard_normal((lanes, lanes + 5)).astype(np.float32)
    places = np.array([row.ctypes.data for row in rows])
    table = np.zeros((lanes, lanes + 1), np.float32)
    there(places.ctypes.data, table.ctypes.data)
    assert (table[:, :lanes] == rows[:, 2 : 2 + lanes].T).all()
    expected = rows.copy()
    expected[:, 3 : 3 + lanes] = rows[:, 2 : 2 + lanes]
    back(table.ctypes.data, places.ctypes.data)
    assert (rows == expected).all()


@pytest.mark.parametrize(("lanes", "numeric"), [(16, "F"), (8, "F"), (4, "U")])
def test_the_tiles_code_keeps_the_contract(lanes, numeric) -> None:
    fused = numeric == "F"
    tile = build_tile(lanes, fused)
    tile.compile(ADDRESSES.replace("void", "boolean", 1))
    (ir,), (asm,) = tile.inspect_llvm().values(), tile.inspect_asm().values()
    assert f"<{streams(lanes)} x float>" in ir
    assert not FAST.search(ir)
    assert "fmuladd" not in ir
    assert "vector.reduce.fadd" not in ir
    assert ("@llvm.fma." in ir) == fused
    if not fused:
        assert not FUSED.search(asm)
    if target().fused:
        assert not re.search(r"\b(?:fmaf?|tanhf?|expf?)\b(?=@|\s|$)", asm)
        if fused and lanes == target().lanes and X86:
            # Sums that go to the stack inside the loops would cost more than the multiplications.
            assert len(re.findall(r"vmov[au]p[sd]\s+%[xyz]mm\d+, -?\d*\(%rsp", asm)) < 8
