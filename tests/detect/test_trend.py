"""Trends that are removed, inputs near the forecast, and a new level that is normal after an alarm."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_rnn.core.detector_spec import AlarmSpec, ConditionSpec, DetectorSpec, ScorerSpec, ThresholdSpec
from edge_rnn.core.model import Linear, Model, Recurrent
from edge_rnn.detect import fields as at
from edge_rnn.detect.detector import Detector, DetectorTable
from edge_rnn.detect.thresholds import export_obstacles
from edge_rnn.errors import ModelFileError, SnapshotError
from tests.detect.models import SECOND, model, replaced, scorer, spec


def made(source: Any = "input", rate: float = 1.0, **more: Any) -> DetectorSpec:
    """One channel as it is; the score is the squared distance, too high above 9."""
    s = ScorerSpec(kind="ewma_z", source=source, rate=rate, center=(0.0,), precision=(1.0,))
    values: dict[str, Any] = {
        "scorers": (s,), "warmup": 0, "threshold": ThresholdSpec(kind="fixed", value=9.0),
        "condition": ConditionSpec(trend=(True,)),
    }  # fmt: skip
    return spec(1, **(values | more))


def silent() -> Model:
    """A network that always says 0."""
    zero = np.zeros((3, 1), np.float32)
    layer = Recurrent("gru", zero, zero, zero[:, 0], zero[:, 0])
    return Model(layers=(layer,), head=(Linear(zero[:1], zero[0]),), scaler=None, detector=made())


def run(detector: DetectorSpec, x: Any, of: Model | None = None) -> np.ndarray:
    values = np.asarray(x, np.float64).reshape(-1, 1)
    judge = Detector(dataclasses.replace(of or silent(), detector=detector))
    return judge.run(np.arange(len(values)) * SECOND, values)


def test_a_line_is_removed_from_its_third_reading_on() -> None:
    out = run(made(), 5.0 + 3.0 * np.arange(50))
    assert out["expected"][3:, 0] == pytest.approx(5.0 + 3.0 * np.arange(3, 50), rel=1e-12)
    assert out["score"][3:] == pytest.approx(0.0, abs=1e-18)


def test_the_first_readings_have_the_least_squares_line_behind_them() -> None:
    rng = np.random.default_rng(0)
    x = 0.3 * np.arange(9) + rng.normal(size=9)
    out = run(made(), x)
    for n in range(3, 9):
        slope, level = np.polyfit(np.arange(n), x[:n], 1)
        assert out["expected"][n, 0] == pytest.approx(level + slope * n, rel=1e-9)


def test_a_wild_reading_moves_the_line_by_little() -> None:
    x = np.full(400, 2.0)
    x[300] = 1e9
    out = run(made(), x)
    # 10 is the limit; 0.04 of it goes into the level, 4e-4 of it into the slope.
    assert out["expected"][301, 0] == pytest.approx(2.0 + 10 * (0.04 + 4e-4))
    assert out["expected"][-1, 0] == pytest.approx(2.0, abs=0.2)


def test_what_is_missing_leaves_the_line_where_it_was() -> None:
    x = 0.1 * np.arange(60)
    y = x.copy()
    y[40:50] = np.nan
    out = run(made(), y)
    assert out["expected"][40:51, 0] == pytest.approx(x[40])
    assert out["expected"][51, 0] > x[40]


def step(rows: int = 40, height: float = 20.0) -> np.ndarray:
    x = np.random.default_rng(1).normal(0.0, 0.3, 3 * rows)
    x[rows:] += height
    return x


def test_a_lasting_level_is_normal_again_after_so_many_steps() -> None:
    plain = replaced(made(), condition=ConditionSpec(drift=(True,), drift_rate=1e-4, drift_rate_in_alarm=0.0))
    assert run(plain, step())["alarm"][40:].all()
    relevelled = replaced(plain, alarm=AlarmSpec(relevel=6, clear_hold=3))
    for detector in (relevelled, replaced(relevelled, condition=ConditionSpec(trend=(True,)))):
        out = run(detector, step())
        # On at the step, 6 rows of the new level, 3 quiet ones.
        assert np.flatnonzero(out["alarm"]).tolist() == list(range(40, 50))
        assert np.flatnonzero(out["accepted"]).tolist() == [46]
        assert out["expected"][47, 0] == pytest.approx(step()[41:47].mean(), abs=0.3)


def test_an_event_opens_one_alarm_at_its_begin_and_one_at_its_end() -> None:
    x = step(60)
    x[100:] -= 20.0
    out = run(replaced(made(), alarm=AlarmSpec(relevel=6)), x)
    opened = np.flatnonzero(np.diff(out["alarm"].astype(int), prepend=0) == 1)
    assert opened.tolist() == [60, 100]


def test_what_is_too_high_again_before_the_alarm_ends_is_taken_too() -> None:
    x = step(40)
    x[50:] += 20.0
    out = run(replaced(made(), alarm=AlarmSpec(relevel=4, clear_hold=8)), x)
    assert np.flatnonzero(out["accepted"]).tolist() == [44, 54]
    assert np.flatnonzero(np.diff(out["alarm"].astype(int), prepend=0)).tolist() == [40, 63]


def test_scorers_begin_anew_with_the_new_level() -> None:
    of = replaced(
        made(rate=0.1), alarm=AlarmSpec(relevel=3), threshold=ThresholdSpec(kind="fixed", value=1.0)
    )
    out = run(of, step(40, 50.0))
    accepted = int(np.flatnonzero(out["accepted"])[0])
    assert out["score"][accepted] > 0.2
    assert out["score"][accepted + 1] < 0.01


def fed_of(limit: float, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the network says of the next reading, with and without the last one's outlier."""
    of = msgspec.structs.replace(
        made("residual"), condition=ConditionSpec(innovation_limit=limit), warmup=0,
    )  # fmt: skip
    net = model(1, of, scaled=False)
    wild = x.copy()
    wild[-2] = 1e6
    return run(of, x, net)["expected"][:, 0], run(of, wild, net)["expected"][:, 0]


