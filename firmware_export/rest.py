"""The resting state: where the network settles when nothing happens.

A network that starts from zeros needs a while until its outputs mean something. Stepped on the median of
recorded normal data until h and c stand still, it shows the state to start from instead.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.model import Model, RestState
from edge_rnn.core.reference import Reference
from edge_rnn.errors import DataError
from edge_rnn.files.readings import read_table

_MOST_STEPS, _STILL = 10_000, 1e-6


def rest_from(model: Model, path: str | Path) -> Model:
    """`model` with the resting state that the recorded data leads to.

    Raises:
        DataError: the file cannot be read, a channel is missing or has no finite value, or the network does
            not come to rest on a constant input.
    """
    table = read_table(path, channels=[i.name for i in model.inputs])
    return with_rest(model, table.values, str(path))


def with_rest(model: Model, readings: NDArray[np.float64], where: str = "rest data") -> Model:
    """The same for readings (T, C) in their own units; NaN where there is none."""
    finite = np.isfinite(readings)
    for k, one in enumerate(model.inputs):
        if not finite[:, k].any():
            raise DataError(f"{where}: channel {one.name!r} has no finite value, so it has no median")
    median = np.nanmedian(np.where(finite, readings, np.nan), axis=0)
    x = median if model.scaler is None else (median - model.scaler.mean) / model.scaler.std
    drift = () if model.detector is None else model.detector.condition.drift
    x = np.where(drift, 0.0, x) if drift else x  # their level is removed: at rest they are 0
    x = x.astype(np.float32)
    reference = Reference(replace(model, rest_state=None))
    last: list[NDArray[np.float64]] = []
    for _ in range(_MOST_STEPS):
        with np.errstate(all="ignore"):
            reference.step(x)
        now = [*reference.h, *(c for c in reference.c if c is not None)]
        if last and all(_still(a, b) for a, b in zip(now, last, strict=True)):
            h, c = (
                tuple(None if v is None else v.astype(np.float32) for v in s)
                for s in (reference.h, reference.c)
            )
            return _recorded(replace(model, rest_state=RestState(h, c)))  # type: ignore[arg-type]
        last = now
    raise DataError(
        f"{where}: the network does not come to rest on this data's median within {_MOST_STEPS:,} steps; "
        "export without a resting state"
    )


def _still(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return bool(np.abs(a - b).max() <= _STILL * max(1.0, float(np.abs(a).max())))


def _recorded(model: Model) -> Model:
    """The model's self-test from its new beginning, as the float64 equations give it."""
    test = model.self_test
    if test is None:
        return model
    return replace(model, self_test=replace(test, y=Reference(model).run(test.x).astype(np.float32)))
