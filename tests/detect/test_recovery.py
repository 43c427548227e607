"""An alarm that ends when the event's own direction is gone, a new normal after it, and scorers in groups."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from edge_rnn.core.detector_spec import (
    AlarmSpec,
    DetectorSpec,
    ScorerKind,
    ScorerSpec,
    Source,
    ThresholdSpec,
)
from edge_rnn.detect.detector import Detector
from edge_rnn.detect.verdict import STATUSES
from edge_rnn.errors import ModelFileError
from tests.detect.models import SECOND, model, replaced, scorer, spec


def made(kind: ScorerKind = "mewma", **alarm: Any) -> DetectorSpec:
    """Two channels as they are, unit precisions, threshold 4 on the squared distance."""
    w = (1.0, 0.0, 0.0, 1.0) if kind == "mewma" else (1.0, 1.0)
    s = ScorerSpec(kind=kind, source="input", rate=1.0, center=(0.0, 0.0), precision=w)
    limit = ThresholdSpec(kind="fixed", value=4.0)
    return spec(
        2, kind="reconstruct", scorers=(s,), warmup=0, alarm=AlarmSpec(**alarm), threshold=limit
    )  # fmt: skip


def run(detector: DetectorSpec, x: list[list[float]]) -> np.ndarray:
    values = np.array(x)
    return Detector(model(2, detector, scaled=False)).run(np.arange(len(x)) * SECOND, values)


QUIET, EVENT, AFTER = [0.1, 0.0], [6.0, 0.0], [0.5, 3.0]


@pytest.mark.parametrize("kind", ["mewma", "mewma_diagonal"])
def test_an_alarm_ends_when_its_own_direction_is_gone(kind: ScorerKind) -> None:
    x = [QUIET] * 3 + [EVENT] * 5 + [AFTER] * 12
    plain = run(made(kind), x)
    # Too high to the end, as the plant stays away from where it was.
    assert plain["alarm"].tolist() == [0] * 3 + [1] * 17
    out = run(made(kind, recovery=0.3), x)
    # Without a new normal it opens again at once, in the new direction.
    assert out["alarm"][3:10].tolist() == [1, 1, 1, 1, 1, 0, 1]
    assert not out["accepted"].any()


def test_what_is_left_becomes_normal_without_a_reset() -> None:
    x = [QUIET] * 3 + [EVENT] * 5 + [AFTER] * 12 + [EVENT] * 2
    out = run(made(recovery=0.3, rebase=4), x)
    assert out["alarm"].tolist() == [0] * 3 + [1] * 5 + [0] * 12 + [1] * 2
    assert np.flatnonzero(out["accepted"]).tolist() == [8]
    words = [STATUSES[k] for k in out["status"]]
    assert words[8:14] == ["normal", *["warming"] * 4, "normal"]
    assert np.isnan(out["score"][9:13]).all()
    assert out["score"][13:20] == pytest.approx(0.0)


def test_the_new_center_is_the_mean_of_these_rows() -> None:
    after = [[0.5, 3.0], [0.3, 2.0], [0.1, 4.0], [0.1, 3.0], [0.0, 5.0]]
    out = run(made(recovery=0.3, rebase=4), [QUIET, EVENT, EVENT, *after, [0.0, 3.5]])
    mean = np.mean(after[1:], axis=0)
    assert out["score"][-1] == pytest.approx(((np.array([0.0, 3.5]) - mean) ** 2).sum())


def test_an_event_that_is_over_leaves_the_center_where_it_was() -> None:
    out = run(made(recovery=0.3, rebase=4), [QUIET, EVENT, EVENT, QUIET, QUIET, EVENT])
    assert out["alarm"].tolist() == [0, 1, 1, 0, 0, 1]
    assert not out["accepted"].any()


def test_it_holds_on_while_the_event_shrinks_in_its_own_direction() -> None:
    """1.9 is below the threshold in distance, but more than 0.3 of the mean; a plain alarm ends there."""
    x = [QUIET, EVENT, EVENT, [1.9, 0.0], [1.9, 0.0], QUIET]
    assert run(made(clear_ratio=1.0), x)["alarm"].tolist() == [0, 1, 1, 0, 0, 0]
    assert run(made(recovery=0.3), x)["alarm"].tolist() == [0, 1, 1, 1, 1, 0]


def test_an_alarm_of_another_kind_of_scorer_ends_by_the_ratio() -> None:
    both = made(recovery=0.3, rebase=4)
    other = ScorerSpec(kind="ewma_z", source="input", rate=1.0, center=(0.0, 0.0), precision=(2.0, 2.0))
    detector = replaced(both, scorers=(*both.scorers, other))
    out = run(detector, [QUIET, EVENT, EVENT, *[AFTER] * 5])
    assert out["scorer"][1] == 1
    assert out["alarm"].tolist() == [0] + [1] * 7
    assert not out["accepted"].any()


def test_what_does_not_fit_is_refused() -> None:
    for alarm, scorers, word in (
        (AlarmSpec(recovery=0.3), (scorer(2),), "needs a scorer of kind mewma"),
        (AlarmSpec(rebase=3), (scorer(2, "mewma"),), "needs a recovery"),
    ):
        with pytest.raises(ModelFileError, match=word):
            spec(2, scorers=scorers, alarm=alarm).check(2, 2)
    s = msgspec.structs.replace(scorer(2), source="self_scaled")
    with pytest.raises(ModelFileError, match="self_scaled needs a scale_head"):
        spec(2, scorers=(s,)).check(2, 2)


def test_groups_are_summed_and_the_largest_counts() -> None:
    def one(channel: int, group: int, weight: float) -> ScorerSpec:
        w = tuple(float(c == channel) for c in range(2))
        return ScorerSpec(
            kind="ewma_z", source="input", rate=1.0, center=(0.0, 0.0), precision=w, group=group,
            weight=weight,
        )  # fmt: skip

    scorers = (one(0, 0, 1.0), one(1, 5, 0.5), one(0, 0, 0.5), one(1, 5, 1.0))
    out = run(replaced(made(), scorers=scorers, combine="sum"), [[1.0, 0.5], [0.5, 1.5]])
    assert out["score"].tolist() == [1.5, 1.5 * 2.25]
    largest = run(replaced(made(), scorers=scorers, combine="max"), [[1.0, 0.5], [0.5, 1.5]])
    assert largest["score"].tolist() == [1.0, 2.25]


def test_self_scaled_is_the_size_of_the_residual_in_the_scale_that_was_said() -> None:
    def scores(source: Source, x: np.ndarray) -> np.ndarray:
        s = ScorerSpec(kind="ewma_z", source=source, rate=1.0, center=(0.0,), precision=(1.0,))
        detector = spec(1, scorers=(s,), scale_head="laplace", warmup=0, residual_scale=(2.0,))
        return Detector(model(1, detector, outputs=2)).run(np.arange(len(x)) * SECOND, x)["score"]

    x = np.random.default_rng(0).normal(size=(50, 1))
    np.testing.assert_allclose(scores("self_scaled", x), 4.0 * scores("residual", x), rtol=1e-12)
    # Smoothed, sizes do not cancel.
    s = ScorerSpec(kind="ewma_z", source="self_scaled", rate=0.2, center=(0.0,), precision=(1.0,))
    detector = spec(1, scorers=(s,), scale_head="laplace", warmup=0)
    of = model(1, detector, outputs=2)
    smooth = Detector(of).run(np.arange(50) * SECOND, x)["score"]
    sizes, z = np.sqrt(scores("self_scaled", x)), 0.0
    for size, got in zip(sizes[1:], smooth[1:], strict=True):
        z += 0.2 * (size - z)
        assert got == pytest.approx(z * z)
