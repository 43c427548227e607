"""Calibration: what it measures is what the detector does, and its alarms are rare on what was normal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_rnn.calibrate import Options, calibrate_detector, scaling, without_network
from edge_rnn.core.detector_spec import AlarmSpec, ConditionSpec, DetectorSpec, GuardSpec
from edge_rnn.core.model import Model
from edge_rnn.detect.detector import Detector
from edge_rnn.errors import DataError, ModelFileError
from tests.detect.models import SECOND, model

CORRELATION = np.array([[1.0, 0.8, 0.0], [0.0, 0.6, 0.0], [0.0, 0.0, 1.0]])


def noise(rows: int, seed: int = 0) -> np.ndarray:
    """Three channels, two of them correlated, in units far apart."""
    return np.random.default_rng(seed).normal(size=(rows, 3)) @ CORRELATION * [0.01, 5.0, 300.0] + [
        1.0,
        -7.0,
        1e5,
    ]


def recording(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(len(x), dtype=np.int64) * SECOND, x


def calibrated(x: np.ndarray, unseen: int = 0, **options: Any) -> Model:
    data = [recording(x)]
    of = replace(model(3), detector=None, scaler=scaling(data))
    return calibrate_detector(of, data, [unseen], Options(**options))


def test_the_defaults_make_a_quiet_detector_that_sees_a_shift() -> None:
    of = calibrated(noise(1500), 1000)
    spec = of.detector
    assert [s.source for s in spec.scorers] == ["residual", "input"]
    assert (spec.threshold.kind, spec.threshold.value, spec.period_ns) == ("quantile", 1.0, SECOND)
    assert (spec.alarm.needed, spec.alarm.window) == (2, 3)
    quiet = Detector(of).run(*recording(noise(3000, seed=1)))
    assert quiet["alarm"].sum() == 0
    assert (quiet["fault"] == 0).all()
    for channel, shift in ((0, 0.05), (1, -25.0), (2, 1500.0)):
        x = noise(300, seed=2)
        x[200:, channel] += shift  # five standard deviations
        out = Detector(of).run(*recording(x))
        assert not out["alarm"][:200].any()
        assert out["alarm"][210:].all()
        assert (out["share"][250:].mean(axis=0).argmax()) == channel


def test_a_broken_correlation_is_seen_though_each_channel_is_in_its_range() -> None:
    of = calibrated(noise(1500), 1000, residual_factor=0.0)
    x = noise(400, seed=3)
    x[200:, 0] = 1.0 + 0.012
    x[200:, 1] = -7.0 - 6.0  # with 0 up by 1.2 standard deviations, 1 is expected up, not down
    x[200:] += noise(200, seed=4) * 1e-9
    assert Detector(of).run(*recording(x))["alarm"][220:].all()
    diagonal = calibrated(noise(1500), 1000, residual_factor=0.0, scorer="ewma_z")
    assert len(diagonal.detector.scorers[0].precision) == 3
    assert (
        Detector(diagonal).run(*recording(x))["score"][220:].max()
        < Detector(of).run(*recording(x))["score"][220:].min()
    )


def test_units_put_the_quantile_of_unseen_rows_at_one_over_factor() -> None:
    x = noise(1200)
    of = calibrated(x, 900, input_factor=3.0, residual_factor=8.0)
    for scorer, factor in zip(of.detector.scorers, (8.0, 3.0), strict=True):
        alone = replace(of, detector=msgspec.structs.replace(of.detector, scorers=(scorer,)))
        scores = Detector(alone).run(*recording(x))["score"][900:]
        assert np.quantile(scores, 0.99) == pytest.approx(1.0 / factor)


def test_center_and_precision_are_those_of_the_smoothed_deviation() -> None:
    x = noise(900)
    of = calibrated(x, shrinkage=0.0, residual_factor=0.0)
    (scorer,) = of.detector.scorers
    z, smoothed = np.zeros(3), []
    # A forecast says nothing about the first reading, so scoring starts with the second.
    for row in ((x - of.scaler.mean) / of.scaler.std)[1:]:
        z = z + scorer.rate * (row - z)
        smoothed.append(z)
    usable = np.array(smoothed)[of.detector.warmup - 1 :]
    np.testing.assert_allclose(scorer.center, usable.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(
        np.linalg.inv(np.reshape(scorer.precision, (3, 3))), np.cov(usable.T), rtol=1e-6, atol=1e-9
    )


def test_residual_scale_is_the_spread_of_the_residual() -> None:
    x = noise(800)
    of = calibrated(x)
    out = Detector(of).run(*recording(x))
    np.testing.assert_allclose(
        of.detector.residual_scale, (out["residual"][30:] / of.scaler.std).std(axis=0), rtol=1e-3
    )


def test_only_unseen_rows_make_the_threshold() -> None:
    x = noise(1200)
    x[100:800:20] += [0.03, 15.0, 900.0]  # wild rows the network has seen
    seen, unseen = calibrated(x, 0), calibrated(x, 850)
    assert all(a.unit > b.unit for a, b in zip(seen.detector.scorers, unseen.detector.scorers, strict=True))


def test_a_constant_channel_and_faults_do_no_harm() -> None:
    x = noise(800)
    x[:, 2] = 5.0
    x[100:140, 0] = np.nan
    of = calibrated(x, 500)
    assert of.detector.guard.stuck_after == (10, 10, 0)
    out = Detector(of).run(*recording(x))
    assert not out["alarm"].any()
    x[600:, 2] = 6.0
    assert Detector(of).run(*recording(x))["alarm"][620:].all()


@pytest.mark.parametrize("kind", ["dspot_ewma", "dspot"])
def test_tail_thresholds(kind: str) -> None:
    of = calibrated(noise(3000), 500, threshold=kind)
    t = of.detector.threshold
    assert t.kind == kind
    assert t.excess_count == pytest.approx(50, abs=2)
    assert t.value > t.level > 0
    out = Detector(of).run(*recording(noise(3000, seed=1)))
    assert out["alarm"].mean() < 0.005
    x = noise(300, seed=2)
    x[200:, 1] += 25.0
    assert Detector(of).run(*recording(x))["alarm"][210:230].all()


def test_few_excesses_fall_back_to_the_largest_score() -> None:
    of = calibrated(noise(100), threshold="dspot_ewma")
    assert of.detector.threshold.value > 0


def test_several_recordings_each_start_cold() -> None:
    x = noise(900)
    parts = [recording(x[:400]), recording(x[400:500]), recording(x[500:])]
    of = replace(model(3), detector=None, scaler=scaling(parts))
    fitted = calibrate_detector(of, parts, [300, 100, 200])
    assert fitted.detector.period_ns == SECOND
    assert not Detector(fitted).run(*recording(noise(1000, seed=7)))["alarm"].any()


def test_own_guard_condition_and_alarm_are_taken() -> None:
    guard, condition = GuardSpec(low=(0.0, None, None), high=()), ConditionSpec(drift=(False, True, False))
    alarm = AlarmSpec(needed=1, window=1, refractory=9)
    of = calibrated(noise(400), guard=guard, condition=condition, alarm=alarm, max_freeze=77, warmup=5)
    d = of.detector
    assert (d.guard, d.condition, d.alarm, d.threshold.max_freeze, d.warmup) == (
        guard,
        condition,
        alarm,
        77,
        5,
    )


def test_reconstruction_is_calibrated_the_same_way() -> None:
    of = calibrated(noise(800), 500, kind="reconstruct")
    assert of.detector.kind == "reconstruct"
    assert not Detector(of).run(*recording(noise(1000, seed=1)))["alarm"].any()


def test_the_baseline_never_looks_at_the_network() -> None:
    of = calibrated(noise(800), 500)
    baseline = without_network(of)
    assert [s.source for s in baseline.detector.scorers] == ["input"]
    other = replace(baseline, layers=model(3, seed=8).layers, head=model(3, seed=8).head)
    times, x = recording(noise(300, seed=5))
    np.testing.assert_array_equal(
        Detector(baseline).run(times, x)["score"], Detector(other).run(times, x)["score"]
    )
    with pytest.raises(ModelFileError, match="baseline"):
        without_network(calibrated(noise(800), 500, input_factor=0.0))
    with pytest.raises(ModelFileError, match="baseline"):
        without_network(replace(of, detector=None))


def test_the_numbers_are_plain_and_survive_a_file() -> None:
    d = calibrated(noise(400)).detector
    assert msgspec.json.decode(msgspec.json.encode(d), type=DetectorSpec) == d


def test_the_same_recordings_give_the_same_detector() -> None:
    assert calibrated(noise(400)).detector == calibrated(noise(400)).detector


def test_errors_say_what_to_do() -> None:
    with pytest.raises(DataError, match="at least 30 rows without faults"):
        calibrated(noise(50))
    with pytest.raises(DataError, match="not trained on"):
        calibrated(noise(200), 190)
    with pytest.raises(DataError, match="expected one per recording"):
        calibrate_detector(model(3), [recording(noise(100))], [1, 2])
    with pytest.raises(DataError, match="readings"):
        calibrate_detector(model(3), [recording(noise(100)[:, :2])])
    with pytest.raises(ModelFileError, match="nothing is scored"):
        calibrated(noise(100), input_factor=0.0, residual_factor=0.0)
    with pytest.raises(ModelFileError, match="as many outputs"):
        calibrate_detector(replace(model(3, outputs=3), head=()), [recording(noise(100))])
    x = noise(200)
    x[:, 1] = np.nan
    with pytest.raises(DataError, match="leave out a channel"):
        calibrate_detector(replace(model(3), detector=None), [recording(x)])
