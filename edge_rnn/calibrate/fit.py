"""Fit a detector to recorded readings in which nothing was wrong.

Everything is measured with the detector itself, run over the recordings with provisional numbers, so that
calibration and operation cannot differ:

1. residual_scale: the spread of each channel's residual.
2. center and precision of each scorer: mean and inverse covariance of its smoothed deviation z. The
   covariance is shrunk towards its diagonal by `shrinkage` (few rows and many channels make a full one fit
   the noise), and no variance is smaller than that of 1 % of the channel's spread.
3. unit: so that the score is 1 at the threshold: `factor` times the `quantile` of the squared distances on
   rows the network was NOT trained on. On rows it has learned, residuals are too small, and a threshold from
   them alarms all day.

Defaults and where they come from. Two scorers, the larger one counts: a MEWMA (rate 0.2) of the forecast's
residual sees what breaks the pattern, the same on the readings themselves sees a slow departure that a
forecast follows without surprise. Factors are on squared distances: input 3, residual 8 (1.7 and 2.8 on the
distance). A network is unsure outside the range it was trained on, so its residual must be further out to
count alone. Two of the last three scores must be too high, and the alarm ends below 0.7 of the threshold.
On the public data these were chosen with, F1 moves by about 0.01 for input factors 3..4 and residual
factors 4..8; see DESIGN.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_rnn.calibrate import statistics
from edge_rnn.calibrate.rows import Recording, Rows, checked
from edge_rnn.core.detector_spec import (
    AlarmSpec,
    ConditionSpec,
    DetectorSpec,
    GuardSpec,
    ScorerSpec,
    ThresholdSpec,
)  # fmt: skip
from edge_rnn.core.model import Model
from edge_rnn.detect import fields as at
from edge_rnn.detect.detector import Detector
from edge_rnn.detect.thresholds import FEWEST_EXCESSES, tail_value
from edge_rnn.detect.verdict import STATUSES
from edge_rnn.errors import DataError, ModelFileError

Floats = NDArray[np.float64]

FEWEST_ROWS = 30
_SMALLEST_VARIANCE = 1e-4
_NO_ALARM = ThresholdSpec(kind="fixed", value=1e300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to calibrate; see the module for the reasons behind the defaults.

    kind: forecast or reconstruct. input_factor, residual_factor: multiples of the `quantile` of the squared
    distance at which the score is 1; 0 leaves that scorer out. rate: of the scorers' smoothing. threshold:
    `quantile` (score > 1), or `dspot_ewma` / `dspot`: tail estimate for `risk`, above a moving mean. warmup,
    max_freeze: steps. guard: None = limits found in the recordings. drift: None = found in them.
    """

    kind: Literal["forecast", "reconstruct"] = "forecast"
    scorer: Literal["mewma", "ewma_z"] = "mewma"
    rate: float = 0.2
    shrinkage: float = 0.1
    quantile: float = 0.99
    input_factor: float = 3.0
    residual_factor: float = 8.0
    threshold: Literal["quantile", "dspot_ewma", "dspot"] = "quantile"
    risk: float = 1e-4
    warmup: int = 30
    max_freeze: int = 10_000
    alarm: AlarmSpec = AlarmSpec(needed=2, window=3, clear_ratio=0.7, clear_hold=0)  # noqa: RUF009
    guard: GuardSpec | None = None
    condition: ConditionSpec | None = None


def calibrate_detector(
    model: Model,
    recordings: Sequence[Recording],
    unseen_from: Sequence[int] | None = None,
    options: Options = Options(),
) -> Model:
    """`model` with a detector section fitted to `recordings`; its old one, if any, is not looked at.

    Args:
        model: layers, head and scaler; the network was trained on readings conditioned by `options.condition`
            (or what `drifting` finds in these recordings).
        recordings: contiguous recordings, each from a cold start, in which nothing was wrong.
        unseen_from: per recording the first row the network was not trained on; default 0: none was.
        options: see `Options`.

    Raises:
        DataError: fewer than 30 usable rows, or unseen rows; times that do not increase; other channels.
        ModelFileError: the model's outputs do not fit the detector's kind.
    """
    rows = checked(recordings, model.input_size)
    starts = [0] * len(rows) if unseen_from is None else list(unseen_from)
    if len(starts) != len(rows):
        raise DataError(f"unseen_from: expected one per recording ({len(rows)}), got {len(starts)}")
    c = model.input_size
    condition = options.condition or ConditionSpec(drift=statistics.drifting(recordings))
    guard = options.guard or GuardSpec(
        stuck_after=statistics.stuck_limits(recordings), silent_after_ns=statistics.silent_limit(recordings)
    )
    sources: list[Literal["residual", "input"]] = []
    if options.residual_factor > 0:
        sources.append("residual")
    if options.input_factor > 0:
        sources.append("input")
    if not sources:
        raise ModelFileError("options: residual_factor and input_factor are both 0, so nothing is scored")
    flat = tuple(
        ScorerSpec(
            kind="ewma_z", source=source, rate=options.rate, center=(0.0,) * c, precision=(1.0,) * c
        )
        for source in sources
    )  # fmt: skip
    spec = DetectorSpec(
        kind=options.kind, period_ns=statistics.period(recordings), warmup=options.warmup, guard=guard,
        condition=condition, scorers=flat, threshold=_NO_ALARM,
    )  # fmt: skip
    spec = msgspec.structs.replace(spec, residual_scale=_residual_scale(replace(model, detector=spec), rows))
    smoothed = _smoothed(replace(model, detector=spec), rows)
    fitted = []
    for s, scorer in enumerate(flat):
        scorer = _fit(scorer, smoothed[:, s], options)  # noqa: PLW2901
        scores = _scores(
            replace(model, detector=msgspec.structs.replace(spec, scorers=(scorer,))), rows, starts
        )
        factor = options.residual_factor if scorer.source == "residual" else options.input_factor
        unit = factor * float(np.quantile(scores, options.quantile))
        fitted.append(msgspec.structs.replace(scorer, unit=max(unit, 1e-9)))
    spec = msgspec.structs.replace(spec, scorers=tuple(fitted))
    scores = _scores(replace(model, detector=spec), rows, starts)
    spec = msgspec.structs.replace(spec, threshold=_threshold(scores, options), alarm=options.alarm)
    return replace(model, detector=spec)


