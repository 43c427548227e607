"""The scoring of the Numenta Anomaly Benchmark (Lavin & Ahmad, ICMLA 2015), from its description.

Rows of a file's probation (the first 15 %, at most 750) are not scored. S(y) = 2 / (1 + e^{5y}) - 1, and -1
from y = 3 on, rewards early and forgives slightly late detections:

    inside a window of w rows whose last row is b    y = -(b - i + 1) / w     worth A_tp S(y) / S(-1)
    behind the last window, w' rows, last row b'     y = (i - b') / (w' - 1)  worth A_fp S(y)
    before any window                                                         worth -A_fp

A window counts its best detected row; a window with scored rows and no detected one costs A_fn. Every
detected row outside windows counts. One threshold is used for all files, the best one for each profile, so
the result of `optimize` has seen the labels; `score_at` takes a given threshold. The final score is
100 (total - null) / (perfect - null): null = nothing detected, perfect = A_tp for each window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_rnn.evaluate.intervals import Flags, Floats, Intervals


@dataclass(frozen=True, slots=True)
class Profile:
    """Weights of a detected window, a missed one, and a false row."""

    name: str
    tp: float
    fn: float
    fp: float


STANDARD = Profile("standard", 1.0, 1.0, 0.11)
LOW_FP = Profile("reward_low_FP_rate", 1.0, 1.0, 0.22)
LOW_FN = Profile("reward_low_FN_rate", 1.0, 2.0, 0.11)
PROFILES = (STANDARD, LOW_FP, LOW_FN)
_BEST = float(2.0 / (1.0 + np.exp(-5.0)) - 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class File:
    """One file: score (T,), NaN where nothing was judged, and windows (first, last + 1) in order."""

    score: Floats
    windows: Intervals


@dataclass(frozen=True, slots=True)
class Result:
    """Final score in percent, the threshold (a row is detected at score >= threshold), and the raw total."""

    score: float
    threshold: float
    total: float


def probation(rows: int) -> int:
    """How many first rows of a file are not scored."""
    return min(int(0.15 * rows), 750)


def sigmoid(y: Floats) -> Floats:
    """S(y)."""
    with np.errstate(over="ignore"):
        return np.where(y >= 3.0, -1.0, 2.0 / (1.0 + np.exp(5.0 * np.minimum(y, 3.0))) - 1.0)


def row_worth(rows: int, windows: Intervals) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """What a detected row is worth before weights: inside S(y)/S(-1), outside S(y); and its window, or -1."""
    worth = np.full(rows, -1.0)
    window = np.full(rows, -1, np.int64)
    for k, (a, b) in enumerate(windows):
        width = b - a
        stop = windows[k + 1][0] if k + 1 < len(windows) else rows
        behind = np.arange(b, stop)
        # A window of one row has no width to be near to.
        worth[b:stop] = sigmoid((behind - (b - 1)) / (width - 1)) if width > 1 else -1.0
        worth[a:b] = sigmoid(-(b - np.arange(a, b)) / width) / _BEST
        window[a:b] = k
    return worth, window


def _parts(
    files: Sequence[File], profile: Profile, skip: bool
) -> tuple[Floats, Floats, list[int], float, float]:
    """Sorted by falling score: score, worth, window number over all files (-1 outside); null; perfect."""
    scores, worths, owners = [], [], []
    scored = labelled = 0
    for file in files:
        rows = len(file.score)
        start = probation(rows) if skip else 0
        worth, window = row_worth(rows, file.windows)
        value = np.where(np.isnan(file.score), -np.inf, file.score)[start:]
        worth, window = worth[start:], window[start:]
        scores.append(value)
        worths.append(np.where(window >= 0, profile.tp * worth, profile.fp * worth))
        owners.append(np.where(window >= 0, window + labelled, -1))
        scored += len(set(window[window >= 0].tolist()))
        labelled += len(file.windows)
    score = np.concatenate(scores)
    order = np.argsort(-score, kind="stable")
    owner = np.concatenate(owners)[order].tolist()
    return score[order], np.concatenate(worths)[order], owner, -profile.fn * scored, profile.tp * labelled


def optimize(files: Sequence[File], profile: Profile = STANDARD, *, skip_probation: bool = True) -> Result:
    """The best final score over all thresholds, "never" among them: chosen on labels, as the board does."""
    score, worth, owner, null, perfect = _parts(files, profile, skip_probation)
    best_of: dict[int, float] = {}
    total, best = null, (null, np.inf)
    last = len(score) - 1
    values, worths = score.tolist(), worth.tolist()
    for i, value in enumerate(values):
        if value == -np.inf:
            break
        window = owner[i]
        if window < 0:
            total += worths[i]
        else:
            before = best_of.get(window, -profile.fn)
            if worths[i] > before:
                best_of[window] = worths[i]
                total += worths[i] - before
        if (i == last or values[i + 1] != value) and total > best[0]:
            best = (total, value)
    return Result(_final(best[0], null, perfect), best[1], best[0])


def score_at(
    files: Sequence[File], threshold: float, profile: Profile = STANDARD, *, skip_probation: bool = True
) -> Result:
    """The final score at a given threshold: rows with score >= threshold are detected."""
    score, worth, owner, null, perfect = _parts(files, profile, skip_probation)
    on = score >= threshold
    on &= score > -np.inf
    best_of: dict[int, float] = {}
    total = null
    for i in np.flatnonzero(on).tolist():
        window, value = owner[i], float(worth[i])
        if window < 0:
            total += value
        else:
            before = best_of.get(window, -profile.fn)
            if value > before:
                best_of[window] = value
                total += value - before
    return Result(_final(total, null, perfect), threshold, total)


def score_detections(files: Sequence[tuple[Flags, Intervals]], profile: Profile = STANDARD) -> Result:
    """The final score of detections by rule: one flag a row (T,), usually the row in which an alarm opens."""
    return score_at([File(flags.astype(np.float64), windows) for flags, windows in files], 0.5, profile)


def _final(total: float, null: float, perfect: float) -> float:
    return 100.0 * (total - null) / (perfect - null) if perfect > null else float("nan")
