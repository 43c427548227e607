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

With `passes` steps 2 and 3 are repeated with the alarm at work, each scorer alone, on the rows in which it
is off: for recordings that hold events, and for detectors that change with an alarm. With `robust` the
numbers of a scorer come from medians, and so does its unit. With `gate` the network must pay (gate.py).

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

from edge_rnn.calibrate import kinds, observe, statistics, tables
from edge_rnn.calibrate.gate import looks_at_network, on_readings, ratio
from edge_rnn.calibrate.observe import FEWEST_ROWS, NO_ALARM
from edge_rnn.calibrate.rows import Recording, Rows, checked
from edge_rnn.core.detector_spec import (
    AlarmSpec,
    ConditionSpec,
    DetectorSpec,
    GuardSpec,
    ScorerSpec,
    TableSpec,
    ThresholdSpec,
)  # fmt: skip
from edge_rnn.core.model import Model
from edge_rnn.errors import DataError, ModelFileError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to calibrate; see the module for the reasons behind the defaults.

    kind: forecast or reconstruct. input_factor, residual_factor: multiples of the `quantile` of the squared
    distance at which the score is 1; 0 leaves that scorer out. rate: of the scorers' smoothing. threshold:
    `quantile` (score > 1); `conformal`, `pot`, `spot`: for `risk`; `dspot_ewma`, `dspot`: tail estimate for
    `risk` above a moving mean. alarms_per_day: in place of risk, by the sampling period. horizons,
    scale_head: what the network's outputs are; there is a residual scorer for each horizon. warmup,
    max_freeze: steps. guard: None = limits found in the recordings. condition: None = with the drift found
    in them by `drift_rule` (see `drifting`), and level and slope taken out by the rule `trend`: of `all`
    channels, or of those that `drifting` finds `smooth`, which then have no drift. robust, passes, gate: see
    `fit_detector`.
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
    trend: Literal["none", "smooth", "all"] = "none"
    robust: bool = False
    passes: int = 0
    gate: float = 0.0


