"""The numbers of each kind of scorer, from deviations of calibration rows.

For N normal rows of C channels: e (N, C) the deviations a scorer looks at, z (N, C) the same smoothed by
its rate, both as the detector itself has them.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_rnn.calibrate.statistics import NORMAL_MEDIAN
from edge_rnn.core.detector_spec import ScorerSpec
from edge_rnn.errors import ModelFileError

Floats = NDArray[np.float64]

SMALLEST_VARIANCE = 1e-4


def robust_numbers(scorer: ScorerSpec, e: Floats) -> ScorerSpec:
    """`scorer` of kind ewma_z or mewma_diagonal with numbers from medians of single deviations e (N, C).

    The center is the median, and the variance of the smoothed deviation (median |e - center| / 0.6745)^2
    rate / (2 - rate), as of errors that do not depend on the step before. It is known from far fewer rows
    than the variance of what is smoothed, and a few events among the rows move it little; where errors do
    hang together, it is too small.

    Raises:
        ModelFileError: another kind.
    """
    if scorer.kind not in ("ewma_z", "mewma_diagonal"):
        raise ModelFileError(
            f"robust: a scorer of kind {scorer.kind} has no numbers from medians; take ewma_z or "
            "mewma_diagonal"
        )
    center = np.median(e, axis=0)
    spread = np.median(np.abs(e - center), axis=0) / NORMAL_MEDIAN
    variances = np.maximum(spread**2, SMALLEST_VARIANCE) * (scorer.rate / (2.0 - scorer.rate))
    return _replaced(scorer, center=center, precision=1.0 / variances)


def with_numbers(scorer: ScorerSpec, e: Floats, z: Floats, shrinkage: float) -> ScorerSpec:
    """`scorer` with center, precision and what else its kind needs; `shrinkage` is for a full covariance.

    No variance is smaller than that of 1 % of a channel's spread, so that a channel that never changed in
    calibration is not infinitely surprising.
    """
    if scorer.kind == "novelty":
        return _replaced(scorer, low=e.min(axis=0), high=e.max(axis=0))
    if scorer.kind == "mewma":
        return _replaced(scorer, center=z.mean(axis=0), precision=_inverse_covariance(z, shrinkage))
    if scorer.kind in ("mewma_diagonal", "ewma_z"):
        variances = np.maximum(np.diag(np.atleast_2d(np.cov(z.T))), SMALLEST_VARIANCE)
        return _replaced(scorer, center=z.mean(axis=0), precision=1.0 / variances)
    center = e.mean(axis=0)
    if scorer.kind in ("cusum", "page_hinkley", "level"):
        return _replaced(scorer, center=center, precision=1.0 / np.sqrt(_variances(e)))
    size = {"up": np.maximum(e - center, 0.0), "down": np.maximum(center - e, 0.0)}.get(
        scorer.side, np.abs(e - center)
    )
    if scorer.kind == "likelihood":
        size = _smoothed(size, scorer.rate)
    if scorer.kind == "magnitude":
        return _replaced(
            scorer, center=center, mean=size.mean(axis=0), precision=1.0 / np.sqrt(_variances(e))
        )
    found = _replaced(scorer, center=center, mean=size.mean(axis=0), precision=1.0 / _variances(size))
    return msgspec.structs.replace(found, count=len(size))


def _variances(x: Floats) -> Floats:
    return np.asarray(np.maximum(x.var(axis=0), SMALLEST_VARIANCE), np.float64)


def _inverse_covariance(z: Floats, shrinkage: float) -> Floats:
    covariance = np.atleast_2d(np.cov(z.T))
    variances = np.maximum(np.diag(covariance), SMALLEST_VARIANCE)
    shrunk = (1.0 - shrinkage) * covariance
    np.fill_diagonal(shrunk, variances)
    inverse = np.linalg.inv(shrunk)
    return np.asarray((inverse + inverse.T) / 2.0, np.float64)


def _smoothed(x: Floats, rate: float) -> Floats:
    """The EWMA of x (N, C), begun at its mean."""
    z, out = x.mean(axis=0), np.empty_like(x)
    for t, row in enumerate(x):
        z = z + rate * (row - z)
        out[t] = z
    return out


def _replaced(scorer: ScorerSpec, **lists: Floats) -> ScorerSpec:
    plain = {name: tuple(float(v) for v in values.ravel()) for name, values in lists.items()}
    return msgspec.structs.replace(scorer, **plain)
