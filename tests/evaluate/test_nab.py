"""NAB's scoring: the cases of the benchmark's own unit tests, hand-computed sums, and what always holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rnn.evaluate import nab

# The weights and sigmoid values of the benchmark's tests (numenta/NAB, tests/unit/scorer_test.py).
WEIGHTS = nab.Profile("test", 1.1, 1.2, 0.11)
S_LEFT, S_HALF = 0.9866142981514305, 0.8482836399575131
W1, W2 = (1, 3), (4, 6)


def total(detected: str, windows: list[tuple[int, int]]) -> float:
    score = np.array([float(c) for c in detected])
    file = nab.File(score, windows)
    return nab.score_at([file], 0.5, WEIGHTS, skip_probation=False).total


@pytest.mark.parametrize(
    ("detected", "windows", "expected"),
    [
        ("00000", [], 0.0),
        ("01010", [], -2 * 0.11),
        ("0000000", [W1, W2], -2 * 1.2),
        ("0010000", [W1], 1.1 * S_HALF / S_LEFT),
        ("0010000", [W1, W2], 1.1 * S_HALF / S_LEFT - 1.2),
        ("0000100", [W2], 1.1),
        ("0000110", [W2], 1.1),
        ("0010100", [W1, W2], 1.1 * S_HALF / S_LEFT + 1.1),
    ],
)
def test_the_benchmarks_own_cases(detected, windows, expected):
    assert total(detected, windows) == pytest.approx(expected, abs=1e-12)


def test_false_rows_behind_a_window_by_hand():
    """Window of 5 rows ending at row 9: row 11 is at y = 2/4, row 22 at 13/4 > 3."""
    windows = [(5, 10)]
    detected = np.zeros(30)
    detected[[11, 22]] = 1
    got = nab.score_at([nab.File(detected, windows)], 0.5, WEIGHTS, skip_probation=False)
    late = 2 / (1 + np.exp(5 * 0.5)) - 1
    assert got.total == pytest.approx(-1.2 + 0.11 * (late - 1.0))


def test_probation():
    assert [nab.probation(n) for n in (0, 100, 4999, 5000, 22695)] == [0, 15, 749, 750, 750]
    early = np.zeros(100)
    early[:15] = 1
    # A window wholly inside it is never scored, and costs nothing in the sum.
    assert nab.score_at([nab.File(early, [(3, 8)])], 0.5).total == 0.0


def test_the_scale_null_is_0_and_perfect_100():
    windows = [(40, 50), (70, 90)]
    first = np.zeros(100)
    first[[40, 70]] = 1
    for profile in nab.PROFILES:
        assert nab.score_at([nab.File(first, windows)], 0.5, profile).score == pytest.approx(100.0)
        assert nab.score_at([nab.File(np.zeros(100), windows)], 0.5, profile).score == 0.0
        assert nab.optimize([nab.File(np.zeros(100), windows)], profile).score >= 0.0
    assert np.isnan(nab.score_at([nab.File(first, [])], 0.5).score)


def test_three_profiles_are_the_published_ones():
    assert [(p.tp, p.fn, p.fp) for p in nab.PROFILES] == [(1, 1, 0.11), (1, 1, 0.22), (1, 2, 0.11)]


@given(st.integers(0, 1000))
def test_the_best_threshold_is_found(seed):
    """`optimize` against every threshold there is, on small random files with NaN and equal scores."""
    rng = np.random.default_rng(seed)
    files = []
    for _ in range(3):
        n = int(rng.integers(20, 80))
        score = rng.integers(0, 8, n).astype(float)
        score[rng.random(n) < 0.1] = np.nan
        start = int(rng.integers(5, n - 8))
        files.append(
            nab.File(score, [(start, start + int(rng.integers(1, 8)))] if rng.random() < 0.8 else [])
        )
    if not any(f.windows for f in files):
        return
    for profile in nab.PROFILES:
        best = nab.optimize(files, profile)
        every = [nab.score_at(files, t, profile) for t in [*range(9), np.inf]]
        assert best.total == pytest.approx(max(r.total for r in every))
        assert nab.score_at(files, best.threshold, profile).total == pytest.approx(best.total)


def test_detections_by_rule():
    flags = np.zeros(100, bool)
    flags[45] = True
    got = nab.score_detections([(flags, [(40, 50)])])
    assert got.score == nab.score_at([nab.File(flags + 0.0, [(40, 50)])], 0.5).score
