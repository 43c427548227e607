"""Any detector that a user writes down without numbers is given them from recordings."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from edge_rnn.calibrate import fit_detector
from edge_rnn.calibrate.tables import filled, risk_of, table_of, threshold_of
from edge_rnn.core.detector_spec import (
    SCORER_KINDS,
    AlarmSpec,
    ConditionSpec,
    DetectorSpec,
    ScorerSpec,
    TailSpec,
    ThresholdSpec,
)
from edge_rnn.core.model import Model
from edge_rnn.detect.detector import Detector
from edge_rnn.errors import DataError, ModelFileError
from edge_rnn.files import model_file
from tests.detect.models import SECOND, model

QUIET = ThresholdSpec(kind="fixed", value=1e9)


def template(*scorers: ScorerSpec, **more: object) -> DetectorSpec:
    values: dict = {"scorers": scorers, "threshold": QUIET, "warmup": 5} | more
    return DetectorSpec(**values)


def recording(rows: int = 600, channels: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    t = np.arange(rows)
    x = np.sin(t[:, None] / (7 + np.arange(channels))) + 0.1 * rng.normal(size=(rows, channels))
    return (t + 1) * SECOND, x


def plain(channels: int = 2, horizons: int = 1) -> Model:
    """A network without a detector, for readings in model space."""
    any_scorer = ScorerSpec(kind="novelty", source="input", rate=1.0)
    made = model(
        channels, template(any_scorer, horizons=tuple(range(1, horizons + 1))), outputs=channels * horizons,
        scaled=False,
    )  # fmt: skip
    return Model(layers=made.layers, head=made.head)


@pytest.mark.parametrize("kind", SCORER_KINDS)
def test_every_kind_is_fitted_and_sees_a_jump(kind: str) -> None:
    times, x = recording()
    scorer = ScorerSpec(kind=kind, source="input", rate=3e-4 if kind == "level" else 0.3, tail=TailSpec())
    of = fit_detector(plain(), [(times, x)], template(scorer))
    fitted = of.detector.scorers[0]
    assert sum(fitted.tail.counts) > 500
    assert model_file.decode_model(model_file.encode_model(of), "m").detector == of.detector
    detector = Detector(of)
    detector.run(times, x)
    jump = detector.run(times[:40] + times[-1], x[:40] + 6.0)["score"]
    assert np.nanmax(jump) > 2.0  # one of a hundred at most


def test_a_fitted_unit_does_not_depend_on_the_templates() -> None:
    times, x = recording()
    units = [
        fit_detector(
            plain(), [(times, x)], template(ScorerSpec(kind="mewma", source="input", rate=0.3, unit=u))
        )
        .detector.scorers[0]
        .unit
        for u in (1.0, 8.0)
    ]
    assert units[0] == pytest.approx(units[1], rel=1e-12)


@pytest.mark.parametrize("kind", ["conformal", "pot", "spot", "dspot_ewma", "dspot"])
def test_a_threshold_from_a_risk_lets_about_that_part_through(kind: str) -> None:
    times, x = recording(4000)
    scorer = ScorerSpec(kind="mewma", source="input", rate=0.5)
    of = fit_detector(
        plain(), [(times, x)], template(scorer, threshold=ThresholdSpec(kind=kind, value=1.0, risk=0.01)),
        factors=[1.0],
    )  # fmt: skip
    out = Detector(of).run(*recording(4000, seed=1))
    assert 0.001 < (out["score"] > out["threshold"]).mean() < 0.03


def test_forecasts_of_several_horizons_get_their_own_spread() -> None:
    times, x = recording(800)
    of = plain(2, 3)
    scorers = tuple(ScorerSpec(kind="mewma", source="residual", rate=0.2, horizon=k) for k in range(3))
    fitted = fit_detector(of, [(times, x)], template(*scorers, horizons=(1, 2, 3), combine="sum"))
    spec = fitted.detector
    assert len(spec.residual_scale) == 6
    out = Detector(fitted).run(times, x)
    assert np.isnan(out["score"][:3]).all()
    assert np.isfinite(out["score"][5:]).all()
    first = out["residual"][10:]
    np.testing.assert_allclose(first.std(axis=0), spec.residual_scale[:2], rtol=0.05)


def test_probability_is_that_of_a_score_among_normal_ones() -> None:
    times, x = recording(3000)
    of = fit_detector(plain(), [(times, x)], template(ScorerSpec(kind="ewma_z", source="input", rate=0.5)))
    out = Detector(of).run(*recording(3000, seed=5))
    sure = out["probability"]
    assert np.isnan(sure[np.isnan(out["score"])]).all()
    known = sure[~np.isnan(sure)]
    assert ((known >= 0) & (known < 1)).all()
    for part in (0.5, 0.9, 0.99):
        assert abs((known < part).mean() - part) < 0.04
    order = np.argsort(out["score"][10:])
    assert (np.diff(sure[10:][order]) >= 0).all()


def test_the_band_holds_normal_readings() -> None:
    times, x = recording(2000)
    of = fit_detector(plain(), [(times, x)], template(ScorerSpec(kind="mewma", source="residual", rate=0.2)))
    out = Detector(of).run(times, x)
    inside = np.abs(out["residual"][10:]) <= out["band"][10:]
    assert inside.mean() > 0.95


def test_what_the_user_chose_stays() -> None:
    times, x = recording()
    wanted = template(
        ScorerSpec(kind="cusum", source="difference", rate=0.2, slack=0.7, side="up", weight=0.5),
        condition=ConditionSpec(soft_clip=3.0, running=(True, False)), alarm=AlarmSpec(severity=(2.0,)),
        threshold=ThresholdSpec(kind="fixed", value=2.5, peak_hold=4), period_ns=7,
    )  # fmt: skip
    spec = fit_detector(plain(), [(times, x)], wanted).detector
    assert (spec.condition, spec.alarm, spec.threshold, spec.period_ns) == (
        wanted.condition, wanted.alarm, wanted.threshold, 7,
    )  # fmt: skip
    got = spec.scorers[0]
    assert (got.slack, got.side, got.weight) == (0.7, "up", 0.5)
    with pytest.raises(ModelFileError, match="factors: expected one per scorer"):
        fit_detector(plain(), [(times, x)], wanted, factors=[1.0, 2.0])
    with pytest.raises(DataError, match="at least 30"):
        fit_detector(plain(), [(times[:20], x[:20])], wanted)


def test_tables_and_counts() -> None:
    scores = np.arange(1.0, 1001.0)
    table = table_of(scores)
    assert table.scores[-1] == 1000.0
    assert table.exceed[-1] == 1 / 1001
    assert all(a < b for a, b in zip(table.scores, table.scores[1:], strict=False))
    assert table_of(np.zeros(50)).scores == ()
    tail = filled(TailSpec(low=0, octaves=4), np.array([0.0, 0.5, 1.0, 1.25, 1.9, 3.0, 100.0]))
    assert [i for i, k in enumerate(tail.counts) for _ in range(k)] == [0, 0, 0, 1, 3, 6, 15]
    assert risk_of(0.5, 60 * SECOND) == 0.5 / 1440
    wanted = ThresholdSpec(kind="conformal", value=1.0, risk=0.1)
    assert threshold_of(np.arange(1.0, 100.0), wanted).value == 90.0
    assert threshold_of(np.arange(1.0, 5.0), wanted).value == 6.0


def test_alarms_per_day_become_a_risk() -> None:
    from edge_rnn.calibrate import Options, calibrate_detector

    times, x = recording(2000)
    options = Options(threshold="pot", alarms_per_day=5.0)
    spec = calibrate_detector(plain(), [(times, x)], None, options).detector
    assert math.isclose(spec.threshold.risk, 5.0 / 86_400)
    more = msgspec.structs.replace(spec.threshold, risk=0.0)
    assert more.value == spec.threshold.value
