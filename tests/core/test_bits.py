"""One result, however it is computed: vector widths, step, run, batch, restarts, all bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_rnn import Stepper, StepperBatch
from tests.core.zoo import ODD_MODELS, VARIANTS, bits, mixed, model, readings

STEPS = 40


@pytest.mark.parametrize("numeric", ["F", "U"])
@pytest.mark.parametrize("name", ODD_MODELS)
def test_every_vector_width_gives_the_same_bits(name, numeric) -> None:
    network = ODD_MODELS[name]()
    xs = readings(STEPS, network.input_size)
    steppers = [Stepper(network, numeric, lanes=lanes) for lanes in (4, 8, 16)]
    results = [bits(s.run(xs)) for s in steppers]
    assert results[0] == results[1] == results[2]
    assert steppers[0].snapshot() == steppers[1].snapshot() == steppers[2].snapshot()
    assert any(any(row) for row in results[0])


@pytest.mark.parametrize(("lanes", "numeric"), VARIANTS)
@pytest.mark.parametrize(
    "name", ["lstm-4-33-2-17", "gru-5-20-3-16", "rnn_relu-3-7-2-4", "projection", "mixed"]
)
def test_step_run_and_batch_give_the_same_bits(name, lanes, numeric) -> None:
    network = ODD_MODELS[name]()
    xs = readings(STEPS, network.input_size)
    whole = Stepper(network, numeric, lanes)
    expected = bits(whole.run(xs))
    single = Stepper(network, numeric, lanes)
    assert [bits(single.step(x)) for x in xs] == expected
    assert single.snapshot() == whole.snapshot()
    batch = StepperBatch(network, 3, numeric, lanes)
    batched = np.array([batch.step(np.stack([x, x, x])) for x in xs])
    assert all(bits(batched[:, row]) == expected for row in range(3))
    assert all(batch.snapshot(row) == whole.snapshot() for row in range(3))


@pytest.mark.parametrize("name", ODD_MODELS)
def test_a_run_cut_in_pieces_gives_the_same_bits(name) -> None:
    network = ODD_MODELS[name]()
    xs = readings(STEPS, network.input_size)
    pieces = Stepper(network)
    parts = [pieces.run(xs[a:b]) for a, b in ((0, 1), (1, 1), (1, 17), (17, STEPS))]
    assert bits(np.concatenate(parts)) == bits(Stepper(network).run(xs))
    assert pieces.steps == STEPS


def test_float64_and_float32_readings_give_the_same_bits() -> None:
    network = model("gru", 3, 20)
    xs = np.random.default_rng(2).standard_normal((STEPS, 3))
    expected = bits(Stepper(network).run(xs.astype(np.float32)))
    assert bits(Stepper(network).run(xs)) == expected
    assert bits(Stepper(network).run(np.asfortranarray(xs))) == expected
    lists = Stepper(network)
    assert [bits(lists.step(x.tolist())) for x in xs] == expected


@pytest.mark.parametrize(
    "name", ["lstm-4-33-2-17", "gru-5-20-3-16", "rnn_tanh-2-16-1-5", "projection", "mixed"]
)
def test_a_snapshot_at_every_step_continues_as_if_never_stopped(name) -> None:
    network = ODD_MODELS[name]()
    xs = readings(25, network.input_size)
    expected = bits(Stepper(network).run(xs))
    running, other = Stepper(network), Stepper(network, lanes=4)
    for t in range(len(xs)):
        saved = running.snapshot()
        other.reset()
        other.restore(saved)
        assert other.steps == t
        assert other.snapshot() == saved
        assert bits(other.run(xs[t:])) == expected[t:]
        running.step(xs[t])


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("name", ODD_MODELS)
def test_padding_of_the_state_stays_plus_zero(name, lanes) -> None:
    network = ODD_MODELS[name]()
    stepper = Stepper(network, lanes=lanes)
    stepper.run(readings(200, network.input_size))
    padding = stepper._layout.padding()
    assert padding.any()
    assert not stepper._row[padding].view(np.uint32).any()


@settings(max_examples=40)
@given(data=st.data(), rows=st.integers(1, 6))
def test_any_interleaving_of_streams_equals_each_alone(data, rows) -> None:
    network = mixed()
    calls = data.draw(st.lists(st.lists(st.integers(0, rows - 1), max_size=8), max_size=12))
    values = np.random.default_rng(len(calls)).standard_normal((sum(map(len, calls)), 2)).astype(np.float32)
    batch = StepperBatch(network, rows)
    alone = [Stepper(network) for _ in range(rows)]
    taken = 0
    for call in calls:
        xs = values[taken : taken + len(call)]
        taken += len(call)
        ys = batch.step_some(call, xs)
        assert [bits(y) for y in ys] == [bits(alone[row].step(x)) for row, x in zip(call, xs, strict=True)]
    for row in range(rows):
        assert batch.snapshot(row) == alone[row].snapshot()


def test_the_classes_agree_within_their_bound() -> None:
    for name, make in ODD_MODELS.items():
        network = make()
        xs = readings(2000, network.input_size)
        fused, unfused = Stepper(network, "F").run(xs), Stepper(network, "U").run(xs)
        assert np.abs(fused - unfused).max() <= 5e-7 * max(1.0, np.abs(fused).max()), name
    assert bits(fused) != bits(unfused)
