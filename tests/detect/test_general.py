"""The general detector: bit for bit its twin's, the default flow's where both can, and all invariants."""

from __future__ import annotations

import dataclasses
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_rnn.core.detector_spec import (
    SCORER_KINDS,
    AlarmSpec,
    ConditionSpec,
    GuardSpec,
    ScorerSpec,
    TableSpec,
    TailSpec,
    ThresholdSpec,
)
from edge_rnn.core.model import TIME_FEATURES, Model
from edge_rnn.detect import fields as at
from edge_rnn.detect.detector import Detector, DetectorTable
from edge_rnn.detect.thresholds import export_obstacles
from edge_rnn.detect.verdict import FAULT_KINDS, STATUSES, TIMINGS
from edge_rnn.errors import SnapshotError
from tests.detect.general_twin import GeneralTwin
from tests.detect.models import SECOND, model, scorer, spec
from tests.detect.test_twin import series, specs

TABLE = TableSpec(scores=(0.3, 1.0, 4.0), exceed=(0.5, 0.1, 0.01))


@st.composite
def scorers(draw: st.DrawFn, c: int, horizons: int, scale_head: str, seed: int) -> ScorerSpec:
    kind = draw(st.sampled_from(SCORER_KINDS))
    sources = ["residual", "residual", "input", "difference", "reading"]
    sources += [] if scale_head == "none" else ["nll", "self_scaled"]
    source = draw(st.sampled_from(sources))
    tail = draw(
        st.sampled_from(
            [
                None, None, TailSpec(kind="table", table=TABLE), TailSpec(),
                TailSpec(low=-4, octaves=5, counts=tuple(range(20)), learn="always"),
                TailSpec(low=-6, octaves=9, parts=draw(st.sampled_from([1, 2, 8]))),
            ]
        )
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    more: dict = {
        "horizon": draw(st.integers(0, horizons - 1)) if source in ("residual", "nll", "self_scaled") else 0,
        "side": draw(st.sampled_from(["both", "up", "down"])), "tail": tail,
        "weight": draw(st.sampled_from([1.0, 0.5])), "learn": draw(st.sampled_from(["calm", "always"])),
        "memory": draw(st.sampled_from([2, 10])), "slack": 0.25, "cap": 6.0,
        "group": draw(st.sampled_from([0, 0, 3])),
    }  # fmt: skip
    if kind in ("mewma", "ewma_z"):
        return scorer(c, kind, source, seed, **more)
    lists: dict = {}
    if kind != "novelty":
        lists = {
            "center": tuple(rng.normal(size=c) * 0.1), "precision": tuple(rng.uniform(0.5, 3.0, c)),
        }  # fmt: skip
    if kind in ("running_z", "likelihood"):
        lists |= {"mean": tuple(rng.uniform(0.1, 1.0, c)), "count": draw(st.sampled_from([0, 7]))}
    if kind == "magnitude":
        lists |= {"mean": tuple(rng.uniform(0.1, 1.0, c))}
    if kind == "novelty" and draw(st.booleans()):
        lists = {"low": (-0.5,) * c, "high": (0.5,) * c}
    return ScorerSpec(kind=kind, source=source, rate=0.2, unit=1.5, **lists, **more)


@st.composite
def models(draw: st.DrawFn, c: int) -> Model:
    base = draw(specs(c))
    ahead = (1,)
    if base.kind == "forecast":
        ahead = draw(st.sampled_from([(1,), (1,), (1, 3), (2,), (1, 2, 5)]))
    head = draw(st.sampled_from(["none", "laplace", "gaussian"]))
    drift = base.condition.drift
    trends = draw(st.booleans())
    limit = draw(st.sampled_from([0.0, 0.3])) if base.kind == "forecast" and ahead[0] == 1 else 0.0
    condition = msgspec.structs.replace(
        base.condition,
        trend=tuple(not (drift and drift[i]) and i != 1 for i in range(c)) if trends else (),
        trend_slope_rate=draw(st.sampled_from([4e-4, 0.1])),
        innovation_limit=limit,
        soft_clip=draw(st.sampled_from([0.0, 1.5])),
        running=()
        if trends
        else draw(st.sampled_from([(), tuple(not (drift and drift[i]) for i in range(c))])),
        running_memory=draw(st.sampled_from([5, 4000])), running_start=draw(st.sampled_from([1, 20])),
        utc_offset_ns=draw(st.sampled_from([0, -5 * 3600 * SECOND])),
    )  # fmt: skip
    guard = base.guard
    if ahead[0] != 1:
        guard = msgspec.structs.replace(guard, on_missing="hold")
    guard = msgspec.structs.replace(guard, on_late=draw(st.sampled_from(["fault", "refuse"])))
    threshold = base.threshold
    if draw(st.booleans()):
        threshold = msgspec.structs.replace(
            threshold, kind=draw(st.sampled_from(["spot", "pot", "conformal"])), count=40
        )
    kept = draw(st.sampled_from([{}, {}, {"peak_hold": 2}, {"bar": 1.1}, {"bar": 1.0, "bar_decay": 0.9}]))
    threshold = msgspec.structs.replace(threshold, peak_decay=0.5, **kept)
    alarm = msgspec.structs.replace(
        base.alarm, pending_ns=draw(st.sampled_from([0, 2 * SECOND])),
        clear_ns=draw(st.sampled_from([0, 3 * SECOND])), refractory_ns=draw(st.sampled_from([0, 5 * SECOND])),
        severity=draw(st.sampled_from([(), (1.0, 1.5), (2.0,)])),
    )  # fmt: skip
    recovers = draw(st.booleans())
    detector = msgspec.structs.replace(
        base, horizons=ahead, early=draw(st.booleans()), scale_head=head, condition=condition, guard=guard,
        threshold=threshold, alarm=alarm, probability=draw(st.sampled_from([TableSpec(), TABLE])),
        residual_scale=draw(st.sampled_from([(), tuple(0.5 + i for i in range(c * len(ahead)))])),
        scorers=tuple(draw(scorers(c, len(ahead), head, i)) for i in range(draw(st.integers(1, 3)))),
    )  # fmt: skip
    able = any(s.kind in ("mewma", "mewma_diagonal") for s in detector.scorers)
    if recovers and able and base.kind != "classify":
        alarm = msgspec.structs.replace(
            alarm, recovery=draw(st.sampled_from([0.3, 0.9])), rebase=draw(st.sampled_from([0, 1, 3]))
        )
        detector = msgspec.structs.replace(detector, alarm=alarm)
    elif base.kind != "classify" and any((*condition.trend, *condition.drift)):
        alarm = msgspec.structs.replace(
            alarm, relevel=draw(st.sampled_from([0, 1, 4])), relevel_slope_rate=0.1
        )
        detector = msgspec.structs.replace(detector, alarm=alarm)
    features = tuple(draw(st.permutations([*TIME_FEATURES, "difference:x0"])))[: draw(st.integers(0, 8))]
    outputs = c * len(ahead) * (1 if head == "none" else 2)
    return model(c, detector, outputs=outputs, features=features)


def assert_equal_bits(record: np.void, expected: dict) -> None:
    for name in ("score", "threshold", "share", "residual", "expected", "probability", "band"):
        np.testing.assert_array_equal(
            np.asarray(record[name]), np.asarray(expected[name]), err_msg=f"{name} at {expected['step']}"
        )
    for name in ("step", "alarm", "accepted", "scorer", "severity"):
        assert int(record[name]) == int(expected[name]), name
    assert STATUSES[record["status"]] == expected["status"]
    assert TIMINGS[record["timing"]] == expected["timing"]
    assert [FAULT_KINDS[k] for k in record["fault"]] == expected["fault"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_equals_the_naive_twin(data: st.DataObject) -> None:
    channels = data.draw(st.sampled_from([1, 3]))
    of = data.draw(models(channels))
    times, x, present = data.draw(series(channels))
    if of.detector.guard.on_late == "fault":
        times = times + data.draw(st.sampled_from([0, 4 * 86_400 * SECOND]))
        times[5], times[9] = times[4], times[4]
    detector, twin = Detector(of), GeneralTwin(of)
    with np.errstate(all="ignore"):
        for i in range(len(times)):
            expected = twin.step(x[i], int(times[i]), present[i])
            record = np.zeros(1, detector.table.verdict_dtype)
            detector.table.step_rows(
                np.zeros(1, np.int64), times[i : i + 1], x[i : i + 1], present[i : i + 1], record
            )
            assert_equal_bits(record[0], expected)


def same(a: np.ndarray, b: np.ndarray) -> None:
    """Equal in every bit of every field."""
    for name in a.dtype.names or ():
        np.testing.assert_array_equal(a[name].tobytes(), b[name].tobytes(), err_msg=name)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_cutting_a_restart_and_the_future_change_no_bit(data: st.DataObject) -> None:
    of = data.draw(models(2))
    times, x, present = data.draw(series(2))
    whole = Detector(of).run(times, x, present)
    cut = data.draw(st.integers(1, len(times) - 1))
    before, after = Detector(of), Detector(of)
    other = x.copy()
    other[cut:] = 1e6
    same(Detector(of).run(times, other, present)[:cut], whole[:cut])
    same(before.run(times[:cut], x[:cut], present[:cut]), whole[:cut])
    after.restore(before.snapshot())
    same(after.run(times[cut:], x[cut:], present[cut:]), whole[cut:])
    before.run(times[cut:], x[cut:], present[cut:])
    assert before.snapshot() == after.snapshot()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_judged_is_a_number(data: st.DataObject) -> None:
    of = data.draw(models(2))
    times, x, present = data.draw(series(2))
    out = Detector(of).run(times, x, present)
    judged = ~np.isnan(out["score"])
    assert np.isfinite(out["score"][judged]).all()
    assert np.isfinite(out["threshold"][judged]).all()
    np.testing.assert_allclose(out["share"][judged].sum(axis=1), 1.0, rtol=1e-9)
    sure = out["probability"][judged]
    known = bool(of.detector.probability.scores)
    assert ((sure >= 0) & (sure < 1)).all() if known else np.isnan(sure).all()
    assert np.isnan(out["probability"][~judged]).all()
    assert (out["scorer"][judged] < len(of.detector.scorers)).all()
    assert (out["scorer"][~judged] == 255).all()
    assert ((out["severity"] > 0) == (out["alarm"] > 0)).all()
    assert (out["band"][~np.isnan(out["expected"])] >= 0).all()
    warming = out["status"] == STATUSES.index("warming")
    assert np.isnan(out["score"][warming]).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_the_default_flow_where_it_asks_for_nothing_more(data: st.DataObject) -> None:
    of = model(3, data.draw(specs(3)))
    alarm = msgspec.structs.replace(of.detector.alarm, severity=(2.0,))
    more = dataclasses.replace(of, detector=msgspec.structs.replace(of.detector, alarm=alarm))
    times, x, present = data.draw(series(3))
    a, b = Detector(of).run(times, x, present), Detector(more).run(times, x, present)
    assert Detector(more).table.plan.general
    assert not Detector(of).table.plan.general
    np.testing.assert_array_equal(a["severity"] > 0, b["severity"] > 0)
    b["severity"] = a["severity"]
    same(a, b)


def test_what_c_lacks_is_named() -> None:
    base = spec(1)
    s = base.scorers[0]
    replaced = msgspec.structs.replace
    for word, more in {
        "horizons": {"horizons": (1, 2)}, "scale_head": {"scale_head": "laplace"},
        "soft_clip": {"condition": ConditionSpec(soft_clip=3.0)},
        "running": {"condition": ConditionSpec(running=(True,))},
        "on_late": {"guard": GuardSpec(on_late="fault")},
        "kind novelty": {"scorers": (ScorerSpec(kind="novelty", source="input", rate=1.0),)},
        "source difference": {"scorers": (replaced(s, source="difference"),)},
        "side": {"scorers": (replaced(s, side="up"),)}, "tail": {"scorers": (replaced(s, tail=TailSpec()),)},
        "weight": {"scorers": (replaced(s, weight=2.0),)},
        "spot": {"threshold": ThresholdSpec(kind="spot", value=1.0)},
        "peak_hold": {"threshold": ThresholdSpec(kind="fixed", value=1.0, peak_hold=3)},
        "threshold.bar": {"threshold": ThresholdSpec(kind="fixed", value=1.0, bar=1.2)},
        "seconds": {"alarm": AlarmSpec(clear_ns=1)}, "severity": {"alarm": AlarmSpec(severity=(2.0,))},
        "recovery": {"alarm": AlarmSpec(recovery=0.3)}, "group": {"scorers": (replaced(s, group=1),)},
    }.items():  # fmt: skip
        (reason,) = export_obstacles(replaced(base, **more))
        assert word in reason
    assert "weekend" in export_obstacles(base, ("weekend",))[0]
    assert export_obstacles(replaced(base, probability=TABLE, band=2.0)) == ()
    for kind in ("conformal", "pot"):
        assert export_obstacles(replaced(base, threshold=ThresholdSpec(kind=kind, value=1.0))) == ()


@pytest.mark.parametrize("kind", SCORER_KINDS)
@pytest.mark.parametrize("source", ["residual", "input"])
def test_a_lasting_new_level_is_normal_again_within_the_stated_number_of_steps(
    kind: str, source: str
) -> None:
    """max_freeze + 1 + warmup judged samples, whatever the scorer."""
    lists: dict = (
        {"center": (0.0,), "precision": (1.0,)} if kind != "novelty" else {"low": (-2.0,), "high": (2.0,)}
    )
    if kind in ("running_z", "likelihood"):
        lists |= {"mean": (0.5,), "count": 100}
    if kind == "magnitude":
        lists |= {"mean": (0.1,)}
    scorer_ = ScorerSpec(kind=kind, source=source, rate=3e-4 if kind == "level" else 0.3, **lists)
    threshold = 1.0 if kind == "novelty" else 6.0
    limit = ThresholdSpec(kind="fixed", value=threshold, max_freeze=20)
    of = model(1, spec(1, scorers=(scorer_,), warmup=5, threshold=limit), scaled=False)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 1)) * 0.1
    x[100:] += 8.0
    out = Detector(of).run(np.arange(400) * SECOND, x)
    on = np.flatnonzero(out["alarm"])
    assert on.size
    assert on[0] >= 100
    first = on[0]
    assert on[-1] <= first + 20, kind
    assert out["accepted"].sum() <= 1
    assert not out["alarm"][first + 26 :].any()