def without_network(model: Model) -> Model:
    """The baseline: the same detector, judged by its scorers of the readings alone.

    Raises:
        ModelFileError: there is no detector, or none of its scorers looks at the readings.
    """
    spec = model.detector
    scorers = () if spec is None else tuple(s for s in spec.scorers if s.source == "input")
    if spec is None or not scorers:
        raise ModelFileError("baseline: the detector has no scorer with source input; calibrate one")
    return replace(model, detector=msgspec.structs.replace(spec, scorers=scorers))


def _normal_rows(
    detector: Detector, t: NDArray[np.int64], x: Floats
) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
    """The verdicts on one recording from a cold start, and which of them are neither warming nor faulty."""
    detector.reset()
    verdicts = detector.run(t, x)
    return verdicts, verdicts["status"] == STATUSES.index("normal")


def _residual_scale(model: Model, rows: Rows) -> tuple[float, ...]:
    """(C,) standard deviation of the residual in model space, at least a thousandth."""
    detector = Detector(model)
    std = 1.0 if model.scaler is None else model.scaler.std
    residuals = []
    for t, x in rows:
        verdicts, normal = _normal_rows(detector, t, x)
        residuals.append(verdicts["residual"][normal] / std)
    together = np.concatenate(residuals)
    if len(together) < FEWEST_ROWS:
        raise DataError(
            f"calibration: expected at least {FEWEST_ROWS} rows without faults behind the warm-up, got "
            f"{len(together)} of {sum(len(t) for t, _ in rows)}; record for longer, or leave out a channel "
            "that is often missing"
        )
    return tuple(float(v) for v in np.maximum(together.std(axis=0), 1e-3))


def _smoothed(model: Model, rows: Rows) -> Floats:
    """(N, S, C): each scorer's smoothed deviation, read from the state after every normal row."""
    detector = Detector(model)
    table, c = detector.table, model.input_size
    scorers = len(table.plan.spec.scorers)
    first, row = np.zeros(1, np.int64), np.zeros(1, table.verdict_dtype)
    present = np.ones((1, c), np.uint8)
    places = np.array(
        [at.DETECT_HEAD + (at.SCORERS_AT + 2 * s + 1) * c + i for s in range(scorers) for i in range(c)]
    )
    state = table.states["detect"][0]
    normal = STATUSES.index("normal")
    result = []
    for t, x in rows:
        detector.reset()
        for i in range(len(t)):
            table.step_rows(first, t[i : i + 1], x[i : i + 1], present, row)
            if row["status"][0] == normal:
                result.append(state[places])
    return np.array(result).reshape(-1, scorers, c)


def _fit(scorer: ScorerSpec, z: Floats, options: Options) -> ScorerSpec:
    """Center and precision from z (N, C)."""
    center = z.mean(axis=0)
    covariance = np.atleast_2d(np.cov(z.T))
    variances = np.maximum(np.diag(covariance), _SMALLEST_VARIANCE)
    if options.scorer == "ewma_z":
        precision: Floats = 1.0 / variances
    else:
        shrunk = (1.0 - options.shrinkage) * covariance
        np.fill_diagonal(shrunk, variances)
        inverse = np.linalg.inv(shrunk)
        precision = np.asarray((inverse + inverse.T) / 2.0, np.float64)
    return msgspec.structs.replace(
        scorer,
        kind=options.scorer,
        center=tuple(center.tolist()),
        precision=tuple(precision.ravel().tolist()),
    )


def _scores(model: Model, rows: Rows, starts: Sequence[int]) -> Floats:
    """The scores of all normal rows the network was not trained on."""
    detector = Detector(model)
    scores = []
    for (t, x), start in zip(rows, starts, strict=True):
        verdicts, normal = _normal_rows(detector, t, x)
        scores.append(verdicts["score"][start:][normal[start:]])
    together = np.concatenate(scores)
    if len(together) < FEWEST_ROWS:
        raise DataError(
            f"calibration: expected at least {FEWEST_ROWS} rows the network was not trained on, got "
            f"{len(together)}; hold back a longer part"
        )
    return together


def _threshold(scores: Floats, options: Options) -> ThresholdSpec:
    """The threshold on combined scores, which are near 1 where the quantile rule would alarm."""
    if options.threshold == "quantile":
        return ThresholdSpec(kind="quantile", value=1.0, max_freeze=options.max_freeze)
    mean = float(scores.mean())
    above = scores - mean
    level = max(float(np.quantile(above, 0.98)), 1e-9)
    excess = above[above > level] - level
    if len(excess) >= FEWEST_EXCESSES:
        value = tail_value(
            level, len(above), len(excess), float(excess.sum()), float((excess * excess).sum()), options.risk
        )
    else:
        value = 1.5 * max(float(above.max()), level)
    return ThresholdSpec(
        kind=options.threshold, value=value, initial=mean, risk=options.risk, level=level, count=len(above),
        excess_count=len(excess), excess_sum=float(excess.sum()),
        excess_squares=float((excess * excess).sum()), max_freeze=options.max_freeze,
    )  # fmt: skip
