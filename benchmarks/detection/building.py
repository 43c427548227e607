"""Detectors that a setting describes scorer by scorer: constants from training rows, scores by the detector.

A `Plan` names a scorer without its numbers. The numbers come from what the training rows look like behind the
conditioning, and from the network's forecasts of them: centers, covariances, ranges and spreads. A scorer
without a tail is divided by `factor` times the `quantile` of its scores on rows the network was not trained
on, as in `edge_rnn.calibrate`; these scores, like all others, come from the detector itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_rnn.calibrate import Recording
from edge_rnn.core.detector_spec import AlarmSpec, DetectorSpec, ScorerSpec, TailSpec, ThresholdSpec
from edge_rnn.core.model import Model
from edge_rnn.core.reference import Reference
from edge_rnn.detect.detector import Detector
from edge_rnn.training.conditioning import condition
from edge_rnn.training.data import Stretch

Floats = NDArray[np.float64]
_SMALLEST_VARIANCE = 1e-4
_NO_ALARM = ThresholdSpec(kind="fixed", value=1e300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A scorer of a setting: the words of a `ScorerSpec`, and what its unit is a multiple of.

    horizon: steps ahead, one of the network's. tail: turn the score into a tail probability. factor: without
    a tail, the multiple of the quantile at which the score is 1.
    """

    name: str
    kind: str
    source: Literal["residual", "input", "nll", "difference"]
    rate: float = 1.0
    horizon: int = 1
    tail: TailSpec | None = None
    weight: float = 1.0
    factor: float = 3.0
    memory: int = 4000
    margin: float = 0.05
    learn: Literal["calm", "always"] = "calm"
    side: Literal["both", "up", "down"] = "both"

    @property
    def of_network(self) -> bool:
        """Whether the network is needed for it."""
        return self.source in ("residual", "nll")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plans:
    """A whole detector: its scorers, how they are combined, and the rule for the threshold.

    rule: `fixed`: the threshold is `value`; `quantile`: `value` times the `quantile` of the scores on rows
    the network was not trained on.
    """

    scorers: tuple[Plan, ...]
    combine: Literal["max", "sum"] = "sum"
    rule: Literal["fixed", "quantile"] = "fixed"
    value: float = 1.0
    quantile: float = 0.99
    peak_hold: int = 0
    max_freeze: int = 10_000
    warmup: int = 30
    shrinkage: float = 0.1
    alarm: AlarmSpec = AlarmSpec()  # noqa: RUF009

    def only(self, *, network: bool) -> Plans:
        """The scorers that need the network, or those that do not."""
        return replace(self, scorers=tuple(s for s in self.scorers if s.of_network == network))


def build(model: Model, rows: Sequence[Recording], unseen: Sequence[int], plans: Plans) -> Model:
    """`model` with the detector that `plans` describe, fitted to rows in which nothing was wrong."""
    assert model.detector is not None
    old = model.detector
    seen = [_seen(model, t, x) for t, x in rows]
    scale = _scales([s.residuals for s in seen])
    scorers = tuple(_scorer(plan, old, seen, scale, plans.shrinkage) for plan in plans.scorers)
    spec = msgspec.structs.replace(
        old, scorers=scorers, combine=plans.combine, threshold=_NO_ALARM, alarm=plans.alarm,
        warmup=plans.warmup, residual_scale=tuple(scale.ravel().tolist()),
    )  # fmt: skip
    fitted = []
    for plan, scorer in zip(plans.scorers, scorers, strict=True):
        if plan.tail is None:
            alone = msgspec.structs.replace(spec, scorers=(scorer,), combine="max")
            unit = plan.factor * float(np.quantile(_scores(model, alone, rows, unseen), plans.quantile))
            scorer = msgspec.structs.replace(scorer, unit=max(unit, 1e-9))  # noqa: PLW2901
        fitted.append(scorer)
    spec = msgspec.structs.replace(spec, scorers=tuple(fitted))
    value = plans.value
    held = _threshold(value, plans)
    if plans.rule == "quantile":
        quiet = msgspec.structs.replace(spec, threshold=_threshold(1e300, plans))
        value *= float(np.quantile(_scores(model, quiet, rows, unseen), plans.quantile))
        held = _threshold(max(value, 1e-9), plans)
    return replace(model, detector=msgspec.structs.replace(spec, threshold=held))


