"""Detectors that a setting describes scorer by scorer, fitted by `edge_rnn.calibrate.fit_detector`.

A `Part` is a scorer without its numbers and with a name for the ablation; `Plans` are all of them with the
rule for the threshold. What is measured on training rows (centers, ranges, units, tails) is calibration's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from edge_rnn.calibrate import Recording, fit_detector
from edge_rnn.core.detector_spec import AlarmSpec, DetectorSpec, GuardSpec, ScorerSpec, ThresholdSpec
from edge_rnn.core.model import Model


@dataclass(frozen=True, slots=True)
class Part:
    """A scorer by name; `factor` as in `fit_detector`: of the quantile at which the score is 1; 0: as is."""

    name: str
    scorer: ScorerSpec
    factor: float = 0.0

    @property
    def of_network(self) -> bool:
        """Whether the network is needed for it."""
        return self.scorer.source in ("residual", "nll", "self_scaled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plans:
    """A whole detector.

    peak: cut the threshold's peak_hold to half the training rows. guard: in place of the limits that training
    found. filled: histograms of scores start with those of the held-back rows; else they start empty, for
    streams that begin with the training rows. seen: units from all training rows, not only from those that
    the network has not learned: a largest score is known the better the more rows it is of. early: see
    `DetectorSpec`. robust, passes, gate: see `fit_detector`. innovation_limit: in place of the
    conditioning's.
    """

    parts: tuple[Part, ...]
    threshold: ThresholdSpec
    combine: Literal["max", "sum"] = "max"
    alarm: AlarmSpec = AlarmSpec()  # noqa: RUF009
    guard: GuardSpec | None = None
    warmup: int = 30
    quantile: float = 0.99
    peak: bool = True
    filled: bool = True
    seen: bool = False
    early: bool = False
    robust: bool = False
    passes: int = 0
    gate: float = 0.0
    innovation_limit: float | None = None

    def only(self, *, network: bool) -> Plans:
        """The scorers that need the network, or those that do not."""
        return replace(self, parts=tuple(s for s in self.parts if s.of_network == network))

    def alone(self, name: str) -> Plans:
        """One scorer; with a tail at weight 1, as the threshold is then a probability."""
        part = next(s for s in self.parts if s.name == name)
        scorer = part.scorer
        if scorer.tail is not None:
            scorer = msgspec.structs.replace(scorer, weight=1.0)
        return replace(self, parts=(replace(part, scorer=scorer),))


def build(
    model: Model, base: DetectorSpec, rows: Sequence[Recording], unseen: Sequence[int], plans: Plans
) -> Model:
    """`model` with the detector that `plans` describe, fitted to rows in which nothing was wrong.

    base: what plans do not say: horizons, scale head, guard, conditioning.
    """
    threshold = plans.threshold
    if plans.peak and threshold.peak_hold:
        trained = sum(len(times) for times, _ in rows)  # type: ignore[arg-type]
        threshold = msgspec.structs.replace(threshold, peak_hold=min(threshold.peak_hold, trained // 2))
    more: dict[str, Any] = {} if plans.guard is None else {"guard": plans.guard}
    template = msgspec.structs.replace(
        base, scorers=tuple(part.scorer for part in plans.parts), combine=plans.combine,
        threshold=threshold, alarm=plans.alarm, warmup=plans.warmup, early=plans.early, **more,
    )  # fmt: skip
    if plans.innovation_limit is not None:
        condition = msgspec.structs.replace(template.condition, innovation_limit=plans.innovation_limit)
        template = msgspec.structs.replace(template, condition=condition)
    factors = [part.factor for part in plans.parts]
    starts = [0] * len(rows) if plans.seen else unseen
    fitted = fit_detector(
        model, rows, template, starts, factors=factors, quantile=plans.quantile, robust=plans.robust,
        passes=plans.passes, gate=plans.gate,
    )  # fmt: skip
    return fitted if plans.filled else _empty_tails(fitted)


def _empty_tails(model: Model) -> Model:
    """Histograms of a stream's own scores start empty: the training rows are about to be streamed again."""
    spec = model.detector
    assert spec is not None
    scorers = tuple(
        s if s.tail is None else msgspec.structs.replace(s, tail=msgspec.structs.replace(s.tail, counts=()))
        for s in spec.scorers
    )
    return replace(model, detector=msgspec.structs.replace(spec, scorers=scorers))
