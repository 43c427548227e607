"""What a detector itself sees and says on recordings: everything calibration measures comes from here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_rnn.calibrate.rows import Rows
from edge_rnn.core.detector_spec import ScorerSpec, Source, ThresholdSpec
from edge_rnn.core.model import Model
from edge_rnn.detect import fields as at
from edge_rnn.detect.detector import Detector
from edge_rnn.detect.verdict import STATUSES
from edge_rnn.errors import DataError

Floats = NDArray[np.float64]

FEWEST_ROWS = 30
_NEVER = 1e300
NO_ALARM = ThresholdSpec(kind="fixed", value=_NEVER)
# Scorers that only look on are in a group of their own, and so small that no alarm comes of them.
_UNHEARD_GROUP = 1023


def probes(scorers: Sequence[ScorerSpec], channels: int) -> tuple[ScorerSpec, ...]:
    """Two scorers for each, whose states are its deviation as it is, and smoothed."""
    return tuple(_probe(s.source, s.horizon, rate, channels) for s in scorers for rate in (1.0, s.rate))


def unheard(scorers: Sequence[ScorerSpec], channels: int) -> tuple[ScorerSpec, ...]:
    """`probes` that can stand beside scorers that count."""
    return tuple(
        msgspec.structs.replace(probe, unit=_NEVER, group=_UNHEARD_GROUP)
        for probe in probes(scorers, channels)
    )


def _probe(source: Source, horizon: int, rate: float, channels: int) -> ScorerSpec:
    return ScorerSpec(
        kind="ewma_z", source=source, horizon=horizon, rate=rate, center=(0.0,) * channels,
        precision=(1.0,) * channels,
    )  # fmt: skip


def residual_scale(model: Model, rows: Rows) -> tuple[float, ...]:
    """(K * C,) standard deviation of the residuals in model space, at least a thousandth.

    Raises:
        DataError: too few usable rows.
    """
    spec = model.detector
    assert spec is not None
    looking = tuple(_probe("residual", k, 1.0, model.channels) for k in range(len(spec.horizons)))
    together = smoothed(replace(model, detector=msgspec.structs.replace(spec, scorers=looking)), rows)
    if len(together) < FEWEST_ROWS:
        raise DataError(
            f"calibration: expected at least {FEWEST_ROWS} rows without faults behind the warm-up, got "
            f"{len(together)} of {sum(len(t) for t, _ in rows)}; record for longer, or leave out a channel "
            "that is often missing"
        )
    return tuple(float(v) for v in np.maximum(together.std(axis=0), 1e-3).ravel())


def residuals(model: Model, rows: Rows, starts: Sequence[int]) -> Floats:
    """(N, C): what the first horizon's forecast leaves, in model space, on normal rows from `starts` on."""
    spec = model.detector
    assert spec is not None
    c = model.channels
    scale = np.array(spec.residual_scale[:c] or (1.0,) * c)
    return np.asarray(_seen_by(model, "residual", rows, starts) * scale, np.float64)


def readings(model: Model, rows: Rows, starts: Sequence[int]) -> Floats:
    """(N, C): conditioned readings of normal rows from `starts` on."""
    return _seen_by(model, "input", rows, starts)


def _seen_by(model: Model, source: Source, rows: Rows, starts: Sequence[int]) -> Floats:
    spec = model.detector
    assert spec is not None
    looking = unheard((ScorerSpec(kind="ewma_z", source=source, rate=1.0),), model.channels)
    watched = msgspec.structs.replace(spec, scorers=(*spec.scorers, looking[0]))
    return smoothed(replace(model, detector=watched), rows, starts)[:, -1]


def smoothed(model: Model, rows: Rows, starts: Sequence[int] | None = None) -> Floats:
    """(N, S, C): each scorer's smoothed deviation, read from the state after every normal row.

    starts: per recording the first row that is looked at; default: all are.
    """
    detector = Detector(model)
    table, c = detector.table, model.channels
    scorers = len(table.plan.spec.scorers)
    first, row = np.zeros(1, np.int64), np.zeros(1, table.verdict_dtype)
    present = np.ones((1, c), np.uint8)
    places = np.array(
        [at.DETECT_HEAD + (at.SCORERS_AT + 2 * s + 1) * c + i for s in range(scorers) for i in range(c)]
    )
    state = table.states["detect"][0]
    normal = STATUSES.index("normal")
    result = []
    for (t, x), start in zip(rows, starts or [0] * len(rows), strict=True):
        detector.reset()
        for i in range(len(t)):
            table.step_rows(first, t[i : i + 1], x[i : i + 1], present, row)
            if row["status"][0] == normal and i >= start:
                result.append(state[places])
    return np.array(result).reshape(-1, scorers, c)


def calm_rows(model: Model, rows: Rows, starts: Sequence[int]) -> int:
    """How many of the rows from `starts` on are normal."""
    detector = Detector(model)
    found = 0
    for (t, x), start in zip(rows, starts, strict=True):
        detector.reset()
        found += int((detector.run(t, x)["status"][start:] == STATUSES.index("normal")).sum())
    return found


def scores(model: Model, rows: Rows, starts: Sequence[int]) -> Floats:
    """The scores of all normal rows the network was not trained on.

    Raises:
        DataError: too few of them.
    """
    detector = Detector(model)
    found = []
    for (t, x), start in zip(rows, starts, strict=True):
        detector.reset()
        verdicts = detector.run(t, x)
        normal = verdicts["status"] == STATUSES.index("normal")
        found.append(verdicts["score"][start:][normal[start:]])
    together = np.concatenate(found)
    if len(together) < FEWEST_ROWS:
        raise DataError(
            f"calibration: expected at least {FEWEST_ROWS} rows the network was not trained on, got "
            f"{len(together)}; hold back a longer part"
        )
    return together
