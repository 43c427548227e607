"""Rules that need no model: what any detector has to beat.

*All-ones*: an alarm that is always on. *Persistence*: how far a reading is from the one before. *Seasonal
naive*: how far it is from the one a season (a day) before. Differences are divided by their spread on rows
to fit to, squared and averaged over the channels; the limit is `FACTOR` times the largest value on those
rows. A value that is missing or not finite differs by nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_rnn.evaluate.intervals import Flags, Floats

FACTOR = 2.0
_DAY_NS = 86_400_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Naive:
    """What a naive rule says: its name, score (T,) with NaN for the first season, and alarm (T,)."""

    name: str
    score: Floats
    alarm: Flags


def season_rows(times_ns: NDArray[np.int64], fit_rows: int) -> int:
    """Rows in a day, where rows come evenly and the rows to fit to hold two days; else 1 (persistence)."""
    if len(times_ns) < 2:
        return 1
    step = int(np.median(np.diff(times_ns)))
    if step <= 0:
        return 1
    rows = round(_DAY_NS / step)
    return rows if rows > 1 and 2 * rows <= fit_rows else 1


def naive(values: Floats, fit_rows: int, season: int = 1) -> Naive:
    """The persistence (season 1) or seasonal-naive rule over values (T, C).

    Args:
        values: readings, NaN where missing.
        fit_rows: the first so many rows set spread and limit; no later row does.
        season: rows to look back.
    """
    rows = len(values)
    season = max(1, min(season, rows - 1))
    last, good = _held(values), np.isfinite(values)
    difference = np.zeros_like(last)
    difference[season:] = last[season:] - last[:-season]
    good[season:] &= good[:-season]
    difference = np.where(good, difference, 0.0)
    fit = difference[season:fit_rows]
    spread = fit.std(axis=0) if len(fit) else np.ones(values.shape[1])
    # A channel that stood still while fitting: any step is large, none is infinite.
    scale = np.maximum(np.abs(last[: max(fit_rows, 1)]).max(axis=0), 1.0)
    score = np.square(difference / np.maximum(spread, 1e-6 * scale)).mean(axis=1)
    limit = FACTOR * float(score[season:fit_rows].max()) if len(fit) else np.inf
    score[:season] = np.nan
    with np.errstate(invalid="ignore"):
        alarm = score > max(limit, 1e-12)
    return Naive("persistence" if season == 1 else f"seasonal naive ({season} rows)", score, alarm)


def _held(values: Floats) -> Floats:
    """Values (T, C) with the last finite one in place of those that are not, 0 before the first."""
    good = np.isfinite(values)
    at = np.where(good, np.arange(len(values))[:, None], 0)
    np.maximum.accumulate(at, axis=0, out=at)
    held = np.take_along_axis(values, at, axis=0)
    return np.where(np.isfinite(held), held, 0.0)


def matched_alarm(score: Floats, share: float) -> Flags:
    """The alarm of a score whose limit is set so that it is on in the given share of the rows.

    For comparing two scores at the same time in alarm, where there are no rows to fit a limit to.
    """
    known = score[np.isfinite(score)]
    if not known.size or share <= 0:
        return np.zeros(len(score), np.bool_)
    limit = float(np.quantile(known, max(0.0, 1.0 - share)))
    with np.errstate(invalid="ignore"):
        return np.asarray(score > limit) if share < 1 else np.ones(len(score), np.bool_)
