"""Fit a detector to recorded readings in which nothing was wrong.

Everything is measured with the detector itself, run over the recordings with provisional numbers, so that
calibration and operation cannot differ:

1. residual_scale: the spread of each channel's residual, at each horizon.
2. numbers of each scorer (kinds.py); of a MEWMA mean and inverse covariance of its smoothed deviation z. The
   covariance is shrunk towards its diagonal by `shrinkage` (few rows and many channels make a full one fit
   the noise), and no variance is smaller than that of 1 % of the channel's spread.
3. unit, of a scorer without a tail: so that the score is 1 at the threshold: `factor` times the `quantile` of
   its scores on rows the network was NOT trained on. On rows it has learned, residuals are too small, and a
   threshold from them alarms all day. A tail begins with those scores.
4. threshold, where its kind asks for it, and probability: from the combined scores on the same rows
   (tables.py).

`fit_detector` does this for any detector, given as a `DetectorSpec` without these numbers;
`calibrate_detector` for the one that `Options` describe.

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

from edge_rnn.calibrate import kinds, statistics, tables
from edge_rnn.calibrate.rows import Recording, Rows, checked
from edge_rnn.core.detector_spec import (
    AlarmSpec,
    ConditionSpec,
    DetectorSpec,
    GuardSpec,
    ScorerSpec,
    Source,
    TableSpec,
    ThresholdSpec,
)  # fmt: skip
from edge_rnn.core.model import Model
from edge_rnn.detect import fields as at
from edge_rnn.detect.detector import Detector
from edge_rnn.detect.verdict import STATUSES
from edge_rnn.errors import DataError, ModelFileError

Floats = NDArray[np.float64]

FEWEST_ROWS = 30
_NO_ALARM = ThresholdSpec(kind="fixed", value=1e300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to calibrate; see the module for the reasons behind the defaults.

    kind: forecast or reconstruct. input_factor, residual_factor: multiples of the `quantile` of the squared
    distance at which the score is 1; 0 leaves that scorer out. rate: of the scorers' smoothing. threshold:
    `quantile` (score > 1); `conformal`, `pot`, `spot`: for `risk`; `dspot_ewma`, `dspot`: tail estimate for
    `risk` above a moving mean. alarms_per_day: in place of risk, by the sampling period. horizons,
    scale_head: what the network's outputs are; there is a residual scorer for each horizon. warmup,
    max_freeze: steps. guard: None = limits found in the recordings. condition: None = with the drift found
    in them by `drift_rule` (see `drifting`).
    """

    kind: Literal["forecast", "reconstruct"] = "forecast"
    scorer: Literal["mewma", "ewma_z"] = "mewma"
    rate: float = 0.2
    shrinkage: float = 0.1
    quantile: float = 0.99
    input_factor: float = 3.0
    residual_factor: float = 8.0
    threshold: Literal["quantile", "dspot_ewma", "dspot", "conformal", "pot", "spot"] = "quantile"
    risk: float = 1e-4
    alarms_per_day: float | None = None
    horizons: tuple[int, ...] = (1,)
    scale_head: Literal["none", "laplace", "gaussian"] = "none"
    warmup: int = 30
    max_freeze: int = 10_000
    alarm: AlarmSpec = AlarmSpec(needed=2, window=3, clear_ratio=0.7, clear_hold=0)  # noqa: RUF009
    guard: GuardSpec | None = None
    condition: ConditionSpec | None = None
    drift_rule: Literal["blocks", "smooth"] = "blocks"


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
    wanted: list[tuple[ScorerSpec, float]] = []
    if options.residual_factor > 0:
        residual = ScorerSpec(kind=options.scorer, source="residual", rate=options.rate)
        wanted += [
            (msgspec.structs.replace(residual, horizon=k), options.residual_factor)
            for k in range(len(options.horizons))
        ]
    if options.input_factor > 0:
        scorer = ScorerSpec(kind=options.scorer, source="input", rate=options.rate)
        wanted.append((scorer, options.input_factor))
    if not wanted:
        raise ModelFileError("options: residual_factor and input_factor are both 0, so nothing is scored")
    risk = options.risk
    if options.alarms_per_day is not None:
        risk = tables.risk_of(options.alarms_per_day, statistics.period(recordings))
    template = DetectorSpec(
        kind=options.kind, horizons=options.horizons, scale_head=options.scale_head, warmup=options.warmup,
        guard=options.guard or limits(recordings),
        condition=options.condition
        or ConditionSpec(drift=statistics.drifting(recordings, options.drift_rule)),
        scorers=tuple(scorer for scorer, _ in wanted), alarm=options.alarm,
        threshold=ThresholdSpec(kind=options.threshold, value=1.0, risk=risk, max_freeze=options.max_freeze),
    )  # fmt: skip
    return fit_detector(
        model, recordings, template, unseen_from, factors=[factor for _, factor in wanted],
        quantile=options.quantile, shrinkage=options.shrinkage,
    )  # fmt: skip


def limits(recordings: Sequence[Recording]) -> GuardSpec:
    """The guard's limits as the recordings suggest them."""
    return GuardSpec(
        stuck_after=statistics.stuck_limits(recordings), silent_after_ns=statistics.silent_limit(recordings)
    )