def test_an_outlier_does_not_poison_the_networks_state() -> None:
    x = np.random.default_rng(2).normal(size=30)
    plain, poisoned = fed_of(0.0, x)
    assert abs(plain[-1] - poisoned[-1]) > 0.05
    calm, limited = fed_of(0.01, x)
    assert abs(calm[-1] - limited[-1]) < 0.01
    # A limit that nothing reaches changes no bit.
    np.testing.assert_array_equal(fed_of(100.0, x)[0], plain)


def test_what_is_scored_is_the_reading_as_it_is() -> None:
    of = made("residual", condition=ConditionSpec(innovation_limit=0.01))
    out = run(of, [0.0, 0.0, 5.0], model(1, of, scaled=False))
    assert out["score"][2] == pytest.approx((5.0 - out["expected"][2, 0]) ** 2)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"condition": ConditionSpec(trend=(True,))}, "condition.trend: expected 2 entries"),
        ({"condition": ConditionSpec(trend=(False, True), drift=(True, True))}, "1 has trend and drift"),
        ({"condition": ConditionSpec(trend=(True, True), running=(True, False))}, "has trend and running"),
        ({"condition": ConditionSpec(innovation_limit=1.0), "kind": "reconstruct"}, "limit: needs"),
        ({"alarm": AlarmSpec(relevel=3)}, "relevel: needs a channel with"),
        (
            {
                "alarm": AlarmSpec(relevel=3, recovery=0.3), "scorers": (scorer(2, "mewma"),),
                "condition": ConditionSpec(trend=(True, True)),
            },
            "keep one",
        ),
        (
            {
                "kind": "classify", "scorers": (), "alarm": AlarmSpec(relevel=3),
                "condition": ConditionSpec(trend=(True, True)),
            },
            "classify has no level",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(more: dict[str, Any], word: str) -> None:
    with pytest.raises(ModelFileError, match=word):
        spec(2, **more).check(2, 2)


def test_the_exporter_is_told_by_name() -> None:
    of = made(condition=ConditionSpec(trend=(True,), innovation_limit=0.5), alarm=AlarmSpec(relevel=3))
    said = " ".join(export_obstacles(of))
    for name in ("condition.trend", "condition.innovation_limit", "alarm.relevel"):
        assert name in said


@pytest.mark.parametrize("value", [-1, 7, 2**40])
def test_a_snapshot_with_an_impossible_wait_is_refused(value: int) -> None:
    table = DetectorTable(
        dataclasses.replace(silent(), detector=replaced(made(), alarm=AlarmSpec(relevel=6))), 1
    )
    place = int(table.plan.record["marks_more_at"][0] + table.plan.record["relevel_at"][0])
    table.states["marks"][0, place] = value
    with pytest.raises(SnapshotError, match="out of its range"):
        table.restore(0, table.snapshot(0))


@pytest.mark.parametrize("value", [-1.0, 2.5])
def test_a_snapshot_with_an_impossible_count_of_a_trend_is_refused(value: float) -> None:
    table = DetectorTable(dataclasses.replace(silent(), detector=made()), 1)
    place = int(table.plan.record["trend_at"][0]) + at.TREND_COUNT_AT
    table.states["detect"][0, place] = value
    with pytest.raises(SnapshotError, match="out of its range"):
        table.restore(0, table.snapshot(0))
