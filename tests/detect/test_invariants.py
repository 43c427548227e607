"""What must hold for any detector and any readings: cutting, future, restart, channel order, finiteness."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_rnn.core.detector_spec import ConditionSpec, DetectorSpec, GuardSpec, ThresholdSpec
from edge_rnn.core.model import Linear, Model, Recurrent, Scaler
from edge_rnn.detect.detector import Detector, DetectorTable, score
from edge_rnn.detect.thresholds import export_obstacles
from edge_rnn.errors import ModelFileError
from tests.detect.models import SECOND, model, readings, scorer, spec
from tests.detect.test_twin import series, specs


def same(a: np.ndarray, b: np.ndarray) -> None:
    """Equal in every bit of every field."""
    for name in a.dtype.names:
        np.testing.assert_array_equal(a[name].tobytes(), b[name].tobytes(), err_msg=name)


@settings(max_examples=60)
@given(st.data())
def test_any_cutting_gives_the_same_bits(data: st.DataObject) -> None:
    of = model(2, data.draw(specs(2)), cell="lstm")
    times, x, present = data.draw(series(2))
    whole = Detector(of).run(times, x, present)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(times)), max_size=6)))
    parts, detector = [], Detector(of)
    for start, stop in zip([0, *cuts], [*cuts, len(times)], strict=True):
        parts.append(detector.run(times[start:stop], x[start:stop], present[start:stop]))
    same(np.concatenate(parts), whole)


@settings(max_examples=40)
@given(st.data())
def test_the_future_changes_no_past_verdict(data: st.DataObject) -> None:
    of = model(2, data.draw(specs(2)))
    times, x, present = data.draw(series(2))
    cut = data.draw(st.integers(1, len(times) - 1))
    other = x.copy()
    other[cut:] = 1e6
    same(Detector(of).run(times, x, present)[:cut], Detector(of).run(times, other, present)[:cut])


@settings(max_examples=40)
@given(st.data())
def test_a_restart_anywhere_gives_the_same_bits(data: st.DataObject) -> None:
    of = model(2, data.draw(specs(2)))
    times, x, present = data.draw(series(2))
    whole = Detector(of).run(times, x, present)
    cut = data.draw(st.integers(0, len(times)))
    before = Detector(of)
    before.run(times[:cut], x[:cut], present[:cut])
    after = Detector(of)
    after.restore(before.snapshot())
    same(after.run(times[cut:], x[cut:], present[cut:]), whole[cut:])


@settings(max_examples=30)
@given(st.data())
def test_score_is_a_pure_function_of_state_and_readings(data: st.DataObject) -> None:
    of = model(2, data.draw(specs(2)))
    times, x, present = data.draw(series(2, count=15))
    items = [(int(t), row, here) for t, row, here in zip(times, x, present, strict=True)]
    whole_state, whole = score(of, b"", items)
    state, parts = b"", []
    for size in data.draw(st.lists(st.integers(0, 5), max_size=8)):
        state, verdicts = score(of, state, items[len(parts) : len(parts) + size])
        parts += verdicts
    state, rest = score(of, state, items[len(parts) :])
    parts += rest
    assert state == whole_state
    assert [v.status for v in parts] == [v.status for v in whole]
    for a, b in zip(parts, whole, strict=True):
        np.testing.assert_array_equal([a.score, a.threshold, *a.share], [b.score, b.threshold, *b.share])
    detector = Detector(of)
    for (time, row, here), verdict in zip(items, whole, strict=True):
        np.testing.assert_array_equal(detector.step(row, time, here).score, verdict.score)


def test_calls_of_score_do_not_disturb_each_other() -> None:
    of = model(2)
    times, x = readings(50, of)
    items = list(zip(times.tolist(), x.tolist(), strict=True))
    _, alone = score(of, b"", items)

    def with_calls_in_between() -> Iterator[tuple[int, list[float]]]:
        for item in items:
            score(of, b"", items[:7])
            yield item

    _, disturbed = score(of, b"", with_calls_in_between())
    assert [v.score.hex() for v in disturbed] == [v.score.hex() for v in alone]
    assert [v.step for v in disturbed] == list(range(1, 51))


@settings(max_examples=30)
@given(st.data())
def test_interleaved_streams_equal_each_alone(data: st.DataObject) -> None:
    of = model(2, data.draw(specs(2)))
    alone = [data.draw(series(2, count=20)) for _ in range(3)]
    order = data.draw(st.permutations([s for s in range(3) for _ in range(20)]))
    table = DetectorTable(of, 5)
    at = [0, 0, 0]
    rows, times, xs, here = [], [], [], []
    for s in order:
        t, x, p = alone[s]
        rows.append(2 * s)
        times.append(t[at[s]])
        xs.append(x[at[s]])
        here.append(p[at[s]])
        at[s] += 1
    out = np.zeros(60, table.verdict_dtype)
    cut = data.draw(st.integers(0, 60))
    for part in (slice(0, cut), slice(cut, 60)):
        table.step_rows(
            np.array(rows[part], np.int64), np.array(times[part], np.int64),
            np.array(xs[part], np.float64).reshape(-1, 2),
            np.array(here[part], np.uint8).reshape(-1, 2), out[part],
        )  # fmt: skip
    for s in range(3):
        same(out[np.array(rows) == 2 * s], Detector(of).run(*alone[s]))
        assert table.snapshot(2 * s) != table.snapshot(1)


def permuted(of: Model, order: list[int]) -> Model:
    """The same model with its channels in another order."""
    layer, head, scaler, d = of.layers[0], of.head[0], of.scaler, of.detector
    c = len(order)

    def scorer_in(order: list[int], s):
        precision = np.array(s.precision)
        moved = (
            precision.reshape(c, c)[np.ix_(order, order)].ravel() if s.kind == "mewma" else precision[order]
        )
        center = np.array(s.center)[order]
        return msgspec.structs.replace(s, center=tuple(center.tolist()), precision=tuple(moved.tolist()))

    return Model(
        layers=(Recurrent(layer.cell, layer.w_ih[:, order], layer.w_hh, layer.b_ih, layer.b_hh),),
        head=(Linear(head.weight[order], head.bias[order]),),
        scaler=Scaler(scaler.mean[order], scaler.std[order]),
        detector=msgspec.structs.replace(d, scorers=tuple(scorer_in(order, s) for s in d.scorers)),
    )


@pytest.mark.parametrize("kind", ["mewma", "ewma_z"])
@pytest.mark.parametrize("source", ["residual", "input"])
def test_permuted_channels_permute_the_shares(kind: str, source: str) -> None:
    of = model(4, spec(4, scorers=(scorer(4, kind, source),)))
    order = [2, 0, 3, 1]
    times, x = readings(50, of, spread=2.0)
    a, b = Detector(of).run(times, x), Detector(permuted(of, order)).run(times, x[:, order])
    # The network sums its inputs in another order, so the last bits of a float32 may differ.
    np.testing.assert_allclose(b["share"], a["share"][:, order], rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(b["score"], a["score"], rtol=2e-4)
    np.testing.assert_allclose(b["expected"], a["expected"][:, order], rtol=1e-5, atol=1e-4)
    if (kind, source) == ("ewma_z", "input"):
        np.testing.assert_array_equal(b["share"][5:].sum(axis=1).round(12), 1.0)
        np.testing.assert_array_equal(b["score"], a["score"])


@settings(max_examples=60)
@given(st.data())
def test_shares_sum_to_one_and_scores_are_finite(data: st.DataObject) -> None:
    of = model(3, data.draw(specs(3)))
    times, x, present = data.draw(series(3))
    out = Detector(of).run(times, x, present)
    judged = ~np.isnan(out["score"])
    np.testing.assert_allclose(out["share"][judged].sum(axis=1), 1.0, rtol=1e-9)
    assert np.isfinite(out["score"][judged]).all()
    assert np.isfinite(out["threshold"][judged]).all()
    assert np.isnan(out["share"][~judged]).all()
    if all(s.kind == "ewma_z" for s in of.detector.scorers):
        assert (out["share"][judged] >= 0).all()
    warming = out["status"] == 0
    assert np.isnan(out["score"][warming]).all()
    # A faulty channel has no share.
    assert (np.where(out["fault"] > 0, out["share"], 0)[judged] == 0).all()


@pytest.mark.parametrize("threshold", ["fixed", "quantile", "dspot_ewma", "dspot"])
@pytest.mark.parametrize("scorers", [("mewma", "input"), ("mewma", "residual"), ("ewma_z", "input")])
@pytest.mark.parametrize("kind", ["forecast", "reconstruct"])
def test_hard_inputs_give_finite_scores(threshold: str, scorers: tuple[str, str], kind: str) -> None:
    of = model(
        2,
        spec(
            2, kind=kind, scorers=(scorer(2, *scorers),), condition=ConditionSpec(drift=(True, False)),
            threshold=ThresholdSpec(kind=threshold, value=3.0, level=0.1),
        ),
    )  # fmt: skip
    n = 300
    constant, spikes, holes = np.ones((n, 2)), np.zeros((n, 2)), np.ones((n, 2))
    spikes[::17] = 1e300
    spikes[5::29] = -1e300
    holes[::3, 0] = np.nan
    holes[::7, 1] = -np.inf
    for x in (constant, spikes, holes, np.zeros((n, 2))):
        out = Detector(of).run(np.arange(n) * SECOND, x)
        judged = ~np.isnan(out["score"])
        assert judged.sum() > n / 2
        assert np.isfinite(out["score"][judged]).all()
        assert np.isfinite(out["threshold"][judged]).all()


def test_numeric_classes_agree_closely_and_each_repeats_its_bits() -> None:
    of = model(3, spec(3, scorers=(scorer(3, "mewma"),)))
    times, x = readings(200, of)
    f, u = Detector(of, numeric="F").run(times, x), Detector(of, numeric="U").run(times, x)
    np.testing.assert_allclose(f["score"], u["score"], rtol=1e-3)
    same(u, Detector(of, numeric="U").run(times, x))


def test_products_and_sums_are_rounded_apart() -> None:
    """An input scorer alone: numbers chosen so that a fused multiply-add would give another last bit."""
    differs = 0
    rng = np.random.default_rng(0)
    for _ in range(200):
        rate, x, weight = (float(v) for v in rng.uniform(0.1, 0.9, 3))
        s = msgspec.structs.replace(
            scorer(1, "mewma", "input"), rate=rate, center=(0.0,), precision=(weight,), unit=1.0
        )
        of = model(1, spec(1, kind="reconstruct", warmup=0, scorers=(s,)), scaled=False)
        got = Detector(of).run([1, 2], [[x], [2 * x]])["score"][1]
        z = rate * x
        unfused = z + rate * (2 * x - z)
        assert got == unfused * (weight * unfused)
        exact = rate * np.longdouble(2 * x - z) + np.longdouble(z)
        differs += float(exact) != unfused
    assert differs > 10  # where fused and unfused differ, ours was the unfused one


def test_what_a_c_export_can_repeat() -> None:
    assert export_obstacles(spec(1, threshold=ThresholdSpec(kind="dspot_ewma", value=1.0))) == ()
    (reason,) = export_obstacles(spec(1, threshold=ThresholdSpec(kind="dspot", value=1.0)))
    assert "log" in reason


def test_refused_calls_change_nothing() -> None:
    of = model(2)
    detector = Detector(of)
    detector.step([1, 2], 100)
    before = detector.snapshot()
    for time in (100, 99, 2**63):
        with pytest.raises(ValueError, match="time_ns"):
            detector.step([1, 2], time)
    for x, present in (([1], None), ([1, 2, 3], None), ([[1, 2]], None), ([1, 2], [True])):
        with pytest.raises(ValueError, match=r"(x|present): expected .*2"):
            detector.step(x, 200, present)
    with pytest.raises(ValueError, match=r"times_ns\[1\]"):
        detector.run([200, 200], [[1, 2], [1, 2]])
    with pytest.raises(ValueError, match="expected"):
        detector.run([200, 300], [[1, 2]])
    with pytest.raises(ValueError, match=r"time_ns\[0\]"):
        detector.run([50, 60], [[1, 2], [1, 2]])
    assert detector.snapshot() == before
    assert detector.step([1, 2], 101).step == 2


def test_table_arguments() -> None:
    of = model(2)
    with pytest.raises(ValueError, match="capacity"):
        DetectorTable(of, 0)
    with pytest.raises(ValueError, match="numeric"):
        DetectorTable(of, 1, "X")
    table = DetectorTable(of, 3)
    rows, times, x = np.array([0, 2, 3]), np.array([5, 5, 5]), np.zeros((3, 2))
    present, out = np.ones((3, 2), bool), np.zeros(3, table.verdict_dtype)
    with pytest.raises(ValueError, match=r"rows\[2\]: expected 0..2, got 3"):
        table.step_rows(rows, times, x, present, out)
    assert table.states["marks"][2, 0] == 1  # the samples before it were taken
    with pytest.raises(ValueError, match=r"time_ns\[0\]"):
        table.step_rows(rows[:1], times[:1], x[:1], present[:1], out[:1])
    for name, broken in (
        ("rows", rows.astype(np.int32)), ("x", np.zeros((3, 3))), ("present", present.astype(float)),
        ("out", np.zeros(2, table.verdict_dtype)), ("time_ns", times.astype(float)),
    ):  # fmt: skip
        arguments = {"rows": rows, "time_ns": times, "x": x, "present": present, "out": out} | {name: broken}
        with pytest.raises(ValueError, match=name):
            table.step_rows(**arguments)
    table.reset(2)
    assert table.snapshot(2) == table.snapshot(1)


def test_a_model_without_a_detector_is_refused() -> None:
    of = replace(model(1), detector=None)
    with pytest.raises(ModelFileError, match="no detector section"):
        Detector(of)


def test_rest_state_and_records() -> None:
    from edge_rnn.core.model import RestState
    from edge_rnn.detect.plan import record_dtype

    of = model(1, cell="lstm", hidden=3)
    rest = RestState(h=(np.array([0.1, 0.2, 0.3], "f4"),), c=(np.array([1, 2, 3], "f4"),))
    of = replace(of, rest_state=rest)
    table = DetectorTable(of, 2)
    assert table.states.dtype == record_dtype(of)
    assert table.states.dtype.itemsize % 64 == 0
    assert table.states.ctypes.data % 64 == 0
    np.testing.assert_array_equal(table.states["core"][1, :3], rest.h[0])


def test_verdicts_of_a_spec_survive_json() -> None:
    """The detector section as a file holds it makes the same detector."""
    of = model(2, spec(2, scorers=(scorer(2, "mewma"),), guard=GuardSpec(low=(None, -5.0), high=(9.0, None))))
    again = msgspec.json.decode(msgspec.json.encode(of.detector), type=DetectorSpec)
    json.loads(msgspec.json.encode(of.detector))
    assert Detector(replace(of, detector=again)).snapshot() == Detector(of).snapshot()
