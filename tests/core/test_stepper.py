"""What a user of Stepper is promised, one promise a test."""

from __future__ import annotations

import copy
import pickle
import tracemalloc

import numpy as np
import pytest

from edge_rnn import Stepper, StepperBatch, WindowStepper
from edge_rnn.core import header, loop
from edge_rnn.core.reference import Reference
from tests.core.zoo import ODD_MODELS, bits, mixed, model, readings


def test_step_returns_a_float32_array() -> None:
    stepper = Stepper(model(outputs=2))
    first = stepper.step([1, 2, 3])
    kept = first.copy()
    second = stepper.step(np.array([1, 2, 3], np.int8))
    assert first.shape == (2,)
    assert first.dtype == np.float32
    assert bits(first) == bits(kept) != bits(second)
    assert stepper.steps == 2


HOLDS = {
    "the array": lambda y: y,
    "a view": lambda y: y[:1],
    "a view of a view": lambda y: y[::-1][1:],
    "a memoryview": memoryview,
    "a tuple": lambda y: (y,),
    "a reference cycle": lambda y: [y].append,
}


@pytest.mark.parametrize("hold", HOLDS.values(), ids=HOLDS)
def test_an_output_that_is_held_never_changes(hold) -> None:
    stepper, network = Stepper(model(outputs=2)), model(outputs=2)
    held, expected = [], []
    for t, x in enumerate(readings(60, 3)):
        y = stepper.step(x)
        if t % 3 != 1:
            held.append((hold(y), y.__array_interface__["data"][0]))
            expected.append(bits(y))
    places = [place for _, place in held]
    assert len(set(places)) == len(places)
    assert expected == [
        row for t, row in enumerate(bits(Stepper(network).run(readings(60, 3)))) if t % 3 != 1
    ]
    if hold is HOLDS["the array"]:
        assert [bits(y) for y, _ in held] == expected


def test_outputs_nobody_holds_share_two_places() -> None:
    stepper = Stepper(model(outputs=2))
    places = set()
    for x in readings(20, 3):
        y = stepper.step(x)
        places.add(y.__array_interface__["data"][0])
    assert len(places) == (2 if header.readable() else 20)


def test_an_output_may_be_the_next_reading() -> None:
    stepper, other = Stepper(model(inputs=3, outputs=3)), Stepper(model(inputs=3, outputs=3))
    y = z = readings(1, 3)[0]
    for _ in range(20):
        y, z = stepper.step(y), other.run(z[None])[0]
        assert bits(y) == bits(z)


class Named(np.ndarray):
    pass


SAME_READING = {
    "float32": lambda x: x,
    "part of a row": lambda x: np.concatenate([x, x])[3:],
    "every second": lambda x: np.repeat(x, 2)[::2],
    "backwards": lambda x: x[::-1].copy()[::-1],
    "read-only": lambda x: np.frombuffer(x.tobytes(), np.float32),
    "not aligned": lambda x: np.frombuffer(b"\0" + x.tobytes(), np.float32, offset=1),
    "big-endian": lambda x: x.astype(">f4"),
    "float64": lambda x: x.astype(np.float64),
    "float16": lambda x: x.astype(np.float16),
    "subclass": lambda x: x.view(Named),
    "list": list,
    "tuple of float": lambda x: tuple(map(float, x)),
    "memoryview": memoryview,
}


@pytest.mark.parametrize("form", SAME_READING.values(), ids=SAME_READING)
def test_a_reading_in_any_form_gives_the_same_bits(form) -> None:
    xs = np.random.default_rng(3).integers(-8, 8, (30, 3)).astype(np.float32) / 4  # exact as float16
    expected = bits(Stepper(model("gru")).run(xs))
    stepper = Stepper(model("gru"))
    assert [bits(stepper.step(form(x))) for x in xs] == expected
    assert stepper.steps == 30