def fit_detector(
    model: Model,
    recordings: Sequence[Recording],
    template: DetectorSpec,
    unseen_from: Sequence[int] | None = None,
    *,
    factors: Sequence[float] | None = None,
    quantile: float = 0.99,
    shrinkage: float = 0.1,
) -> Model:
    """`model` with the detector that `template` describes, fitted to `recordings`.

    Args:
        model, recordings, unseen_from: see `calibrate_detector`.
        template: everything a user chooses. What is measured is replaced: period_ns where it is 0,
            residual_scale, the scorers' lists, counts and tails, unit (see factors), the threshold's numbers
            (not of fixed and quantile), probability.
        factors: per scorer the multiple of the `quantile` of its scores at which its score is 1; 0 leaves the
            template's unit, which is what a scorer with a tail wants. Default: 1, with a tail 0.
        quantile, shrinkage: see `Options`.

    Raises:
        DataError: as `calibrate_detector`.
        ModelFileError: the template does not fit the model, or asks for what does not exist.
    """
    rows = checked(recordings, model.channels)
    starts = [0] * len(rows) if unseen_from is None else list(unseen_from)
    if len(starts) != len(rows):
        raise DataError(f"unseen_from: expected one per recording ({len(rows)}), got {len(starts)}")
    if factors is None:
        factors = [1.0 if s.tail is None else 0.0 for s in template.scorers]
    if len(factors) != len(template.scorers):
        raise ModelFileError(
            f"factors: expected one per scorer ({len(template.scorers)}), got {len(factors)}"
        )
    replaced = msgspec.structs.replace
    spec = replaced(
        template, period_ns=template.period_ns or statistics.period(recordings), threshold=_NO_ALARM,
        alarm=AlarmSpec(), residual_scale=(), probability=TableSpec(),
        scorers=_probes(template, model.channels),
    )  # fmt: skip
    spec = replaced(spec, residual_scale=_residual_scale(replace(model, detector=spec), rows))
    looked = _smoothed(replace(model, detector=spec), rows)
    fitted = []
    for s, (scorer, factor) in enumerate(zip(template.scorers, factors, strict=True)):
        scorer = kinds.with_numbers(  # noqa: PLW2901
            replaced(scorer, tail=None, weight=1.0), looked[:, 2 * s], looked[:, 2 * s + 1], shrinkage
        )
        alone = replaced(spec, scorers=(scorer,))
        scores = _scores(replace(model, detector=alone), rows, starts)
        if factor > 0:
            unit = max(factor * float(np.quantile(scores, quantile)) * scorer.unit, 1e-9)
            scores, scorer = scores * (scorer.unit / unit), replaced(scorer, unit=unit)  # noqa: PLW2901
        old = template.scorers[s]
        tail = None if old.tail is None else tables.filled(old.tail, scores)
        fitted.append(replaced(scorer, tail=tail, weight=old.weight))
    wanted = template.threshold
    peaks = replaced(_NO_ALARM, peak_hold=wanted.peak_hold, peak_decay=wanted.peak_decay)
    spec = replaced(spec, scorers=tuple(fitted), threshold=peaks)
    scores = _scores(replace(model, detector=spec), rows, starts)
    spec = replaced(
        spec, threshold=tables.threshold_of(scores, wanted), alarm=template.alarm,
        probability=tables.table_of(scores),
    )  # fmt: skip
    return replace(model, detector=spec)


def _probes(template: DetectorSpec, channels: int) -> tuple[ScorerSpec, ...]:
    """Two scorers for each of the template, whose states are its deviation as it is, and smoothed."""
    return tuple(
        _probe(s.source, s.horizon, rate, channels) for s in template.scorers for rate in (1.0, s.rate)
    )


def _probe(source: Source, horizon: int, rate: float, channels: int) -> ScorerSpec:
    return ScorerSpec(
        kind="ewma_z", source=source, horizon=horizon, rate=rate, center=(0.0,) * channels,
        precision=(1.0,) * channels,
    )  # fmt: skip


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
    """(K * C,) standard deviation of the residuals in model space, at least a thousandth."""
    spec = model.detector
    assert spec is not None
    probes = tuple(_probe("residual", k, 1.0, model.channels) for k in range(len(spec.horizons)))
    together = _smoothed(replace(model, detector=msgspec.structs.replace(spec, scorers=probes)), rows)
    if len(together) < FEWEST_ROWS:
        raise DataError(
            f"calibration: expected at least {FEWEST_ROWS} rows without faults behind the warm-up, got "
            f"{len(together)} of {sum(len(t) for t, _ in rows)}; record for longer, or leave out a channel "
            "that is often missing"
        )
    return tuple(float(v) for v in np.maximum(together.std(axis=0), 1e-3).ravel())


def _smoothed(model: Model, rows: Rows) -> Floats:
    """(N, S, C): each scorer's smoothed deviation, read from the state after every normal row."""
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
    for t, x in rows:
        detector.reset()
        for i in range(len(t)):
            table.step_rows(first, t[i : i + 1], x[i : i + 1], present, row)
            if row["status"][0] == normal:
                result.append(state[places])
    return np.array(result).reshape(-1, scorers, c)


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
