"""The compiled detector against the naive twin, bit for bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_rnn.core.detector_spec import AlarmSpec, ConditionSpec, DetectorSpec, GuardSpec, ThresholdSpec
from edge_rnn.detect.detector import Detector
from edge_rnn.detect.verdict import FAULT_KINDS, GUARD_KINDS, STATUSES
from tests.detect.models import SECOND, model, scorer
from tests.detect.twin import Twin

LOOK = ["residual", "input"]


@st.composite
def specs(draw: st.DrawFn, channels: int) -> DetectorSpec:
    kind = draw(st.sampled_from(["forecast", "reconstruct"]))
    threshold = ThresholdSpec(
        kind=draw(st.sampled_from(["fixed", "quantile", "dspot_ewma", "dspot"])),
        value=draw(st.sampled_from([0.5, 3.0, 20.0])), rate=0.1, initial=draw(st.sampled_from([0.0, 0.7])),
        window=draw(st.integers(2, 6)), risk=0.01, level=draw(st.sampled_from([0.0, 0.5])),
        count=draw(st.sampled_from([0, 40])), excess_count=3, excess_sum=2.0, excess_squares=1.9,
        max_freeze=draw(st.sampled_from([0, 0, 3, 9])),
    )  # fmt: skip
    needed = draw(st.integers(1, 3))
    return DetectorSpec(
        kind=kind,
        warmup=draw(st.integers(0, 4)),
        guard=GuardSpec(
            low=draw(st.sampled_from([(), (-20.0,) + (None,) * (channels - 1)])),
            high=draw(st.sampled_from([(), (25.0,) * channels])),
            stuck_after=draw(st.sampled_from([(), (2,) * channels])),
            silent_after_ns=draw(st.sampled_from([0, 3 * SECOND])),
            gap_ns=draw(st.sampled_from([0, 4 * SECOND])),
            on_gap=draw(st.sampled_from(["hold", "reset"])),
            on_missing="hold" if kind == "reconstruct" else draw(st.sampled_from(["hold", "predict"])),
            max_missing=draw(st.sampled_from([0, 2])),
        ),
        condition=ConditionSpec(
            drift=draw(st.sampled_from([(), (True,) + (False,) * (channels - 1)])), drift_rate=0.1,
            drift_rate_in_alarm=draw(st.sampled_from([0.0, 0.03])), clip=4.0
        ),
        residual_scale=draw(st.sampled_from([(), tuple(0.5 + i for i in range(channels))])),
        scorers=tuple(
            scorer(channels, draw(st.sampled_from(["mewma", "ewma_z"])), draw(st.sampled_from(LOOK)), i)
            for i in range(draw(st.integers(1, 3)))
        ),
        combine=draw(st.sampled_from(["max", "sum"])),
        threshold=threshold,
        alarm=AlarmSpec(
            needed=needed, window=needed + draw(st.integers(0, 3)),
            clear_ratio=draw(st.sampled_from([0.5, 1.0])),
            clear_hold=draw(st.integers(0, 3)), refractory=draw(st.integers(0, 3)),
        ),
    )  # fmt: skip


@st.composite
def series(draw: st.DrawFn, channels: int, count: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, readings and presence with repeated values, spikes, NaN, infinities, holes and gaps."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = rng.normal(size=(count, channels)) * draw(st.sampled_from([1.0, 8.0]))
    wild = rng.choice([0.0, 5.0, 1e9, -1e300, np.nan, np.inf], size=x.shape)
    x = np.where(rng.random(x.shape) < draw(st.sampled_from([0.0, 0.1, 0.6])), wild, x)
    step = np.where(rng.random(count) < 0.1, 6 * SECOND, SECOND)
    present = np.where(rng.random(x.shape) < 0.15, rng.choice([0, 2], size=x.shape), 1).astype(np.uint8)
    return np.cumsum(step), x, present


def assert_equal_bits(record: np.void, expected: dict) -> None:
    for name in ("score", "threshold", "share", "residual", "expected"):
        np.testing.assert_array_equal(
            np.asarray(record[name]), np.asarray(expected[name]), err_msg=f"{name} at {expected['step']}"
        )
    got = (STATUSES[record["status"]], bool(record["alarm"]), bool(record["accepted"]), int(record["step"]))
    assert got == (expected["status"], expected["alarm"], expected["accepted"], expected["step"])
    assert [FAULT_KINDS[k] for k in record["fault"]] == expected["fault"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_equals_the_naive_twin(data: st.DataObject) -> None:
    channels = data.draw(st.sampled_from([1, 3]))
    of = model(
        channels, data.draw(specs(channels)), cell=data.draw(st.sampled_from(["gru", "lstm", "rnn_tanh"]))
    )
    times, x, present = data.draw(series(channels))
    detector, twin = Detector(of), Twin(of)
    for i in range(len(times)):
        expected = twin.step(x[i], int(times[i]), present[i])
        assert_equal_bits(detector.run(times[i : i + 1], x[i : i + 1], present[i : i + 1])[0], expected)


def test_the_twin_sees_every_status_and_fault() -> None:
    """What the property above compares really happens in such series: nothing passes for lack of cases."""
    rng = np.random.default_rng(3)
    statuses, faults = set(), set()
    of = model(
        2,
        DetectorSpec(
            warmup=2, scorers=(scorer(2),), threshold=ThresholdSpec(kind="dspot_ewma", value=8.0),
            guard=GuardSpec(
                low=(-50.0, None), high=(50.0, None), stuck_after=(2, 2), silent_after_ns=2 * SECOND
            ),
            alarm=AlarmSpec(needed=2, window=3, clear_hold=1),
        ),
        scaled=False,
    )  # fmt: skip
    detector = Detector(of)
    for i in range(400):
        x = rng.normal(size=2) * 0.3 + (0 if i % 40 < 25 else 7)
        x = [99.0, np.nan] if i % 37 == 0 else [1.0, 1.0] if i % 50 < 4 else x
        verdict = detector.step(x, i * SECOND, [True, not 100 < i % 110 < 106])
        statuses.add(verdict.status)
        faults |= {f.kind for f in verdict.faults}
    assert statuses == set(STATUSES)
    assert faults == set(GUARD_KINDS) - {"none"}


def test_classify_equals_the_naive_twin() -> None:
    of = model(
        2,
        DetectorSpec(
            kind="classify", alarm_class=1, warmup=1, threshold=ThresholdSpec(kind="fixed", value=0.1)
        ),
        outputs=3,
    )
    detector, twin = Detector(of), Twin(of)
    rng = np.random.default_rng(1)
    alarms = 0
    for i in range(60):
        x = rng.normal(size=2) * 9
        record = detector.run([i], x[None])[0]
        assert_equal_bits(record, twin.step(x, i))
        alarms += int(record["alarm"])
    assert 0 < alarms < 60


def test_a_network_that_leaves_the_numbers_rests_and_goes_on() -> None:
    of = model(1, cell="rnn_relu", hidden=2, seed=1, scaled=False)
    layer = of.layers[0]
    huge = type(layer)(
        "rnn_relu", abs(layer.w_ih) * 1e30, abs(layer.w_hh) * 1e30, abs(layer.b_ih), abs(layer.b_hh)
    )
    of = type(of)(layers=(huge,), head=of.head, detector=of.detector)
    detector, twin = Detector(of), Twin(of)
    for i in range(30):
        assert_equal_bits(detector.run([i], [[1.0 + i % 3]])[0], twin.step([1.0 + i % 3], i))
    assert np.isfinite(detector.table.states["core"]).all()