def test_late_and_duplicate_times_are_faults_of_their_own_where_wanted() -> None:
    of = model(2, spec(2, warmup=0, guard=GuardSpec(on_late="fault", gap_ns=10)))
    detector = Detector(of)
    detector.step([0.0, 0.0], 100)
    before = detector.snapshot()
    for time, timing in ((100, "duplicate"), (99, "late")):
        verdict = detector.step([9.0, 9.0], time)
        assert (verdict.status, verdict.timing, verdict.step, verdict.faults) == ("fault", timing, 1, ())
        assert math.isnan(verdict.score)
        assert detector.snapshot() == before
    assert detector.step([0.0, 0.0], 110).timing == "regular"
    assert detector.step([0.0, 0.0], 121).timing == "gap"


def test_an_alarm_waits_and_pauses_in_seconds_and_grows_in_severity() -> None:
    alarm = AlarmSpec(
        pending_ns=2 * SECOND, clear_ns=2 * SECOND, refractory_ns=20 * SECOND, severity=(2.0, 8.0)
    )
    s = ScorerSpec(kind="ewma_z", source="input", rate=1.0, center=(0.0,), precision=(1.0,))
    limit = ThresholdSpec(kind="fixed", value=4.0)
    made = spec(1, kind="reconstruct", scorers=(s,), warmup=0, alarm=alarm, threshold=limit)
    of = model(1, made, scaled=False)
    values = [0.0, 3.0, 3.0, 3.0, 6.0, 3.0, 0.0, 0.0, 0.0, *[3.0] * 22]
    out = Detector(of).run(np.arange(len(values)) * SECOND, np.array(values)[:, None])
    words = [STATUSES[k] for k in out["status"]]
    assert words[:9] == [
        "normal", "pending", "pending", "anomaly", "anomaly", "anomaly", "clearing", "clearing", "normal",
    ]  # fmt: skip
    assert out["severity"][:9].tolist() == [0, 0, 0, 2, 3, 3, 3, 3, 0]
    # Closed at 8 s: no new one before 28 s, though too high since 9 s.
    assert np.flatnonzero(out["alarm"][9:])[0] + 9 == 28


