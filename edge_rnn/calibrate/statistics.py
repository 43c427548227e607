"""What single channels look like when nothing is wrong: spread, drift, repeated values, sampling period.

Readings that are not finite are left out everywhere. The rules look at training rows only, never at labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_rnn.calibrate.rows import Recording, Rows, checked
from edge_rnn.core.model import Scaler
from edge_rnn.errors import DataError

_SECOND = 1_000_000_000

# A channel drifts if the means of ten blocks vary more than 1.5 times as much as readings inside a block.
DRIFT_BLOCKS = 10
DRIFT_RATIO = 1.5
# A channel is smooth if its steps vary less than a tenth of what independent readings' would.
SMOOTH_RATIO = 0.1
# The median of a normal variable's size, in its standard deviations.
NORMAL_MEDIAN = 0.6744897501960817
# A value may repeat twice as often as it ever did in training, and at least this often.
STUCK_FACTOR = 2
STUCK_LEAST = 10
# A channel or stream is silent after this many sampling periods, or twice the longest usual pause.
SILENT_PERIODS = 10


def _column(rows: Rows, c: int) -> NDArray[np.float64]:
    """All finite readings of one channel."""
    values = np.concatenate([x[:, c] for _, x in rows])
    finite: NDArray[np.float64] = values[np.isfinite(values)]
    return finite


def scaling(recordings: Sequence[Recording], trend: Sequence[bool] = ()) -> Scaler:
    """Mean and standard deviation per channel; a channel that never changes gets 1.

    trend: per channel whether level and slope are removed. Such a channel has no spread of its own: the
    longer it wanders, the larger. Its unit is the noise of its steps, median |d - median d| / 0.6745 / sqrt 2
    with d the steps, or, where most steps are equal, their standard deviation over sqrt 2.

    Raises:
        DataError: a channel without a finite reading or with too large ones, or recordings that do not fit
            each other.
    """
    rows = checked(recordings)
    channels = rows[0][1].shape[1]
    mean, std = np.zeros(channels), np.ones(channels)
    for c in range(channels):
        values = _column(rows, c)
        if not values.size:
            raise DataError(f"channel {c}: no finite reading in any row; leave the channel out")
        with np.errstate(over="ignore"):
            mean[c] = values.mean()
            spread = values.std()
        if not np.isfinite(spread):
            raise DataError(
                f"channel {c}: readings up to {np.abs(values).max():.3g}, too large for a mean and a "
                "spread in float64; remove them, or bring the channel to another unit"
            )
        # Rounding alone gives a constant channel of size m a spread near m * 1e-16.
        least = 1e-9 * max(1.0, abs(mean[c]))
        if trend and trend[c]:
            spread = _noise(rows, c, least) or spread
        if spread > least:
            std[c] = spread
    return Scaler(mean, std)


def _noise(rows: Rows, c: int, least: float) -> float:
    """The spread of the noise of one channel's steps; 0 where it does not step."""
    steps = np.concatenate([np.diff(x[np.isfinite(x[:, c]), c]) for _, x in rows])
    if not steps.size:
        return 0.0
    noise = float(np.median(np.abs(steps - np.median(steps)))) / NORMAL_MEDIAN
    noise = (noise if noise > least else float(steps.std())) / 2**0.5
    return noise if noise > least else 0.0


def drifting(
    recordings: Sequence[Recording], rule: Literal["blocks", "smooth"] = "blocks"
) -> tuple[bool, ...]:
    """Which channels have a slow level of their own, to be removed before the model sees them.

    `blocks`: the longest recording is cut into ten blocks. A channel drifts if the standard deviation of the
    blocks' means is more than 1.5 times the mean standard deviation inside a block: a machine's temperature
    that creeps up for an hour does, a vibration or a daily rhythm over weeks does not. Removing the level of
    a channel that does not drift would hide slow faults, so the ratio is on the careful side.

    `smooth`: a channel drifts if the variance of its steps is less than 0.1 of that of independent readings,
    var(diff x) / (2 var x) < 0.1 (von Neumann's ratio), in the longest recording. It also finds a channel
    that wanders without a trend; it takes a slow rhythm for drift.
    """
    rows = checked(recordings)
    x = max((x for _, x in rows), key=len)
    channels = int(x.shape[1])
    if len(x) < 2 * DRIFT_BLOCKS:
        return (False,) * channels
    if rule == "smooth":
        return tuple(_smooth(x[:, c]) for c in range(channels))
    blocks = np.array_split(x, DRIFT_BLOCKS)
    result: list[bool] = []
    for c in range(channels):
        good = [block[np.isfinite(block[:, c]), c] for block in blocks]
        good = [block for block in good if len(block) > 1]
        if len(good) < DRIFT_BLOCKS // 2:
            result.append(False)
            continue
        between = np.std([block.mean() for block in good])
        within = np.mean([block.std() for block in good])
        result.append(bool(between > DRIFT_RATIO * within and between > 0.0 and within > 0.0))
    return tuple(result)


def _smooth(x: NDArray[np.float64]) -> bool:
    good = x[np.isfinite(x)]
    if len(good) < 2 * DRIFT_BLOCKS:
        return False
    return bool(np.diff(good).var() < SMOOTH_RATIO * 2.0 * good.var())


def longest_runs(recordings: Sequence[Recording]) -> tuple[int, ...]:
    """Per channel the longest run of equal readings in a row (readings that are not finite are skipped)."""
    rows = checked(recordings)
    channels = rows[0][1].shape[1]
    longest = [0] * channels
    for _, x in rows:
        for c in range(channels):
            values = x[np.isfinite(x[:, c]), c]
            if values.size:
                starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1], True])
                longest[c] = max(longest[c], int(np.diff(starts).max()))
    return tuple(longest)


def stuck_limits(recordings: Sequence[Recording]) -> tuple[int, ...]:
    """Per channel how many equal readings in a row are still fine: twice the longest run, at least 10.

    0, never stuck, for a channel that stood still for a quarter of all rows: a valve position or a counter
    does that, and a limit would say nothing.
    """
    rows = checked(recordings)
    total = sum(len(t) for t, _ in rows)
    return tuple(
        0 if 4 * run > total else max(STUCK_LEAST, STUCK_FACTOR * run) for run in longest_runs(recordings)
    )


def _steps(recordings: Sequence[Recording]) -> NDArray[np.int64]:
    steps = [np.diff(t) for t, _ in checked(recordings)]
    return np.concatenate(steps)


def period(recordings: Sequence[Recording]) -> int:
    """The usual time between two rows (median), nanoseconds; 0 where there are no two rows."""
    steps = _steps(recordings)
    return int(np.median(steps)) if steps.size else 0


def silent_limit(recordings: Sequence[Recording]) -> int:
    """After how many nanoseconds without a reading a channel or stream is silent; 0 = unknown.

    Ten periods, or twice the pause that only one step in a thousand exceeds, and at least a second: network
    and scheduler delays are no broken sensor.
    """
    steps = _steps(recordings)
    if not steps.size:
        return 0
    usual = int(np.quantile(steps, 0.999))
    return max(SILENT_PERIODS * int(np.median(steps)), 2 * usual, _SECOND)
