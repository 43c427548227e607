"""Every transition of the alarm's machine, the thresholds, and the way out of a lasting change."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from edge_rnn.core.detector_spec import AlarmSpec, ThresholdSpec
from edge_rnn.detect.detector import Detector
from edge_rnn.detect.thresholds import tail_value
from edge_rnn.detect.verdict import STATUSES, Verdict
from tests.detect.models import model, scorer, spec

LEVEL = 4.0


def detector(alarm: AlarmSpec | None = None, threshold: ThresholdSpec | None = None, **more: Any) -> Detector:
    """One channel whose score is exactly its reading squared."""
    plain = scorer(1, "ewma_z", "input", rate=1.0, unit=1.0)
    plain = msgspec.structs.replace(plain, center=(0.0,), precision=(1.0,))
    values = {
        "kind": "reconstruct", "warmup": 0, "scorers": (plain,), "alarm": alarm or AlarmSpec(),
        "threshold": threshold or ThresholdSpec(kind="fixed", value=LEVEL),
    } | more  # fmt: skip
    return Detector(model(1, spec(1, **values), scaled=False))


def drive(d: Detector, scores: list[float]) -> list[Verdict]:
    first = int(d.table.states["marks"][0, 0])
    return [d.step([s**0.5], first + i) for i, s in enumerate(scores)]


def words(d: Detector, scores: list[float]) -> str:
    """First letters: n p a c."""
    return "".join(v.status[0] for v in drive(d, scores))


def test_score_and_threshold_are_what_they_say() -> None:
    verdict = drive(detector(), [9.0])[0]
    assert (verdict.score, verdict.threshold, verdict.status) == (9.0, LEVEL, "anomaly")
    # At the threshold itself nothing is too high.
    assert words(detector(), [4.0]) == "n"


@pytest.mark.parametrize(
    ("alarm", "scores", "expected"),
    [
        (AlarmSpec(), [1, 9, 9, 1], "naan"),
        # n of m
        (AlarmSpec(needed=2, window=3), [9, 1, 9, 1], "ppan"),
        (AlarmSpec(needed=2, window=3), [9, 1, 1, 9, 1, 1, 1], "pppnppn"[:3] + "pppn"),
        (AlarmSpec(needed=3, window=3), [9, 9, 1, 9, 9, 9], "pppppa"),
        # hysteresis: 0.5 * 4 = 2
        (AlarmSpec(clear_ratio=0.5), [9, 3, 2, 1.9, 3], "aaann"),
        # hold
        (AlarmSpec(clear_hold=2), [9, 1, 1, 1, 1], "accnn"),
        (AlarmSpec(clear_hold=2), [9, 1, 3.9, 1, 1, 1], "acaccn"),
        (AlarmSpec(clear_ratio=1.0, clear_hold=1), [9, 3.9, 4.1, 3.9, 3.9], "acacn"),
        # refractory: the next 2 steps cannot open, then it opens
        (AlarmSpec(refractory=2), [9, 1, 9, 9, 9, 9], "anppaa"),
        (AlarmSpec(refractory=2), [9, 1, 1, 1, 9], "annna"),
    ],
)
def test_transitions(alarm: AlarmSpec, scores: list[float], expected: str) -> None:
    assert words(detector(alarm), [float(s) for s in scores]) == expected


def test_the_alarm_flag_is_on_in_anomaly_and_clearing() -> None:
    verdicts = drive(detector(AlarmSpec(needed=2, window=2, clear_hold=1)), [1.0, 9.0, 9.0, 1.0, 1.0])
    assert [(v.status, v.alarm) for v in verdicts] == [
        ("normal", False), ("pending", False), ("anomaly", True), ("clearing", True), ("normal", False),
    ]  # fmt: skip


def test_history_is_forgotten_after_an_alarm() -> None:
    assert words(detector(AlarmSpec(needed=2, window=4)), [9.0, 9.0, 1.0, 9.0, 1.0]) == "panpp"


def test_every_status_is_reached() -> None:
    d = detector(AlarmSpec(needed=2, window=2, clear_hold=1), warmup=1)
    seen = {v.status for v in drive(d, [1.0, 1.0, 9.0, 9.0, 1.0, 1.0])}
    seen.add(d.step([float("nan")], 99).status)
    assert seen == set(STATUSES)


def test_dspot_ewma_adds_its_moving_mean_and_learns_only_from_normal_scores() -> None:
    d = detector(threshold=ThresholdSpec(kind="dspot_ewma", value=3.0, rate=0.5, initial=1.0))
    verdicts = drive(d, [2.0, 3.0, 100.0, 100.0, 1.0, 1.0])
    # mean: 1 -> 1.5 -> 2.25, stands still for the alarm, at 1.0 the alarm ends and it learns again.
    assert [v.threshold for v in verdicts] == [4.0, 4.5, 5.25, 5.25, 5.25, 4.625]
    assert [v.alarm for v in verdicts] == [False, False, True, True, False, False]


def test_dspot_ewma_does_not_learn_from_a_pending_score() -> None:
    d = detector(AlarmSpec(needed=2, window=2), ThresholdSpec(kind="dspot_ewma", value=1.0, rate=0.5))
    verdicts = drive(d, [9.0, 0.0])
    assert verdicts[0].status == "pending"
    assert verdicts[1].threshold == verdicts[0].threshold


def test_dspot_follows_the_mean_of_its_window_and_refits() -> None:
    spec_ = ThresholdSpec(
        kind="dspot", value=50.0, window=3, initial=2.0, level=1.0, risk=0.01, count=100, excess_count=3,
        excess_sum=3.0, excess_squares=3.6,
    )  # fmt: skip
    d = detector(threshold=spec_)
    a, b, c = drive(d, [2.0, 4.0, 3.0])
    assert a.threshold == 52.0  # initial mean + first value
    assert b.threshold == 2.0 + 50.0  # mean of one score
    # 4 - 2 = 2 exceeds the level 1 by 1: the fourth excess, so the tail is fitted anew.
    fitted = tail_value(1.0, 102, 4, 4.0, 4.6, 0.01)
    assert c.threshold == pytest.approx(3.0 + fitted, rel=1e-12)
    drive(d, [1.0] * 3)
    assert drive(d, [1.0])[0].threshold == pytest.approx(1.0 + fitted, rel=1e-12)


def test_tail_value_finds_the_quantiles_of_known_tails() -> None:
    rng = np.random.default_rng(0)
    for sample, exact in (
        (rng.exponential(size=200_000), -np.log(1e-4)),
        (rng.uniform(size=200_000), 1 - 1e-4),
        (rng.pareto(5.0, size=200_000), 1e-4 ** (-1 / 5) - 1),
    ):
        level = float(np.quantile(sample, 0.98))
        y = sample[sample > level] - level
        value = tail_value(level, len(sample), len(y), float(y.sum()), float((y * y).sum()), 1e-4)
        assert value == pytest.approx(exact, rel=0.12)
    # All excesses equal: a tail without variance ends there, and the value stays above the level.
    assert 1.0 <= tail_value(1.0, 100, 5, 2.5, 1.25, 1e-4) < 2.5
    # Not rare at all: never below the level.
    assert tail_value(1.0, 10, 9, 9.0, 12.0, 0.99) >= 1.0


def test_a_lasting_change_is_accepted_after_max_freeze() -> None:
    threshold = ThresholdSpec(kind="fixed", value=LEVEL, max_freeze=5)
    d = detector(threshold=threshold, warmup=2)
    verdicts = drive(d, [0.0, 0.0, 0.0, *[49.0] * 12, 0.0])
    assert "".join(v.status[0] for v in verdicts) == "wwnaaaaaawwnnnna"
    accepted = [i for i, v in enumerate(verdicts) if v.accepted]
    assert accepted == [8]  # the sixth step of the alarm
    assert verdicts[8].alarm
    assert not verdicts[9].alarm
    assert verdicts[12].score == 0.0  # the new level is the new center


def test_without_max_freeze_an_alarm_may_last() -> None:
    verdicts = drive(detector(), [49.0] * 300)
    assert all(v.alarm for v in verdicts)
    assert not any(v.accepted for v in verdicts)


def test_an_interrupted_alarm_counts_anew() -> None:
    d = detector(threshold=ThresholdSpec(kind="fixed", value=LEVEL, max_freeze=5))
    verdicts = drive(d, ([49.0] * 5 + [0.0]) * 4)
    assert not any(v.accepted for v in verdicts)


def test_combine_takes_the_largest_or_the_sum_and_the_largest_ones_shares() -> None:
    strong = scorer(2, "ewma_z", "input", rate=1.0, unit=1.0)
    strong = msgspec.structs.replace(strong, center=(0.0, 0.0), precision=(1.0, 0.0))
    weak = msgspec.structs.replace(strong, precision=(0.0, 1.0))
    for combine, expected in (("max", 9.0), ("sum", 13.0)):
        of = model(
            2, spec(2, kind="reconstruct", warmup=0, scorers=(weak, strong), combine=combine), scaled=False
        )
        verdict = Detector(of).step([3.0, 2.0], 1)
        assert verdict.score == expected
        np.testing.assert_array_equal(verdict.share, [1.0, 0.0])


def test_without_any_distance_the_shares_are_equal() -> None:
    of = model(3, spec(3, kind="reconstruct", warmup=0, scorers=(scorer(3, "mewma", "input"),)), scaled=False)
    center = of.detector.scorers[0].center
    verdict = Detector(of).step(center, 1)
    assert verdict.score == 0.0
    np.testing.assert_allclose(verdict.share, 1 / 3)
    verdict = Detector(of).step([*center[:2], float("nan")], 1)
    np.testing.assert_array_equal(verdict.share, [0.5, 0.5, 0.0])


def test_mewma_is_the_squared_mahalanobis_distance_of_the_smoothed_readings() -> None:
    s = scorer(3, "mewma", "input", seed=5)
    of = model(3, spec(3, kind="reconstruct", warmup=0, scorers=(s,)), scaled=False)
    x = np.random.default_rng(0).normal(size=(30, 3))
    out = Detector(of).run(np.arange(30), x)
    z = np.array(s.center)
    for t in range(30):
        z = z + s.rate * (x[t] - z)
        d = z - np.array(s.center)
        w = np.array(s.precision).reshape(3, 3)
        q = d @ w @ d
        assert out["score"][t] == pytest.approx(q / s.unit, rel=1e-12)
        np.testing.assert_allclose(out["share"][t], d * (w @ d) / q, rtol=1e-9)
