"""What a detector is, as data: the `detector` section of a model file.

These structs hold numbers that calibration found and a user may edit; `edge_rnn.detect` turns them
into arithmetic. They live in `core` because a model carries them and an export to C reads them.
Lists have one entry per input channel (C = the model's inputs) unless said otherwise. All times are
integer nanoseconds, all counts are steps (= samples of that stream).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from msgspec import Meta, Struct

from edge_rnn.errors import ModelFileError

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=0, le=2**53)]


class Spec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all structs here: frozen, keyword-only, unknown keys refused."""


class GuardSpec(Spec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What makes a channel faulty; `detect/guard.py` owns these rules.

    low, high: physical range, inclusive; None for a side without one; empty = no range at all.
    stuck_after: consecutive equal readings that are still fine; one more is `stuck`; 0 = never stuck;
        empty = no channel is checked.
    silent_after_ns: no reading of a channel, or of the whole stream, for longer is `silent`; 0 = never.
    gap_ns: a step in time longer than this is a gap; 0 = no gap rule.
    on_gap: after a gap `hold` goes on, `reset` starts from the resting state and warms up again.
    on_missing: what the model is fed in place of a missing or faulty channel: `hold` the last good
        value, or `predict`: the model's own forecast of it (kind forecast only).
    max_missing: steps a faulty channel may be bridged that way; after them the stream is reset when the
        channel comes back; 0 = no limit.
    """

    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    stuck_after: tuple[Count, ...] = ()
    silent_after_ns: Count = 0
    gap_ns: Count = 0
    on_gap: Literal["hold", "reset"] = "hold"
    on_missing: Literal["hold", "predict"] = "hold"
    max_missing: Count = 0


class ConditionSpec(Spec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From a scaled reading to what the model sees.

    drift: channels whose slow level is removed: z = x - m, m += drift_rate * z. Empty = none.
    drift_rate_in_alarm: takes drift_rate's place while the alarm is on; 0 = the level stands still then, and
        an alarm about a lasting change of such a channel ends only by max_freeze.
    clip: scaled values are limited to [-clip, clip].
    """

    drift: tuple[bool, ...] = ()
    drift_rate: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    drift_rate_in_alarm: Annotated[float, Meta(ge=0, lt=1)] = 0.01
    clip: Positive = 10.0


class ScorerSpec(Spec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One scorer on one source.

    kind: `mewma` (multivariate EWMA, one squared distance) or `ewma_z` (largest squared z-score of the
        per-channel EWMAs).
    source: `residual` (reading minus what the model said, each channel divided by its spread on the
        calibration rows), or `input` (the conditioned reading itself: a detector without a network).
    rate: lambda of z += lambda * (e - z); 1 = no smoothing.
    center: mean of z on the calibration rows.
    precision: row-major (C, C) inverse covariance of z for mewma; (C,) inverse variances for ewma_z.
    unit: the squared distance is divided by this, so that scorers can be compared.
    """

    kind: Literal["mewma", "ewma_z"]
    source: Literal["residual", "input"]
    rate: Annotated[float, Meta(gt=0, le=1)]
    center: tuple[float, ...]
    precision: tuple[float, ...]
    unit: Positive = 1.0


class ThresholdSpec(Spec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a score is too high.

    kind: `fixed` / `quantile`: score > value. `dspot_ewma`: score - local mean > value, the local mean an
        EWMA with `rate` that stands still while the alarm is on. `dspot`: the same with the mean of the last
        `window` scores, and a value that is refitted from the moments of the excesses as they come (needs
        pow and log: not exportable to C).
    value: in score units; for `dspot` the first value, then kept in the state.
    initial: first local mean.
    risk, level, count, excess_count, excess_sum, excess_squares: for `dspot`: the target exceedance
        probability, the excess level t, and what the calibration rows gave.
    max_freeze: steps an alarm may last without a break, whatever the kind; then the present level is accepted
        as normal: it becomes the scorers' center and the stream warms up again (0 = never).
    """

    kind: Literal["fixed", "quantile", "dspot_ewma", "dspot"]
    value: Positive
    rate: Annotated[float, Meta(gt=0, lt=1)] = 0.04
    initial: float = 0.0
    window: Annotated[int, Meta(ge=2, le=4096)] = 50
    risk: Annotated[float, Meta(gt=0, lt=1)] = 1e-4
    level: float = 0.0
    count: Count = 0
    excess_count: Count = 0
    excess_sum: float = 0.0
    excess_squares: float = 0.0
    max_freeze: Count = 0


class AlarmSpec(Spec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From too-high scores to one alarm.

    needed of window: n of the last m steps above the threshold turn `normal` (via `pending`) to `anomaly`.
    clear_ratio: the score must fall below clear_ratio * threshold ...
    clear_hold: ... and stay there for this many steps (`clearing`) before it is `normal` again.
    refractory: steps after an alarm in which no new one opens.
    """

    needed: Annotated[int, Meta(ge=1, le=62)] = 1
    window: Annotated[int, Meta(ge=1, le=62)] = 1
    clear_ratio: Annotated[float, Meta(gt=0, le=1)] = 0.7
    clear_hold: Count = 0
    refractory: Count = 0


class DetectorSpec(Spec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole detector.

    kind: `forecast`: outputs are the next reading in model space, O = C. `reconstruct`: outputs are this
        reading in model space, O = C. `classify`: outputs are class scores; `alarm_class` is the anomaly.
    horizons: steps ahead of each forecast; only (1,) is supported by this version.
    period_ns: the sampling period the model was trained on; 0 = unknown.
    warmup: steps after a cold start or reset in which nothing is judged (score NaN).
    residual_scale: (C,) spread of each channel's residual on the calibration rows, in model space;
        empty = ones.
    scorers: one or more; combine `max` takes the largest of score/unit, `sum` adds them.
        Empty only for `classify`, where the score is the output of `alarm_class`.
    """

    kind: Literal["forecast", "reconstruct", "classify"] = "forecast"
    horizons: tuple[Annotated[int, Meta(ge=1, le=1024)], ...] = (1,)
    period_ns: Count = 0
    warmup: Count = 30
    guard: GuardSpec = GuardSpec()
    condition: ConditionSpec = ConditionSpec()
    residual_scale: tuple[Positive, ...] = ()
    scorers: tuple[ScorerSpec, ...] = ()
    combine: Literal["max", "sum"] = "max"
    threshold: ThresholdSpec
    alarm: AlarmSpec = AlarmSpec()
    alarm_class: Count = 0

    def check(self, channels: int, outputs: int) -> None:
        """Check against a model of `channels` inputs and `outputs` outputs: `ModelFileError` if unfit."""
        if self.horizons != (1,):
            raise ModelFileError(f"detector.horizons: this version supports (1,) only, got {self.horizons}")
        if self.kind == "classify":
            if self.alarm_class >= outputs:
                raise ModelFileError(
                    f"detector.alarm_class: expected one of 0..{outputs - 1}, got {self.alarm_class}"
                )
            if self.scorers:
                raise ModelFileError("detector.scorers: classify takes the output itself; leave empty")
        elif outputs != channels:
            raise ModelFileError(
                f"detector.kind: {self.kind} needs as many outputs as inputs ({channels}), got {outputs}"
            )
        elif not self.scorers:
            raise ModelFileError("detector.scorers: expected at least one, got none")
        lengths = {
            "guard.low": self.guard.low,
            "guard.high": self.guard.high,
            "guard.stuck_after": self.guard.stuck_after,
            "condition.drift": self.condition.drift,
            "residual_scale": self.residual_scale,
        }
        for name, value in lengths.items():
            if len(value) not in (0, channels):
                raise ModelFileError(
                    f"detector.{name}: expected {channels} entries or none, got {len(value)}"
                )
        if self.guard.on_missing == "predict" and self.kind != "forecast":
            raise ModelFileError("detector.guard.on_missing: predict needs kind forecast")
        if self.alarm.needed > self.alarm.window:
            raise ModelFileError(
                f"detector.alarm: needed {self.alarm.needed} is more than window {self.alarm.window}"
            )
        for i, scorer in enumerate(self.scorers):
            size = channels * channels if scorer.kind == "mewma" else channels
            if len(scorer.center) != channels or len(scorer.precision) != size:
                raise ModelFileError(
                    f"detector.scorers[{i}]: expected {channels} centers and {size} precisions, "
                    f"got {len(scorer.center)} and {len(scorer.precision)}"
                )
        for number in self._floats():
            if not math.isfinite(number):
                raise ModelFileError(f"detector: expected finite numbers, got {number}")

    def _floats(self) -> list[float]:
        values = [*self.residual_scale, self.condition.clip]
        values += [v for v in (*self.guard.low, *self.guard.high) if v is not None]
        for scorer in self.scorers:
            values += [*scorer.center, *scorer.precision, scorer.unit]
        t = self.threshold
        return [*values, t.value, t.initial, t.level, t.excess_sum, t.excess_squares]
