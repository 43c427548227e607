"""Recordings that hold events, channels without a level, and a network that must pay."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from edge_rnn.calibrate import Options, conditioning, fit_detector, gate, kinds, scaling
from edge_rnn.core.detector_spec import (
    AlarmSpec,
    ConditionSpec,
    DetectorSpec,
    GuardSpec,
    ScorerSpec,
    TailSpec,
    ThresholdSpec,
)
from edge_rnn.core.model import Scaler
from edge_rnn.errors import ModelFileError
from edge_rnn.training.card import gate_sentence
from edge_rnn.training.conditioning import condition
from edge_rnn.training.data import Stretch
from tests.detect.models import SECOND, model

RNG = np.random.default_rng(0)
TIMES = np.arange(600, dtype=np.int64) * SECOND
ONE = ScorerSpec(kind="ewma_z", source="residual", rate=0.2)


def template(**more: object) -> DetectorSpec:
    values: dict = {
        "scorers": (ONE,), "threshold": ThresholdSpec(kind="fixed", value=1.0), "guard": GuardSpec(),
        "condition": ConditionSpec(trend=(True,)), "alarm": AlarmSpec(relevel=5, clear_hold=2), "warmup": 5,
    }  # fmt: skip
    return DetectorSpec(**(values | more))


def test_the_unit_of_a_channel_with_a_trend_is_the_noise_of_its_steps() -> None:
    x = np.cumsum(RNG.normal(size=(600, 1)), axis=0) * 50 + RNG.normal(size=(600, 1))
    line = 7.0 * np.arange(600)[:, None] + RNG.normal(0.0, 3.0, (600, 1))
    assert scaling([(TIMES, line)], (True,)).std[0] == pytest.approx(3.0, rel=0.15)
    assert scaling([(TIMES, x)], (False,)).std[0] == pytest.approx(x.std())
    # Most steps equal: their standard deviation.
    stairs = np.repeat(np.arange(60.0), 10)[:, None]
    assert scaling([(TIMES, stairs)], (True,)).std[0] == pytest.approx(np.diff(stairs[:, 0]).std() / 2**0.5)
    assert scaling([(TIMES, np.full((600, 1), 3.0))], (True,)).std[0] == 1.0


def test_which_channels_have_a_trend_is_found_in_the_rows() -> None:
    x = np.stack([np.cumsum(RNG.normal(size=600)), RNG.normal(size=600)], axis=1)
    assert conditioning([(TIMES, x)], Options()).trend == ()
    assert conditioning([(TIMES, x)], Options(trend="all")).trend == (True, True)
    found = conditioning([(TIMES, x)], Options(trend="smooth"))
    assert (found.trend, found.drift[0]) == ((True, False), False)
    asked = ConditionSpec(clip=3.0)
    assert conditioning([(TIMES, x)], Options(condition=asked, trend="all")) is asked


def test_the_network_is_trained_on_what_the_detector_shows_it() -> None:
    """A line is gone from its third row on, in training as in detect/trend.py."""
    x = 4.0 + 0.5 * np.arange(50.0)[:, None]
    rows = condition(Stretch(TIMES[:50], x), Scaler(np.zeros(1), np.ones(1)), ConditionSpec(trend=(True,)))
    assert rows.x[:2, 0].tolist() == [0.0, 0.5]
    np.testing.assert_allclose(rows.x[2:, 0], 0.0, atol=1e-6)


def test_numbers_from_medians_do_not_see_a_few_events() -> None:
    e = RNG.normal(2.0, 3.0, (4000, 1))
    e[:300] = 1e5
    found = kinds.robust_numbers(ONE, e)
    assert found.center[0] == pytest.approx(2.0, abs=0.5)
    assert found.precision[0] ** -0.5 == pytest.approx(3.0 * (0.2 / 1.8) ** 0.5, rel=0.15)
    with pytest.raises(ModelFileError, match="robust: a scorer of kind mewma"):
        kinds.robust_numbers(msgspec.structs.replace(ONE, kind="mewma"), e)


def test_the_ratio_is_of_sizes_around_the_medians() -> None:
    x = RNG.normal(size=(500, 2))
    assert gate.ratio(5.0 + 0.5 * x, x) == pytest.approx(0.5)
    assert gate.ratio(x, np.zeros((500, 2))) == 1.0
    # A channel at a limit: what is left does not vary, and that is no forecast.
    assert gate.ratio(np.full((500, 2), 3.0), x) == 1.0


def test_without_the_network_equal_scorers_count_once() -> None:
    ten = msgspec.structs.replace(ONE, horizon=1)
    other = msgspec.structs.replace(ONE, rate=0.5)
    plain, factors = gate.on_readings(template(scorers=(ONE, ten, other)), [9.0, 16.0, 25.0])
    assert [s.source for s in plain.scorers] == ["input", "input"]
    assert (factors, plain.scorers[1].rate) == ([9.0, 25.0], 0.5)


def test_a_network_that_does_not_pay_is_not_scored() -> None:
    """Random weights forecast nothing: what they leave is larger than the noise itself."""
    x = RNG.normal(size=(600, 1))
    x[200:230] += 8.0
    of = replace(model(1, scaled=False), detector=None, scaler=scaling([(TIMES, x)], (True,)))
    fit = {"factors": [16.0], "robust": True, "passes": 1}
    closed = fit_detector(of, [(TIMES, x)], template(), gate=0.9, **fit)
    open_ = fit_detector(of, [(TIMES, x)], template(), gate=100.0, **fit)
    assert closed.detector is not None
    assert open_.detector is not None
    facts = closed.provenance["network_gate"]
    assert (facts["network"], closed.detector.scorers[0].source) == (False, "input")
    assert facts["ratio"] > 0.9
    assert (open_.provenance["network_gate"]["network"], open_.detector.scorers[0].source) == (
        True,
        "residual",
    )
    assert closed.detector.scorers[0].unit == 16.0
    assert "NOT pay" in gate_sentence(facts)
    assert "it is used" in gate_sentence(open_.provenance["network_gate"])
    assert "nearly always on" in gate_sentence(facts | {"ratio": None})


def test_what_cannot_be_fitted_so_is_refused() -> None:
    x = RNG.normal(size=(600, 1))
    of = model(1, scaled=False)
    tailed = template(scorers=(msgspec.structs.replace(ONE, tail=TailSpec()),))
    with pytest.raises(ModelFileError, match="passes: need scorers without a tail"):
        fit_detector(of, [(TIMES, x)], tailed, passes=1)
    with pytest.raises(ModelFileError, match="gate: scale_head laplace"):
        fit_detector(of, [(TIMES, x)], template(scale_head="laplace"), gate=0.9, robust=True)
