"""Every rule of the guard, through the whole detector."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edge_rnn.core.detector_spec import ConditionSpec, GuardSpec, ThresholdSpec
from edge_rnn.detect.detector import Detector
from edge_rnn.detect.guard import ABSENT, FRESH, HELD, silent
from edge_rnn.detect.verdict import Verdict
from tests.detect.models import SECOND, model, scorer, spec

NAN = math.nan


def detector(channels: int = 2, guard: dict[str, Any] | None = None, **more: Any) -> Detector:
    more = {"warmup": 0, "scorers": (scorer(channels, "ewma_z", "input"),)} | more
    return Detector(model(channels, spec(channels, guard=GuardSpec(**(guard or {})), **more), scaled=False))


def faults(verdict: Verdict) -> dict[int, str]:
    return {f.channel: f.kind for f in verdict.faults}


def drive(d: Detector, values: list, start: int = 0, present: list | None = None) -> list[Verdict]:
    """One sample a second; the other channels vary."""
    result = []
    for i, value in enumerate(values, start):
        x = [value, *(0.1 * (i % 7) + c for c in range(1, d.model.input_size))]
        result.append(d.step(x, i * SECOND, None if present is None else present[i - start]))
    return result


def test_non_finite_readings() -> None:
    d = detector()
    for value in (NAN, math.inf, -math.inf):
        verdict = d.step([value, 0.0], d.table.states["marks"][0, 0] + 1)
        assert verdict.status == "fault"
        assert faults(verdict) == {0: "non-finite"}
        assert math.isnan(verdict.residual[0])
    assert faults(d.step([1.0, 0.0], 99)) == {}


def test_a_reading_that_scaling_makes_infinite_is_non_finite() -> None:
    of = model(1, spec(1), scaled=True)
    tiny = type(of.scaler)([0.0], [1e-300])
    d = Detector(type(of)(layers=of.layers, head=of.head, scaler=tiny, detector=of.detector))
    assert faults(d.step([1e20], 1)) == {0: "non-finite"}
    assert faults(d.step([1e-300], 2)) == {}


def test_missing_readings_last_for_their_sample() -> None:
    d = detector()
    assert faults(d.step([5.0, 1.0], 1, [False, True])) == {0: "missing"}
    assert faults(d.step([5.0, 1.0], 2)) == {}
    assert faults(d.step([5.0, 1.0], 3, [ABSENT, FRESH])) == {0: "missing"}


def test_range_is_inclusive_and_open_where_none() -> None:
    d = detector(guard={"low": (-1.0, None), "high": (2.0, 3.0)})
    for x, expected in (
        ([-1.0, -1e9], {}), ([2.0, 3.0], {}), ([2.1, 0.0], {0: "range"}),
        ([-1.1, 3.1], {0: "range", 1: "range"}),
    ):  # fmt: skip
        assert faults(d.step(x, d.table.states["marks"][0, 0] + 1)) == expected


def test_stuck_after_n_equal_readings_until_the_value_changes() -> None:
    d = detector(guard={"stuck_after": (3, 0)})
    kinds = [faults(v) for v in drive(d, [7.0] * 5 + [7.1, 7.1])]
    assert kinds == [{}, {}, {}, {0: "stuck"}, {0: "stuck"}, {}, {}]
    # The other channel has no such limit.
    d = detector(guard={"stuck_after": (0, 2)})
    assert [faults(v) for v in drive(d, [7.0] * 5)] == [{}] * 5


def test_stuck_goes_on_behind_missing_and_nan_readings() -> None:
    d = detector(guard={"stuck_after": (2, 0)})
    values = [7.0, 7.0, 7.0, NAN, 7.0, 7.0, 8.0]
    present = [[1, 1]] * 5 + [[0, 1], [1, 1]]
    kinds = [faults(v).get(0, "none") for v in drive(d, values, present=present)]
    assert kinds == ["none", "none", "stuck", "non-finite", "stuck", "missing", "none"]


def test_held_values_are_no_repeated_readings() -> None:
    d = detector(guard={"stuck_after": (2, 0)})
    assert [faults(v) for v in drive(d, [7.0] * 9, present=[[HELD, FRESH]] * 9)] == [{}] * 9
    d = detector(guard={"stuck_after": (2, 0)})
    present = [[FRESH, 1], [HELD, 1], [HELD, 1], [FRESH, 1], [HELD, 1], [FRESH, 1], [HELD, 1]]
    kinds = [faults(v).get(0) for v in drive(d, [7.0] * 7, present=present)]
    assert kinds == [None] * 5 + ["stuck"] * 2


def test_a_channel_falls_silent_and_comes_back() -> None:
    d = detector(guard={"silent_after_ns": 3 * SECOND})
    present = [[1, 1]] * 2 + [[0, 1]] * 5 + [[1, 1]] + [[0, 1]]
    kinds = [faults(v).get(0) for v in drive(d, [1.0 + i for i in range(9)], present=present)]
    # Last reading at 1 s: missing up to 4 s, silent from 5 s on, fine at 7 s.
    assert kinds == [None, None, "missing", "missing", "missing", "silent", "silent", None, "missing"]


def test_a_channel_that_never_spoke_is_silent_too() -> None:
    d = detector(guard={"silent_after_ns": 2 * SECOND})
    kinds = [faults(v).get(0) for v in drive(d, [1.0] * 5, present=[[0, 1]] * 5)]
    assert kinds == ["missing", "missing", "missing", "silent", "silent"]


def test_held_values_of_a_silent_channel_are_silent() -> None:
    d = detector(guard={"silent_after_ns": 2 * SECOND})
    kinds = [faults(v).get(0) for v in drive(d, [1.0] * 6, present=[[1, 1]] + [[HELD, 1]] * 5)]
    assert kinds == [None, None, None, "silent", "silent", "silent"]


def test_nan_from_a_sensor_is_not_silence() -> None:
    d = detector(guard={"silent_after_ns": 2 * SECOND})
    assert {faults(v)[0] for v in drive(d, [NAN] * 6)} == {"non-finite"}


def test_silence_of_a_whole_stream() -> None:
    guard = GuardSpec(silent_after_ns=10)
    assert not silent(guard, 100, 110)
    assert silent(guard, 100, 111)
    assert not silent(GuardSpec(), 0, 10**18)


def test_an_anomaly_on_a_healthy_channel_shows_behind_a_fault() -> None:
    d = detector(guard={"stuck_after": (2, 0)}, threshold=ThresholdSpec(kind="fixed", value=1.0))
    for i in range(5):
        d.step([7.0, 0.0], i)
    verdict = d.step([7.0, 50.0], 10)
    assert verdict.status == "fault"
    assert verdict.alarm
    assert verdict.score > verdict.threshold
    np.testing.assert_array_equal(verdict.share, [0.0, 1.0])


def test_all_channels_faulty_gives_no_score_and_leaves_the_alarm_as_it_is() -> None:
    d = detector(threshold=ThresholdSpec(kind="fixed", value=1.0))
    d.step([0.0, 0.0], 1)
    assert d.step([50.0, 50.0], 2).alarm
    verdict = d.step([NAN, NAN], 3)
    assert (verdict.status, verdict.alarm) == ("fault", True)
    assert math.isnan(verdict.score)
    assert not math.isnan(d.step([0.0, 0.0], 4).score)


def test_a_faulty_channel_comes_to_rest_instead_of_scoring() -> None:
    d = detector(1 + 1, threshold=ThresholdSpec(kind="fixed", value=1.0))
    for i in range(5):
        d.step([9.0, 0.0], i)
    scores = [d.step([NAN, 0.0], 10 + i).score for i in range(30)]
    assert max(scores) < 0.1
    assert d.step([0.0, 0.0], 99).score < 0.1


@pytest.mark.parametrize("policy", ["hold", "predict"])
def test_what_the_network_is_fed_for_a_missing_reading(policy: str) -> None:
    d = detector(1, {"on_missing": policy}, scorers=(scorer(1),))
    reference = detector(1, scorers=(scorer(1),))
    first = [d.step([v], i) for i, v in enumerate((0.3, -0.2))]
    for i, v in enumerate((0.3, -0.2)):
        reference.step([v], i)
    missing = d.step([NAN], 5)
    assert math.isnan(missing.residual[0])
    assert missing.expected[0] != first[-1].expected[0]
    # The twin detector is given by hand what the policy fills in.
    fed = -0.2 if policy == "hold" else float(missing.expected[0])
    reference.step([fed], 5)
    assert d.step([0.1], 6).expected[0] == reference.step([0.1], 6).expected[0]


def test_a_cold_start_without_a_reading_is_fed_the_mean() -> None:
    d, reference = (detector(1, scorers=(scorer(1),)) for _ in range(2))
    d.step([NAN], 0)
    reference.step([0.0], 0)
    assert d.step([0.1], 1).expected[0] == reference.step([0.1], 1).expected[0]


def test_a_gap_resets_or_holds() -> None:
    for policy, statuses in (("reset", ["warming"] * 3 + ["normal"]), ("hold", ["normal"] * 4)):
        d = detector(guard={"gap_ns": 10 * SECOND, "on_gap": policy}, warmup=3)
        drive(d, [0.1, 0.2, 0.3, 0.4])
        assert d.step([0.1, 0.2], 13 * SECOND).status == "normal"  # 10 s: not longer than the limit
        assert [v.status for v in drive(d, [0.1, 0.2, 0.3, 0.4], start=30)] == statuses


def test_a_gap_closes_an_alarm_under_reset() -> None:
    d = detector(
        guard={"gap_ns": 10 * SECOND, "on_gap": "reset"}, threshold=ThresholdSpec(kind="fixed", value=1.0)
    )
    drive(d, [0.0, 90.0])
    assert d.step([90.0, 0.0], 3 * SECOND).alarm
    assert not d.step([90.0, 0.0], 30 * SECOND).alarm


def test_too_long_a_bridge_resets_when_the_channel_comes_back() -> None:
    for lost, status in ((2, "normal"), (3, "warming")):
        d = detector(guard={"max_missing": 2}, warmup=3)
        drive(d, [0.1 * i for i in range(6)])
        present = [[0, 1]] * lost
        assert {v.status for v in drive(d, [0.0] * lost, start=6, present=present)} == {"fault"}
        assert d.step([0.1, 0.1], 20 * SECOND).status == status


def test_faults_during_the_warm_up_have_no_score() -> None:
    d = detector(warmup=3)
    verdicts = drive(d, [0.1, NAN, 0.1, 0.2, 0.3])
    assert [v.status for v in verdicts] == ["warming", "fault", "warming", "normal", "normal"]
    assert [math.isnan(v.score) for v in verdicts] == [True, True, True, False, False]


def test_rows_without_any_reading_do_not_warm_up() -> None:
    d = detector(warmup=2)
    drive(d, [0.1])
    drive_all = [d.step([NAN, NAN], (1 + i) * SECOND).status for i in range(5)]
    assert drive_all == ["fault"] * 5
    assert [v.status for v in drive(d, [0.1, 0.2], start=10)] == ["warming", "normal"]


def test_drift_removal_follows_a_slow_level_and_starts_anywhere() -> None:
    condition = ConditionSpec(drift=(True, False), drift_rate=0.2, drift_rate_in_alarm=0.0)
    for start in (0.0, 1e4):
        d = detector(condition=condition, threshold=ThresholdSpec(kind="fixed", value=1.0))
        scores = [d.step([start + 0.05 * i, 0.0], i).score for i in range(60)]
        assert max(scores[1:]) < 1.0
        verdicts = [d.step([start + 53.0, 0.0], 100 + i) for i in range(40)]
        assert verdicts[-1].alarm  # the level stands still in an alarm
    d = detector(
        condition=ConditionSpec(drift=(True, False), drift_rate=0.2, drift_rate_in_alarm=0.1),
        threshold=ThresholdSpec(kind="fixed", value=1.0),
    )
    d.step([0.0, 0.0], 0)
    alarms = [d.step([53.0, 0.0], 1 + i).alarm for i in range(200)]
    assert alarms[5]
    assert not alarms[-1]