@pytest.mark.parametrize(
    "x",
    [np.float32(1), np.zeros((), np.float32), np.zeros((3, 1), np.float32), np.zeros((1, 3), np.float32),
     np.zeros(2, np.float32), np.zeros(4, np.float32), np.zeros(0), np.zeros((1,) * 30, np.float32),
     np.zeros(3, np.complex64), None, "abc", 3, object(), np.ndarray, np.dtype(np.float32)],
    ids=str,
)  # fmt: skip
def test_anything_that_is_no_reading_is_refused(x) -> None:
    stepper = Stepper(model("lstm", 3, 20))
    stepper.run(readings(5, 3))
    before = stepper.snapshot()
    with pytest.raises(ValueError, match="x: expected"):
        stepper.step(x)
    assert stepper.snapshot() == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_float32_reading_that_is_not_finite_is_refused(value) -> None:
    stepper = Stepper(model("lstm", 3, 20))
    kept = stepper.step(readings(1, 3)[0])
    before, was = stepper.snapshot(), bits(kept)
    for _ in range(3):
        with pytest.raises(ValueError, match=r"x\[2\]: expected a finite float32, got -?(nan|inf)"):
            stepper.step(np.array([0, 0, value], np.float32))
    assert stepper.snapshot() == before
    assert bits(kept) == was


def test_where_numpys_header_is_unknown_all_is_the_same(monkeypatch) -> None:
    assert header.readable()
    monkeypatch.setattr(loop, "readable", lambda: False)
    unknown, known = Stepper(model("gru")), StepperBatch(model("gru"), 1)
    xs = readings(20, 3)
    assert [bits(unknown.step(x)) for x in xs] == bits(np.array([known.step(x[None])[0] for x in xs]))
    assert [bits(y) for y in [unknown.step(x) for x in xs]] == bits(known.step_some([0] * 20, xs))


@pytest.mark.parametrize("field", ["TYPE", "DATA", "DIMENSIONS", "SHAPE", "DTYPE", "FLAGS"])
def test_a_field_elsewhere_in_numpys_header_is_noticed(monkeypatch, field) -> None:
    header.readable.cache_clear()
    try:
        if field == "SHAPE":  # the strides: also an address of numbers
            monkeypatch.setattr(header, "SHAPE", header.SHAPE + 8)
        else:
            monkeypatch.setattr(header, field, getattr(header, field) + (4 if field == "FLAGS" else -8))
        assert not header.readable()
    finally:
        monkeypatch.undo()
        header.readable.cache_clear()


def test_run_of_nothing_is_empty() -> None:
    stepper = Stepper(model(outputs=2))
    assert stepper.run(np.zeros((0, 3))).shape == (0, 2)
    assert stepper.steps == 0


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([0, float("nan"), 0], r"x\[1\]: expected a finite float32, got nan"),
        ([0, 0, float("inf")], r"x\[2\]: expected a finite float32, got inf"),
        ([-1e300, 0, 0], r"x\[0\]: expected a finite float32, got -1e\+300 \(out of float32's range\)"),
        ([1, 2], r"x: expected shape \(3,\), got \(2,\)"),
        ([[1, 2, 3]], r"x: expected shape \(3,\), got \(1, 3\)"),
        (1.0, r"x: expected shape \(3,\), got \(\)"),
        (["a", "b", "c"], r"x: expected numbers of shape \(3,\), got dtype <U1"),
        ([1j, 0, 0], r"x: expected numbers of shape \(3,\), got dtype complex128"),
        ([[1], [2, 3], [4]], r"x: expected numbers of shape \(3,\), got ragged rows"),
    ],
)
def test_a_bad_reading_is_refused_and_the_state_unchanged(x, message) -> None:
    for numeric in ("F", "U"):
        stepper = Stepper(model("lstm", 3, 20), numeric)
        stepper.run(readings(5, 3))
        before = stepper.snapshot()
        with pytest.raises(ValueError, match=message):
            stepper.step(x)
        assert stepper.snapshot() == before


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_run_names_the_first_bad_reading_and_steps_nothing(dtype, value) -> None:
    stepper = Stepper(model("gru", 3, 20))
    before = stepper.snapshot()
    xs = readings(9, 3).astype(dtype)
    xs[6, 2] = xs[8, 0] = value
    with pytest.raises(
        ValueError, match=r"xs\[6, 2\]: expected a finite float32, got -?(nan|inf).*nothing was stepped"
    ):
        stepper.run(xs)
    assert stepper.snapshot() == before
    with pytest.raises(ValueError, match=r"xs: expected shape \(T, 3\), got \(3,\)"):
        stepper.run(xs[0])


