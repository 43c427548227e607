"""A bar that rises: a repeat of what was reported is no news. And the scorer that goes with it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from edge_rnn.calibrate import fit_detector
from edge_rnn.core.detector_spec import AlarmSpec, DetectorSpec, ScorerSpec, Source, ThresholdSpec
from edge_rnn.detect.detector import Detector
from edge_rnn.errors import ModelFileError
from tests.detect.models import SECOND, model, replaced, scorer, spec


def made(warmup: int = 0, **threshold: Any) -> DetectorSpec:
    """One channel as it is; the score is |reading|, too high above 1."""
    s = ScorerSpec(
        kind="magnitude", source="input", rate=1.0, center=(0.0,), precision=(1.0,), mean=(0.0,)
    )  # fmt: skip
    limit = ThresholdSpec(kind="fixed", value=1.0, **threshold)
    return spec(
        1, kind="reconstruct", scorers=(s,), warmup=warmup, alarm=AlarmSpec(), threshold=limit
    )  # fmt: skip


def run(detector: DetectorSpec, x: list[float]) -> np.ndarray:
    values = np.array(x)[:, None]
    return Detector(model(1, detector, scaled=False)).run(np.arange(len(x)) * SECOND, values)


def test_a_repeat_is_no_news_and_more_of_it_is() -> None:
    x = [0.1, 2.0, 0.1, 2.2, 0.1, -2.5, 0.1, 2.9, 0.1, 3.1]
    assert run(made(), x)["alarm"].tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    out = run(made(bar=1.2), x)
    assert out["alarm"].tolist() == [0, 1, 0, 0, 0, 1, 0, 0, 0, 1]
    # A verdict says what its score was held against, and the score stays what it is.
    assert out["score"].tolist() == pytest.approx([abs(v) for v in x])
    assert out["threshold"].tolist() == pytest.approx([1.0, 1.0, 2.4, 2.4, 2.4, 2.4, 3.0, 3.0, 3.0, 3.0])


def test_what_the_warm_up_saw_is_no_news() -> None:
    x = [0.1, 3.0, 0.1, 2.0, 0.1, 4.0]
    assert run(made(warmup=2), x)["alarm"].tolist() == [0, 0, 0, 1, 0, 1]
    assert run(made(warmup=2, bar=1.2), x)["alarm"].tolist() == [0, 0, 0, 0, 0, 1]


def test_the_bar_sinks_while_no_alarm_is_on() -> None:
    x = [3.0, *[0.0] * 20, 2.0]
    assert run(made(bar=1.2), x)["alarm"][-1] == 0
    out = run(made(bar=1.2, bar_decay=0.9), x)
    assert out["alarm"][-1] == 1
    # Never below the threshold itself; not while the alarm is on.
    assert out["threshold"].tolist() == pytest.approx(
        [1.0, *(max(1.0, 3.6 * 0.9**k) for k in range(21))]
    )  # fmt: skip


def test_an_alarm_that_grows_stays_on() -> None:
    """While it is on, the bar follows; it ends below clear_ratio of the bar."""
    assert run(made(bar=1.2), [2.0, 2.6, 2.4, 3.0, 1.5, 1.5])["alarm"].tolist() == [1, 1, 1, 1, 0, 0]


def test_a_reset_lowers_it() -> None:
    detector = Detector(model(1, made(bar=1.2), scaled=False))
    times, x = np.arange(2) * SECOND, np.array([[3.0], [0.0]])
    assert detector.run(times, x)["threshold"][1] == pytest.approx(3.6)
    detector.reset()
    assert detector.run(times, x)["threshold"][0] == 1.0


@pytest.mark.parametrize(
    ("threshold", "word"), [({"bar": 0.5}, "at least 1"), ({"bar": 1.2, "peak_hold": 3}, "leave one at 0")]
)
def test_what_does_not_fit_is_refused(threshold: dict[str, Any], word: str) -> None:
    with pytest.raises(ModelFileError, match=word):
        made(**threshold).check(1, 1)


def test_magnitude_is_the_smoothed_size_of_deviations() -> None:
    """Sizes do not cancel, as deviations do in an EWMA of their own."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=60)
    s = ScorerSpec(
        kind="magnitude", source="difference", rate=0.2, center=(0.1,), precision=(2.0,), mean=(0.7,),
        unit=4.0,
    )  # fmt: skip
    got = run(replaced(made(), scorers=(s,)), list(x))["score"]
    z = 0.7
    for value, change in zip(got, np.diff(x, prepend=x[0]), strict=True):
        z += 0.2 * (abs(change - 0.1) - z)
        assert value == pytest.approx(z * 2.0 / 4.0)
    for mean in ((), (0.7, 0.7)):
        with pytest.raises(ModelFileError, match="mean: expected 1 entries"):
            replaced(made(), scorers=(msgspec.structs.replace(s, mean=mean),)).check(1, 1)


@pytest.mark.parametrize("source", ["input", "difference"])
def test_calibration_gives_magnitude_its_numbers(source: Source) -> None:
    rng = np.random.default_rng(2)
    x = 3.0 + rng.normal(size=(500, 1))
    of = model(1, replaced(made(), scorers=(scorer(1),)), scaled=False)
    s = ScorerSpec(kind="magnitude", source=source, rate=0.1)
    template = replaced(made(bar=1.2), scorers=(s,))
    fitted = fit_detector(of, [(np.arange(500) * SECOND, x)], template, quantile=1.0).detector
    assert fitted is not None
    (one,) = fitted.scorers
    e = x[:, 0] if source == "input" else np.diff(x[:, 0], prepend=x[0, 0])
    assert one.center == pytest.approx((e.mean(),))
    assert one.mean == pytest.approx((np.abs(e - e.mean()).mean(),))
    assert one.precision == pytest.approx((1.0 / e.std(),))
    assert fitted.threshold.bar == 1.2
    # The largest score of these rows is 1.
    plain = replaced(fitted, threshold=ThresholdSpec(kind="fixed", value=1.0))
    again = Detector(model(1, plain, scaled=False))
    assert again.run(np.arange(500) * SECOND, x)["score"].max() == pytest.approx(1.0)