def conditioning(recordings: Sequence[Recording], options: Options) -> ConditionSpec:
    """The conditioning that `options` ask for, found in recordings in which nothing was wrong."""
    if options.condition is not None:
        return options.condition
    channels = checked(recordings)[0][1].shape[1]
    trend = {
        "none": (), "all": (True,) * channels, "smooth": statistics.drifting(recordings, "smooth")
    }[options.trend]  # fmt: skip
    drift = statistics.drifting(recordings, options.drift_rule)
    left = tuple(d and not t for d, t in zip(drift, trend or (False,) * channels, strict=True))
    return ConditionSpec(drift=left, trend=trend)


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
        condition=conditioning(recordings, options),
        scorers=tuple(scorer for scorer, _ in wanted), alarm=options.alarm,
        threshold=ThresholdSpec(kind=options.threshold, value=1.0, risk=risk, max_freeze=options.max_freeze),
    )  # fmt: skip
    return fit_detector(
        model, recordings, template, unseen_from, factors=[factor for _, factor in wanted],
        quantile=options.quantile, shrinkage=options.shrinkage, robust=options.robust, passes=options.passes,
        gate=options.gate,
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
    robust: bool = False,
    passes: int = 0,
    gate: float = 0.0,
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
        robust: numbers of the scorers (kinds ewma_z and mewma_diagonal) from medians of single deviations;
            a factor is then on the squared normal deviate: 3 standard deviations are 9.
        passes: how often the scorers' numbers are taken anew, with the alarm at work, from the rows in which
            it is off, as long as there are 30 of them. Without tails, thresholds fixed and quantile only.
        gate: the network must pay: where what its forecast leaves is not smaller than gate times the readings
            (gate.py), scorers of the network look at the readings instead; so too where the alarm is nearly
            always on with it. 0 = no such rule. What was found is in the model's provenance, `network_gate`.

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
    if passes and (
        any(s.tail for s in template.scorers) or template.threshold.kind not in ("fixed", "quantile")
    ):
        raise ModelFileError("passes: need scorers without a tail and a threshold fixed or quantile; leave 0")
    if gate > 0.0 and template.scale_head != "none":
        raise ModelFileError(
            f"gate: scale_head {template.scale_head} has residuals in units of its own; leave 0"
        )
    how = _How(quantile, shrinkage, robust, passes)
    fitted = _fitted(model, rows, template, starts, factors, how)
    if gate == 0.0 or not looks_at_network(template):
        return fitted
    swapped, kept = on_readings(template, factors)
    plain = _fitted(model, rows, swapped, starts, kept, how)
    left = observe.residuals(fitted, rows, starts)
    there = observe.readings(plain, rows, starts)
    found = ratio(left, there) if min(len(left), len(there)) >= FEWEST_ROWS else None
    pays = found is not None and found < gate
    best = fitted if pays else plain
    facts = {"ratio": None if found is None else round(found, 4), "limit": gate, "network": pays}
    return replace(best, provenance={**best.provenance, "network_gate": facts})


@dataclass(frozen=True, slots=True)
class _How:
    """See `fit_detector`."""

    quantile: float
    shrinkage: float
    robust: bool
    passes: int


def _fitted(
    model: Model,
    rows: Rows,
    template: DetectorSpec,
    starts: Sequence[int],
    factors: Sequence[float],
    how: _How,
) -> Model:
    """`fit_detector` without the gate."""
    replaced = msgspec.structs.replace
    spec = replaced(
        template, period_ns=template.period_ns or statistics.period(list(rows)), threshold=NO_ALARM,
        alarm=AlarmSpec(), residual_scale=(), probability=TableSpec(),
        scorers=observe.probes(template.scorers, model.channels),
    )  # fmt: skip
    spec = replaced(spec, residual_scale=observe.residual_scale(replace(model, detector=spec), rows))
    looked = observe.smoothed(replace(model, detector=spec), rows)
    fitted = []
    for s, (old, factor) in enumerate(zip(template.scorers, factors, strict=True)):
        bare = replaced(old, tail=None, weight=1.0)
        alone = _Alone(model, rows, starts, factor, how)
        scorer, scores = alone.numbers(spec, bare, looked[:, 2 * s : 2 * s + 2])
        at_work = replaced(spec, threshold=template.threshold, alarm=template.alarm)
        for _ in range(how.passes):
            better = alone.once_more(at_work, scorer)
            if better is None:
                break
            scorer = better
        tail = None if old.tail is None else tables.filled(old.tail, scores)
        fitted.append(replaced(scorer, tail=tail, weight=old.weight))
    wanted = template.threshold
    peaks = replaced(NO_ALARM, peak_hold=wanted.peak_hold, peak_decay=wanted.peak_decay)
    spec = replaced(spec, scorers=tuple(fitted), threshold=peaks)
    if how.passes:
        at_work = replaced(spec, threshold=wanted, alarm=template.alarm)
        if observe.calm_rows(replace(model, detector=at_work), rows, starts) >= FEWEST_ROWS:
            spec = at_work
    scores = observe.scores(replace(model, detector=spec), rows, starts)
    spec = replaced(
        spec, threshold=tables.threshold_of(scores, wanted), alarm=template.alarm,
        probability=tables.table_of(scores),
    )  # fmt: skip
    return replace(model, detector=spec)


@dataclass(frozen=True, slots=True)
class _Alone:
    """How the numbers of one scorer are found, whatever others there are."""

    model: Model
    rows: Rows
    starts: Sequence[int]
    factor: float
    how: _How

    def numbers(self, spec: DetectorSpec, scorer: ScorerSpec, looked: Floats) -> tuple[ScorerSpec, Floats]:
        """`scorer` with its numbers and unit, from its single and smoothed deviations `looked` (N, 2, C), and
        its scores on unseen rows under `spec`; these are not needed, and empty, with robust numbers of a
        detector that has passes."""
        replaced, how = msgspec.structs.replace, self.how
        if how.robust:
            scorer = kinds.robust_numbers(scorer, looked[:, 0])
            scorer = replaced(scorer, unit=self.factor) if self.factor > 0 else scorer
            if how.passes:
                return scorer, np.zeros(0)
        else:
            scorer = kinds.with_numbers(scorer, looked[:, 0], looked[:, 1], how.shrinkage)
        scores = observe.scores(self._with(spec, scorer), self.rows, self.starts)
        if self.factor > 0 and not how.robust:
            unit = max(self.factor * float(np.quantile(scores, how.quantile)) * scorer.unit, 1e-9)
            scores, scorer = scores * (scorer.unit / unit), replaced(scorer, unit=unit)
        return scorer, scores

    def once_more(self, at_work: DetectorSpec, scorer: ScorerSpec) -> ScorerSpec | None:
        """`scorer` with numbers from the rows in which its alarm is off; None where, before or after, these
        are too few to say anything."""
        if self._calm(at_work, scorer) < FEWEST_ROWS:
            return None
        beside = observe.unheard((scorer,), self.model.channels)
        looked = observe.smoothed(self._with(at_work, scorer, *beside), self.rows)[:, 1:]
        found, _ = self.numbers(at_work, scorer, looked)
        return found if self._calm(at_work, found) >= FEWEST_ROWS else None

    def _calm(self, at_work: DetectorSpec, scorer: ScorerSpec) -> int:
        return observe.calm_rows(self._with(at_work, scorer), self.rows, self.starts)

    def _with(self, spec: DetectorSpec, *scorers: ScorerSpec) -> Model:
        return replace(self.model, detector=msgspec.structs.replace(spec, scorers=scorers))


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