def test_unknown_numeric_class_and_lanes_are_refused() -> None:
    with pytest.raises(
        ValueError, match='numeric: expected "auto", "F" or "U", got "f"'.replace('"f"', "'f'")
    ):
        Stepper(model(), "f")
    with pytest.raises(ValueError, match="lanes: expected 4, 8 or 16, got 1"):
        Stepper(model(), lanes=1)


def test_state_has_pytorchs_shapes_and_comes_back() -> None:
    stepper = Stepper(model("lstm", 3, 20, 2, proj=5))
    stepper.run(readings(5, 3))
    h, c = stepper.get_state()
    assert h.shape == (2, 5)
    assert c.shape == (2, 20)
    assert bits(stepper.hidden(1)) == bits(h[1])
    assert bits(stepper.cell(0)) == bits(c[0])
    other = Stepper(stepper.model)
    other.set_state(h[:, None, :], c[:, None, :])
    assert other.steps == 0
    assert bits(other.step([1, 2, 3])) == bits(stepper.step([1, 2, 3]))


def test_state_of_layers_of_different_kind_is_a_list() -> None:
    stepper = Stepper(mixed())
    stepper.run(readings(5, 2))
    h, c = stepper.get_state()
    assert [v.shape for v in h] == [(5,), (3,), (33,), (4,)]
    assert [None if v is None else v.shape for v in c] == [None, (18,), None, None]
    other = Stepper(stepper.model)
    other.set_state(h, c)
    assert bits(other.step([1, 2])) == bits(stepper.step([1, 2]))
    assert Stepper(model("gru")).get_state().c is None


