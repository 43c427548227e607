"""Judging before the longest forecast has spoken, the reading as it is, and tails in coarse and fine bins."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from edge_rnn.calibrate.tables import filled
from edge_rnn.core.detector_spec import ConditionSpec, DetectorSpec, ScorerSpec, Source, TailSpec
from edge_rnn.detect import tails
from edge_rnn.detect.detector import Detector
from edge_rnn.errors import ModelFileError
from tests.detect.models import SECOND, model, replaced, spec


def one(source: Source, horizon: int = 0) -> ScorerSpec:
    return ScorerSpec(
        kind="ewma_z", source=source, horizon=horizon, rate=1.0, center=(0.0,), precision=(1.0,)
    )  # fmt: skip


def scores(detector: DetectorSpec, x: np.ndarray, outputs: int) -> np.ndarray:
    of = model(1, detector, outputs=outputs, scaled=False)
    return Detector(of).run(np.arange(len(x)) * SECOND, x)["score"]


def test_a_long_forecast_delays_nobody_else_when_early() -> None:
    x = np.random.default_rng(0).normal(size=(30, 1))
    late = spec(1, horizons=(1, 7), warmup=0, scorers=(one("input"), one("residual", 1)), combine="sum")
    waits, goes = scores(late, x, 2), scores(replaced(late, early=True), x, 2)
    assert np.flatnonzero(np.isfinite(waits))[0] == 7
    assert np.flatnonzero(np.isfinite(goes))[0] == 1
    # What has not spoken counts as having come true; from then on both are the same.
    np.testing.assert_array_equal(goes[1:7], x[1:7, 0] ** 2)
    np.testing.assert_array_equal(goes[7:], waits[7:])


def test_the_reading_is_judged_as_it_is_whatever_the_network_sees() -> None:
    x = np.array([[0.5], [9.0], [-40.0], [1e9]])
    condition = ConditionSpec(clip=2.0, soft_clip=1.0)
    seen, read = (
        scores(spec(1, kind="reconstruct", warmup=0, condition=condition, scorers=(one(s),)), x, 1)
        for s in ("input", "reading")
    )
    assert seen.max() <= 4.0
    # No product overflows: a reading counts as at most a million spreads.
    assert read.tolist() == [0.25, 81.0, 1600.0, 1e12]


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_first_counts_are_of_the_bins_that_the_detector_uses(parts: int) -> None:
    tail = TailSpec(low=-3, octaves=6, parts=parts)
    values = np.concatenate([[0.0, 1e-9, 1e9], np.random.default_rng(1).exponential(2.0, 200)])
    found = filled(tail, values)
    places = [tails.bin_of(v, -3, 6 * parts, int(math.log2(parts))) for v in values]
    assert list(found.counts) == np.bincount(places, minlength=6 * parts).tolist()


def test_counts_that_do_not_fit_their_bins_are_refused() -> None:
    tail = TailSpec(octaves=4, parts=2, counts=(0,) * 16)
    detector = spec(1, kind="reconstruct", scorers=(msgspec.structs.replace(one("input"), tail=tail),))
    with pytest.raises(ModelFileError, match=r"expected 8 \(parts \* octaves\) or none, got 16"):
        model(1, detector, outputs=1)
