"""Whether the network pays: the size of what its forecast leaves, against the size of the readings.

A forecast that follows noise leaves residuals larger than what it was to explain. The rule looks at rows the
network was not trained on, and at no label: per channel the median size of the residual over that of the
conditioned reading (both from their medians), the mean of these over the channels. A detector whose network
does not bring it below the limit scores the readings in place of what the network says.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.detector_spec import DetectorSpec, ScorerSpec

Floats = NDArray[np.float64]

OF_NETWORK = ("residual", "nll", "self_scaled")


def looks_at_network(template: DetectorSpec) -> bool:
    """Whether any scorer does."""
    return any(s.source in OF_NETWORK for s in template.scorers)


def on_readings(template: DetectorSpec, factors: Sequence[float]) -> tuple[DetectorSpec, list[float]]:
    """The same detector with the readings in place of what the network says of them, and its factors.

    A scorer that is there already is not taken twice.
    """
    scorers: list[ScorerSpec] = []
    kept: list[float] = []
    for scorer, factor in zip(template.scorers, factors, strict=True):
        if scorer.source in OF_NETWORK:
            scorer = msgspec.structs.replace(scorer, source="input", horizon=0)  # noqa: PLW2901
        if scorer not in scorers:
            scorers.append(scorer)
            kept.append(factor)
    return msgspec.structs.replace(template, scorers=tuple(scorers)), kept


def ratio(residuals: Floats, readings: Floats) -> float:
    """The rule of the module, from residuals (N, C) and conditioned readings (M, C) in the same unit.

    A channel whose readings or residuals are mostly one number is no evidence and counts as 1: it is
    constant, or stands at a limit, where a residual without spread is no forecast.
    """
    left, there = _sizes(residuals), _sizes(readings)
    telling = (left > 0) & (there > 0)
    return float(np.mean(np.where(telling, left / np.where(telling, there, 1.0), 1.0)))


def _sizes(x: Floats) -> Floats:
    return np.asarray(np.median(np.abs(x - np.median(x, axis=0)), axis=0), np.float64)