@pytest.mark.parametrize(
    ("h", "c", "message"),
    [
        (np.zeros((1, 7)), None, r"c\[0\]: expected 7 numbers, got None"),
        (np.zeros((2, 7)), np.zeros((1, 7)), r"h: expected 1 layer\(s\), got 2"),
        (np.zeros((1, 6)), np.zeros((1, 7)), r"h\[0\]: expected shape \(7,\), got \(6,\)"),
        (np.zeros((1, 7)), np.full((1, 7), np.inf), r"c\[0\]: expected finite numbers, got inf"),
        (np.full((1, 7), 1e300), np.zeros((1, 7)), r"h\[0\]: expected finite numbers, got 1e\+300"),
        (np.zeros((1, 2, 7)), np.zeros((1, 7)), r"h\[0\]: expected shape \(7,\), got \(2, 7\)"),
        (3.0, None, r"h\[0\]: expected shape \(7,\), got \(\)"),
        (["a"], None, r"h\[0\]: expected numbers of shape \(7,\), got dtype <U1"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(h, c, message) -> None:
    stepper = Stepper(model("lstm", 3, 7))
    stepper.run(readings(3, 3))
    before = stepper.snapshot()
    with pytest.raises(ValueError, match=message):
        stepper.set_state(h, c)
    assert stepper.snapshot() == before


def test_a_cell_without_c_takes_none() -> None:
    with pytest.raises(ValueError, match=r"c\[0\]: expected None, because a gru has no cell state"):
        Stepper(model("gru")).set_state(np.zeros((1, 7)), np.zeros((1, 7)))
    with pytest.raises(ValueError, match="only an lstm has a cell state, got gru"):
        Stepper(model("gru")).cell(0)
    with pytest.raises(ValueError, match="layer: expected 0 to 0, got 1"):
        Stepper(model("gru")).hidden(1)


@pytest.mark.parametrize("rest", [False, True])
def test_reset_goes_to_the_rest_state_or_to_zeros(rest) -> None:
    network = model("lstm", 3, 20, 2, rest=rest)
    stepper = Stepper(network)
    fresh = stepper.snapshot()
    for layer in range(2):
        expected = network.rest_state.h[layer] if rest else np.zeros(20)
        assert bits(stepper.hidden(layer)) == bits(expected)
        assert bits(stepper.cell(layer)) == bits(network.rest_state.c[layer] if rest else np.zeros(20))
    first = stepper.run(readings(5, 3))
    assert stepper.snapshot() != fresh
    stepper.reset()
    assert stepper.snapshot() == fresh
    assert bits(stepper.run(readings(5, 3))) == bits(first)
    assert np.abs(first - Reference(network).run(readings(5, 3))).max() < 5e-7


def test_forecast_feeds_outputs_back_and_leaves_the_state() -> None:
    stepper = Stepper(model("gru", 4, 20, 2, 4))
    y = stepper.run(readings(5, 4))[-1]
    before = stepper.snapshot()
    ahead = stepper.forecast(6)
    assert ahead.shape == (6, 4)
    assert stepper.snapshot() == before
    assert stepper.forecast(0).shape == (0, 4)
    for expected in ahead:
        y = stepper.step(y)
        assert bits(y) == bits(expected)


def test_forecast_says_why_it_cannot() -> None:
    with pytest.raises(
        ValueError, match="needs a model whose outputs are its inputs, got 3 inputs and 2 outputs"
    ):
        Stepper(model(inputs=3, outputs=2)).forecast(3)
    stepper = Stepper(model(inputs=3, outputs=3))
    with pytest.raises(ValueError, match="nothing was stepped yet"):
        stepper.forecast(3)
    stepper.step([1, 2, 3])
    with pytest.raises(ValueError, match="expected n >= 0, got -1"):
        stepper.forecast(-1)


@pytest.mark.parametrize(
    "name", ["lstm-3-7-2-4", "gru-3-7-2-4", "rnn_tanh-3-7-2-4", "rnn_relu-3-7-2-4", "mixed", "projection"]
)
def test_gates_are_those_of_the_step_and_nothing_changes(name) -> None:
    network = ODD_MODELS[name]()
    stepper = Stepper(network)
    xs = readings(6, network.input_size)
    stepper.run(xs[:5])
    before = stepper.snapshot()
    gates = stepper.gates(xs[5])
    assert stepper.snapshot() == before
    old = [(stepper.hidden(i), layer) for i, layer in enumerate(network.layers)]
    cells = [stepper.cell(i) if layer.cell == "lstm" else None for i, layer in enumerate(network.layers)]
    stepper.step(xs[5])
    assert len(gates) == len(network.layers)
    for index, ((h, layer), c, of_layer) in enumerate(zip(old, cells, gates, strict=True)):
        if layer.cell == "lstm":
            assert list(of_layer) == ["i", "f", "g", "o"]
            new_c = of_layer["f"] * c + of_layer["i"] * of_layer["g"]
            np.testing.assert_allclose(stepper.cell(index), new_c, atol=1e-6)
            new_h = of_layer["o"] * np.tanh(new_c)
            new_h = new_h if layer.w_hr is None else layer.w_hr @ new_h
        elif layer.cell == "gru":
            assert list(of_layer) == ["r", "z", "n"]
            new_h = (1 - of_layer["z"]) * of_layer["n"] + of_layer["z"] * h
        else:
            assert list(of_layer) == ["h"]
            new_h = of_layer["h"]
        np.testing.assert_allclose(stepper.hidden(index), new_h, atol=1e-6)


def test_gates_refuse_what_step_refuses() -> None:
    stepper = Stepper(model())
    with pytest.raises(ValueError, match=r"x\[1\]: expected a finite float32, got nan"):
        stepper.gates([0, np.nan, 0])
    with pytest.raises(ValueError, match="out of float32's range"):
        stepper.gates([1e300, 0, 0])
    with pytest.raises(ValueError, match=r"x: expected shape \(3,\)"):
        stepper.gates([0])


@pytest.mark.parametrize("cell", ["rnn_tanh", "rnn_relu", "lstm", "gru"])
@pytest.mark.parametrize("activation", ["none", "relu", "tanh", "sigmoid", "softmax"])
def test_a_nan_forced_past_the_guard_shows_at_every_output(cell, activation) -> None:
    for numeric in ("F", "U"):
        stepper = Stepper(model(cell, 3, 20, 2, head=[(5, activation)]), numeric)
        stepper.run(readings(3, 3))
        stepper._layout.h(stepper._row, 0)[7] = np.nan
        assert np.isnan(stepper.run(readings(3, 3))).all()


def test_ten_thousand_steps_allocate_nothing() -> None:
    stepper = Stepper(model("lstm", 3, 33, 2, 3))
    xs = list(readings(10_000, 3))
    many = readings(10_000, 3)
    for x in xs[:100]:
        stepper.step(x)
    drive, table, nothing = stepper._drive, stepper._table, 0
    tracemalloc.start()
    try:
        start, _ = tracemalloc.get_traced_memory()
        for _ in xs:
            drive(table, nothing)
        _, in_code = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for x in xs:
            stepper.step(x)
        left, with_outputs = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        ys = stepper.run(many)
        _, run_peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert in_code - start < 256  # the compiled loop: nothing but the frame's own small change
    assert with_outputs - start < 2048  # one output array at a time
    assert left - start < 2048
    assert run_peak - left < ys.nbytes + 4096  # the outputs asked for, nothing per step


def test_batch_rows_are_streams_of_their_own() -> None:
    network = model("lstm", 3, 20, 2)
    batch, single = StepperBatch(network, 4), Stepper(network)
    batch.step(readings(4, 3))
    assert len(batch) == 4
    single.restore(batch.snapshot(2))
    assert bits(single.get_state().h) == bits(batch.get_state(2).h)
    batch.restore(0, single.snapshot())
    assert batch.snapshot(0) == batch.snapshot(2)
    batch.set_state(1, *single.get_state())
    assert bits(batch.get_state(1).c) == bits(single.get_state().c)
    assert [batch.steps(row) for row in range(4)] == [1, 0, 1, 1]
    batch.reset(3)
    fresh = StepperBatch(network, 1).snapshot(0)
    assert batch.snapshot(3) == fresh != batch.snapshot(2)
    batch.reset()
    assert all(batch.snapshot(row) == fresh for row in range(4))


def test_a_batch_takes_readings_in_any_form() -> None:
    xs = np.random.default_rng(3).integers(-8, 8, (5, 3)).astype(np.float32) / 4
    batch, alone = StepperBatch(model("gru"), 5), [Stepper(model("gru")) for _ in range(5)]
    forms = (
        lambda x: x,
        lambda x: x.astype(np.float64),
        np.asfortranarray,
        lambda x: np.concatenate([x, x])[5:],
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: x.astype(">f4"),
        lambda x: np.frombuffer(b"\0" + x.tobytes(), np.float32, offset=1).reshape(5, 3),
        lambda x: x.tolist(),
    )
    outputs = []
    for form in forms:
        expected = np.array([stepper.step(x) for stepper, x in zip(alone, xs, strict=True)])
        outputs.append((batch.step(form(xs)), expected))
    assert all(bits(ys) == bits(expected) for ys, expected in outputs)
    assert [batch.steps(row) for row in range(5)] == [len(forms)] * 5
    before = [batch.snapshot(row) for row in range(5)]
    for wrong in (xs[:4], xs[None], xs[0], np.zeros((3, 5), np.float32), np.zeros(15, np.float32), None):
        with pytest.raises(ValueError, match="xs: expected"):
            batch.step(wrong)
    assert [batch.snapshot(row) for row in range(5)] == before


def test_batch_refuses_what_does_not_fit_and_steps_nothing() -> None:
    batch = StepperBatch(model("gru", 3, 20), 3)
    before = [batch.snapshot(row) for row in range(3)]
    bad = readings(3, 3)
    bad[1, 2] = np.nan
    for call, message in (
        (lambda: batch.step(bad), r"xs\[1, 2\]: expected a finite float32, got nan"),
        (lambda: batch.step(bad[:2]), r"xs: expected shape \(3, 3\), got \(2, 3\)"),
        (lambda: batch.step_some([0, 3], bad[:2]), "indices: expected streams 0 to 2, got 3"),
        (lambda: batch.step_some([0, -1], bad[:2]), "indices: expected streams 0 to 2, got -1"),
        (lambda: batch.step_some([0.5], bad[:1]), "indices: expected whole numbers"),
        (lambda: batch.step_some([0], bad[:2]), r"xs: expected shape \(1, 3\), got \(2, 3\)"),
        (lambda: batch.snapshot(3), "row: expected a stream from 0 to 2, got 3"),
        (lambda: StepperBatch(model(), 0), "n: expected at least one stream, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert [batch.snapshot(row) for row in range(3)] == before


@pytest.mark.parametrize("make", [Stepper, lambda m: StepperBatch(m, 2), lambda m: WindowStepper(m, 3)])
@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_a_copy_that_would_share_memory_is_refused(make, copied) -> None:
    with pytest.raises(TypeError, match=r"cannot be copied or pickled.*snapshot\(\) and restore\(\)"):
        copied(make(model("gru", 2, 5)))