def _threshold(value: float, plans: Plans) -> ThresholdSpec:
    more: dict[str, Any] = {"peak_hold": plans.peak_hold} if plans.peak_hold else {}
    return ThresholdSpec(kind="fixed", value=value, max_freeze=plans.max_freeze, **more)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One stretch as the scorers see it: x (T, C); residuals (K, T, C), NaN where nothing was said yet."""

    x: Floats
    residuals: Floats


def _seen(model: Model, times: Any, values: Any) -> _Seen:
    """The conditioned rows and what the network said about them, from its resting state."""
    spec = model.detector
    assert spec is not None
    assert model.scaler is not None
    features = getattr(model, "features", ())
    names = [channel.name for channel in model.inputs]
    stretch = Stretch(np.asarray(times), np.asarray(values, np.float64))
    conditioned = condition(stretch, model.scaler, spec.condition, features, names)
    inputs = conditioned.x
    reference = Reference(model)
    if model.rest_state is not None:
        reference.set_state(model.rest_state.h, model.rest_state.c)
    outputs = reference.run(inputs)
    c = len(names)
    x = inputs[:, :c].astype(np.float64)
    ahead = spec.horizons
    residuals = np.full((len(ahead), len(x), c), np.nan)
    for k, steps in enumerate(ahead):
        said = outputs[:-steps, k * c : (k + 1) * c]
        off = x[steps:] - said
        if spec.scale_head != "none":
            log_scale = np.clip(outputs[:-steps, (len(ahead) + k) * c : (len(ahead) + k + 1) * c], -4.0, 3.0)
            off = off * np.exp(-log_scale)
        residuals[k, steps:] = np.where(conditioned.known[steps:], off, np.nan)
    return _Seen(x, residuals)


def _scales(residuals: Sequence[Floats]) -> Floats:
    """(K, C) spread of the residuals."""
    together = np.concatenate(residuals, axis=1)
    return np.maximum(np.nanstd(together, axis=1), 1e-3)


def _scorer(
    plan: Plan, spec: DetectorSpec, seen: Sequence[_Seen], scale: Floats, shrinkage: float
) -> ScorerSpec:
    k = spec.horizons.index(plan.horizon) if plan.of_network else 0
    parts = []
    for one in seen:
        if plan.source in ("residual", "nll"):
            e = one.residuals[k] / scale[k]
        elif plan.source == "difference":
            e = np.diff(one.x, axis=0)
        else:
            e = one.x
        parts.append(e[np.isfinite(e).all(axis=1)])
    words: dict[str, Any] = {
        "kind": plan.kind, "source": plan.source, "rate": plan.rate, "tail": plan.tail, "weight": plan.weight,
        "memory": plan.memory, "margin": plan.margin, "learn": plan.learn, "side": plan.side, "horizon": k,
    }  # fmt: skip
    e = np.concatenate(parts)
    z = np.concatenate([_smoothed(part, plan.rate) for part in parts])
    if plan.kind == "novelty":
        return ScorerSpec(low=tuple(e.min(axis=0).tolist()), high=tuple(e.max(axis=0).tolist()), **words)
    if plan.kind == "mewma":
        covariance = np.atleast_2d(np.cov(z.T))
        variances = np.maximum(np.diag(covariance), _SMALLEST_VARIANCE)
        shrunk = (1.0 - shrinkage) * covariance
        np.fill_diagonal(shrunk, variances)
        inverse = np.linalg.inv(shrunk)
        return _with(words, z.mean(axis=0), (inverse + inverse.T) / 2.0)
    if plan.kind in ("mewma_diagonal", "ewma_z"):
        return _with(words, z.mean(axis=0), 1.0 / np.maximum(z.var(axis=0), _SMALLEST_VARIANCE))
    if plan.kind in ("cusum", "page_hinkley", "level"):
        return _with(words, e.mean(axis=0), 1.0 / np.maximum(e.std(axis=0), _SMALLEST_VARIANCE**0.5))
    center = e.mean(axis=0)
    size = np.concatenate([np.abs(part - center) for part in parts])
    if plan.kind == "likelihood":
        size = np.concatenate([_smoothed(np.abs(part - center), plan.rate) for part in parts])
    variance = np.maximum(size.var(axis=0), _SMALLEST_VARIANCE)
    return _with(
        words | {"mean": tuple(size.mean(axis=0).tolist()), "count": len(size)}, center, 1.0 / variance
    )


def _with(words: dict[str, Any], center: Floats, precision: Floats) -> ScorerSpec:
    return ScorerSpec(center=tuple(center.tolist()), precision=tuple(precision.ravel().tolist()), **words)


def _smoothed(e: Floats, rate: float) -> Floats:
    """z += rate (e - z) from 0 on, as the detector has it."""
    z, out = np.zeros(e.shape[1]), np.empty_like(e)
    for t, row in enumerate(e):
        z = z + rate * (row - z)
        out[t] = z
    return out


def _scores(model: Model, spec: DetectorSpec, rows: Sequence[Recording], unseen: Sequence[int]) -> Floats:
    """The detector's scores on the rows the network was not trained on."""
    detector = Detector(replace(model, detector=spec))
    kept = []
    for (times, values), start in zip(rows, unseen, strict=True):
        detector.reset()
        score = detector.run(times, values)["score"][start:]
        kept.append(score[np.isfinite(score)])
    return np.concatenate(kept)