def test_the_time_features_are_those_of_the_calendar() -> None:
    from edge_rnn.detect.general_inputs import of_time

    saturday = 1_704_499_200 * SECOND  # 2024-01-06, midnight UTC
    hour = 3600 * SECOND
    angle = 2 * math.pi / 24
    for hours in range(0, 48, 5):
        t = saturday + hours * hour
        assert of_time(1, t) == pytest.approx(math.sin(angle * hours), abs=1e-12)
        assert of_time(2, t) == pytest.approx(math.cos(angle * hours), abs=1e-12)
        assert of_time(3, t) == pytest.approx(math.sin(2 * angle * hours), abs=1e-12)
        assert of_time(5, t) == pytest.approx(math.sin(2 * math.pi * (5 * 24 + hours) / 168), abs=1e-12)
        assert of_time(7, t) == 1.0
    assert of_time(7, saturday - 1) == 0.0
    assert of_time(7, saturday + 48 * hour) == 0.0
    assert of_time(2, -6 * hour) == pytest.approx(0.0, abs=1e-12)


def test_a_snapshot_with_an_impossible_counter_is_refused() -> None:
    of = model(2, spec(2, alarm=AlarmSpec(severity=(2.0,))))
    table = DetectorTable(of, 1)
    start = at.MARKS_HEAD + at.CHANNEL_MARKS * 2
    for place, value in ((at.AGE, -1), (at.SEVERITY, 3), (at.TOO_HIGH, 2), (at.HAS_BEFORE, -1)):
        table.reset(0)
        table.states["marks"][0, start + place] = value
        with pytest.raises(SnapshotError, match="out of its range"):
            table.restore(0, table.snapshot(0))
    # One of a detector without the part is another layout's.
    with pytest.raises(SnapshotError, match="state layout"):
        Detector(model(2)).restore(DetectorTable(of, 1).snapshot(0))
