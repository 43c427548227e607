"""Scaling, drift, runs and periods from recordings."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rnn.calibrate import drifting, longest_runs, period, scaling, silent_limit, stuck_limits
from edge_rnn.errors import DataError

SECOND = 1_000_000_000


def recording(x: np.ndarray, step: int = SECOND) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(len(x), dtype=np.int64) * step, x


def test_scaling_makes_zero_mean_and_unit_spread() -> None:
    x = np.random.default_rng(0).normal([1.0, 101_325.0], [0.5, 20.0], (500, 2))
    scaler = scaling([recording(x[:300]), recording(x[300:])])
    np.testing.assert_allclose(scaler.mean, x.mean(axis=0))
    np.testing.assert_allclose(scaler.std, x.std(axis=0))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e12, -3.3e-20])
def test_a_constant_channel_gets_spread_one(value: float) -> None:
    x = np.full((100, 1), value)
    assert scaling([recording(x)]).std[0] == 1.0


def test_scaling_leaves_out_what_is_not_finite() -> None:
    x = np.arange(10.0)[:, None].copy()
    x[3], x[5] = np.nan, np.inf
    scaler = scaling([recording(x)])
    assert scaler.mean[0] == np.delete(np.arange(10.0), [3, 5]).mean()
    with pytest.raises(DataError, match="channel 0: no finite reading"):
        scaling([recording(np.full((5, 1), np.nan))])


def test_scaling_names_the_channel_whose_readings_overflow() -> None:
    x = np.array([[0.0, 1e300], [1.0, -1e300]] * 5)
    with pytest.raises(DataError, match=r"channel 1: readings up to 1e\+300, too large"):
        scaling([recording(x)])


def test_drift_is_found_where_the_level_wanders_and_nowhere_else() -> None:
    rng = np.random.default_rng(0)
    t = np.arange(400)
    noise = rng.normal(size=400)
    x = np.stack(
        [
            noise,                                  # noise
            t / 20 + 0.5 * noise,                   # creeps up
            np.cumsum(rng.normal(size=400)),        # random walk
            np.sin(t * 2 * np.pi / 24) + 0.1 * noise,  # a rhythm, many periods
            np.full(400, 3.0),                      # constant
            t / 200 + noise,                        # trend below the noise
        ],
        axis=1,
    )  # fmt: skip
    assert drifting([recording(x)]) == (False, True, True, False, False, False)


def test_the_smooth_rule_finds_what_hardly_moves_from_step_to_step() -> None:
    rng = np.random.default_rng(0)
    walk, noise = np.cumsum(rng.normal(size=400)), rng.normal(size=400)
    x = np.stack([walk, noise, np.full(400, 3.0), walk + 10 * noise], axis=1)
    x[5, 0] = np.nan
    assert drifting([recording(x)], "smooth")[:3] == (True, False, False)
    assert drifting([recording(x[:10])], "smooth") == (False,) * 4


def test_drift_of_too_few_or_missing_rows_is_no_drift() -> None:
    assert drifting([recording(np.arange(19.0)[:, None])]) == (False,)
    x = np.arange(100.0)[:, None].copy()
    x[:80] = np.nan
    assert drifting([recording(x)]) == (False,)


def test_runs_and_stuck_limits() -> None:
    x = np.random.default_rng(0).normal(size=(200, 3))
    x[50:57, 1] = 4.0
    x[52, 1] = np.nan
    x[:100, 2] = 1.0
    assert longest_runs([recording(x)]) == (1, 6, 100)
    assert stuck_limits([recording(x)]) == (10, 12, 0)
    # A run does not go on from one recording into the next.
    assert longest_runs([recording(np.ones((3, 1))), recording(np.ones((4, 1)))]) == (4,)


def test_period_and_silence() -> None:
    x = np.zeros((1001, 1))
    assert period([recording(x)]) == SECOND
    assert silent_limit([recording(x)]) == 10 * SECOND
    assert silent_limit([recording(x, 10_000_000)]) == SECOND  # at least a second
    times = np.arange(1001, dtype=np.int64) * SECOND
    times[500:] += 60 * SECOND  # one pause in a thousand steps does not count ...
    assert silent_limit([(times, x)]) == 10 * SECOND
    times[700:] += 60 * SECOND
    times[800:] += 60 * SECOND  # ... three do
    assert silent_limit([(times, x)]) == 122 * SECOND
    assert period([recording(x[:1])]) == 0
    assert silent_limit([recording(x[:1])]) == 0


@pytest.mark.parametrize(
    ("recordings", "word"),
    [
        ([], "at least one"),
        ([recording(np.zeros((0, 2)))], "at least one"),
        ([(np.array([1, 1]), np.zeros((2, 1)))], "increasing"),
        ([(np.array([1, 2, 3]), np.zeros((2, 1)))], "expected times"),
        ([recording(np.zeros((3, 1))), recording(np.zeros((3, 2)))], "recording 1"),
        ([(np.array([1, 2]), np.zeros(2))], "expected times"),
    ],
)
def test_recordings_that_do_not_fit(recordings: list, word: str) -> None:
    for function in (scaling, drifting, longest_runs, period, silent_limit):
        with pytest.raises(DataError, match=word):
            function(recordings)
