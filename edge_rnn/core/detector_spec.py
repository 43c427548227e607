"""What a detector is, as data: the `detector` section of a model file.

These structs hold numbers that calibration found and a user may edit; `edge_rnn.detect` turns them
into arithmetic. They live in `core` because a model carries them and an export to C reads them.
Lists have one entry per channel (C = the readings of a sample) unless said otherwise. All times are
integer nanoseconds, all counts are steps (= samples of that stream). K is the number of horizons.

Fields only grow: a field added later has a default that means what was computed before it existed, and is
left out of a file and of a digest while it has that default (`facts`). So older files give the same bits,
and streams saved with them go on.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from edge_rnn.core import detector_check

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
ScorerKind = Literal[
    "mewma", "ewma_z", "mewma_diagonal", "running_z", "likelihood", "cusum", "page_hinkley", "novelty",
    "level", "magnitude",
]  # fmt: skip
Source = Literal["residual", "input", "nll", "difference", "self_scaled", "reading"]
ThresholdKind = Literal["fixed", "quantile", "dspot_ewma", "dspot", "conformal", "pot", "spot"]
SCORER_KINDS: tuple[ScorerKind, ...] = get_args(ScorerKind)


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
    on_late: a sample whose time is not after the last one's: `refuse` it with an error, or take it as a
        `fault`: its verdict says `duplicate` or `late`, and the state stays as it was.
    """

    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    stuck_after: tuple[Count, ...] = ()
    silent_after_ns: Count = 0
    gap_ns: Count = 0
    on_gap: Literal["hold", "reset"] = "hold"
    on_missing: Literal["hold", "predict"] = "hold"
    max_missing: Count = 0
    on_late: Literal["refuse", "fault"] = "refuse"


class ConditionSpec(Spec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From a scaled reading to what the model sees.

    drift: channels whose slow level is removed: z = x - m, m += drift_rate * z. Empty = none.
    drift_rate_in_alarm: takes drift_rate's place while the alarm is on; 0 = the level stands still then, and
        an alarm about a lasting change of such a channel ends only by max_freeze.
    clip: scaled values are limited to [-clip, clip].
    soft_clip: beyond this size a value grows by its logarithm only, z -> s + ln(1 + |z| - s) with the
        sign of z; before `clip`; 0 = off.
    running: channels that are brought to the mean and spread of their own past, (s - m) / sqrt(v), m and v
        over the last `running_memory` good readings, starting from 0 and 1 with the weight of
        `running_start` readings; they stand still while the alarm is on. Not together with drift.
        Empty = none.
    trend: channels whose level and slope are followed and removed (Holt, Int. J. Forecasting 20, 2004):
        z = x - (m + s), m <- m + s + g z, s <- s + h z. At the n-th good reading since a reset
        g = max(2 (2n - 1) / (n (n + 1)), trend_level_rate), h = max(6 / (n (n + 1)), trend_slope_rate): the
        least-squares line through what there is, which later forgets. In an alarm too.
        Not together with drift or running. Empty = none.
    innovation_limit: what the network is fed lies at most this far from its own forecast of it, so that an
        outlier does not poison its state; what is scored is the reading as it is. Kind forecast with a first
        horizon of 1 only. 0 = off.
    utc_offset_ns: added to a sample's time before the time features of the model are made of it, so that
        days begin at local midnight. There is no daylight saving.
    """

    drift: tuple[bool, ...] = ()
    drift_rate: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    drift_rate_in_alarm: Annotated[float, Meta(ge=0, lt=1)] = 0.01
    clip: Positive = 10.0
    soft_clip: Annotated[float, Meta(ge=0)] = 0.0
    running: tuple[bool, ...] = ()
    running_memory: Annotated[int, Meta(ge=2, le=2**53)] = 4000
    running_start: Annotated[int, Meta(ge=1, le=2**53)] = 100
    trend: tuple[bool, ...] = ()
    trend_level_rate: Annotated[float, Meta(gt=0, lt=1)] = 0.04
    trend_slope_rate: Annotated[float, Meta(ge=0, lt=1)] = 4e-4
    innovation_limit: Annotated[float, Meta(ge=0)] = 0.0
    utc_offset_ns: Annotated[int, Meta(ge=-86_400_000_000_000, le=86_400_000_000_000)] = 0


class TableSpec(Spec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often a score is exceeded when nothing is wrong, measured on calibration rows.

    scores: positive, rising. exceed: falling, in (0, 1): the part of the rows whose score was at least that.
    Between two scores the part changes linearly, below the first from 1 at score 0; above the last one s it
    is exceed * s / score. Both empty = not known.
    """

    scores: tuple[Positive, ...] = ()
    exceed: tuple[float, ...] = ()


class TailSpec(Spec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A score q >= 0 turned into -log10 of the part p of normal scores that are at least as high.

    kind: `table`: p from `table`, fixed. `stream`: p from a histogram of the stream's own scores,
        p = (scores in this bin or above + 1/2) / (scores + 1); 0 while there are fewer than 10.
    low, octaves, parts: bins of `stream`: `parts` per factor of two (by the exponent and the leading mantissa
        bits), from 2**low over this many factors; what lies outside goes to the first or last. In fine bins a
        score is rare as soon as it is the largest, in coarse ones only where it is larger by a part.
    counts: what `stream` starts with, one per bin (parts * octaves), or empty.
    learn: `calm`: only scores that are not too high while the alarm is off enter; `always`: all.
    """

    kind: Literal["stream", "table"] = "stream"
    low: Annotated[int, Meta(ge=-256, le=256)] = -16
    octaves: Annotated[int, Meta(ge=1, le=64)] = 32
    parts: Literal[1, 2, 4, 8] = 4
    counts: tuple[Count, ...] = ()
    learn: Literal["calm", "always"] = "calm"
    table: TableSpec = TableSpec()


class ScorerSpec(Spec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One scorer on one source.

    source: the deviation e, one number per channel. `residual`: reading minus what the model said
        `horizon` ago, divided by residual_scale (with a scale head also by the scale it said). `input`:
        the conditioned reading itself (a detector without a network). `nll`: the negative log-likelihood of
        the reading under the model's forecast (needs a scale head). `difference`: the conditioned reading
        minus the one before. `self_scaled`: the size of the residual in units of the scale the model said,
        |x - mu| exp(-s), not divided by residual_scale (needs a scale head). `reading`: the scaled reading
        before all conditioning, so that the network alone sees what is clipped.
    kind: z is the EWMA of e with `rate`, d = z - center, a = |e - center| (one-sided: the part of that sign).
        `mewma`: sum_ij d_i W_ij d_j.  `mewma_diagonal`: sum d^2 w.  `ewma_z`: max d^2 w.
        The following are computed for each channel, and the largest channel counts:
        `running_z`: (a - m)^2 / v if a > m, m and v the running mean and variance of a over `memory`.
        `likelihood`: s the EWMA of a with `rate`; min(50, -log10 of the upper normal tail of
            (s - m) / sqrt(v)), 0 if s <= m; m and v of s.
        `cusum`: p <- clip(p + x - slack, 0, cap), q <- clip(q - x - slack, 0, cap), x = (e - center) * w
            limited to +-bound; the larger of p and q (one-sided: p up, q down).
        `page_hinkley`: the same with x = (e - z) * w, z before this step: a mean that follows.
        `novelty`: how far e lies outside the range seen, in widths of the range; 0 up to `margin`.
        `level`: |e - m| * w, m <- m + rate * clip((e - m) * w, -1, 1) / w: a baseline that follows slowly.
        `magnitude`: s * w, s the EWMA of a with `rate`: how large deviations are of late.
    center: mean of z (for `running_z`, `likelihood`, `cusum`, `page_hinkley`, `level`, `magnitude`: of e) on
        the calibration rows; not used by novelty: empty there.
    precision: w, or W. Row-major (C, C) inverse covariance of z for mewma; (C,) inverse variances of z for
        ewma_z and mewma_diagonal, of a (likelihood: of s) at the start for running_z and likelihood;
        (C,) inverse spreads for cusum, page_hinkley, level, magnitude; empty for novelty.
    mean: (C,) mean of a (likelihood: of s) at the start for running_z, likelihood and magnitude; else empty.
    low, high: (C,) range of e at the start for novelty, or both empty: nothing seen yet.
    count: how many rows mean and precision (running_z, likelihood) stand for.
    unit: the score is divided by this, so that scorers can be compared.
    horizon: index into the detector's horizons, for residual, nll and self_scaled.
    side: `up`: only what is too high counts, `down`: only what is too low.
    learn: running_z, likelihood, novelty, level: `calm`: learn nothing while the alarm is on; `always`.
    tail: score / unit turned into -log10 p, or None.
    weight: times the result.
    group: scorers with the same number are combined as the detector's `combine` says, then the largest
        group counts.
    """

    kind: ScorerKind
    source: Source
    rate: Annotated[float, Meta(gt=0, le=1)]
    center: tuple[float, ...] = ()
    precision: tuple[float, ...] = ()
    unit: Positive = 1.0
    horizon: Count = 0
    side: Literal["both", "up", "down"] = "both"
    mean: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    count: Count = 0
    memory: Annotated[int, Meta(ge=2, le=2**53)] = 4000
    slack: Annotated[float, Meta(ge=0)] = 0.5
    bound: Positive = 5.0
    cap: Positive = 40.0
    margin: Annotated[float, Meta(ge=0)] = 0.05
    learn: Literal["calm", "always"] = "calm"
    tail: TailSpec | None = None
    weight: Positive = 1.0
    group: Annotated[int, Meta(ge=0, le=1023)] = 0


class ThresholdSpec(Spec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a score is too high.

    kind: `fixed` / `quantile` / `conformal` / `pot`: score > value; the words say how it was found.
        `dspot_ewma`: score - local mean > value, the local mean an EWMA with `rate` that stands still while
        the alarm is on. `dspot`: the same with the mean of the last `window` scores, and a value that is
        refitted from the moments of the excesses as they come (needs pow and log: not exportable to C).
        `spot`: no local mean, a value that is refitted in the same way, in own arithmetic.
    value: in score units; for `dspot` and `spot` the first value, then kept in the state.
    initial: first local mean.
    risk, level, count, excess_count, excess_sum, excess_squares: for `dspot` and `spot`: the target
        exceedance probability, the excess level t, and what the calibration rows gave.
    max_freeze: steps an alarm may last without a break, whatever the kind; then the present level is accepted
        as normal: it becomes the scorers' center and the stream warms up again (0 = never). So a lasting new
        level is normal again after at most max_freeze + 1 + warmup judged samples.
    peak_hold: before the threshold, only a score above all recent ones is passed on, others are 0; a peak
        is held for this many steps and then sinks by `peak_decay` a step. 0 = off.
    bar: an alarm opens only above `bar` times the largest score of the warm-up and of all earlier alarms, if
        that is more than the threshold: a repeat of what was reported is no news. At least 1; 0 = off. Not
        together with peak_hold.
    bar_decay: while no alarm is on, that largest score sinks by this factor a step; 1 = never, so that after
        one very large event only a larger one counts, until the stream is reset.
    """

    kind: ThresholdKind
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
    peak_hold: Count = 0
    peak_decay: Annotated[float, Meta(gt=0, lt=1)] = 0.995
    bar: Annotated[float, Meta(ge=0)] = 0.0
    bar_decay: Annotated[float, Meta(gt=0, le=1)] = 1.0


class AlarmSpec(Spec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From too-high scores to one alarm.

    needed of window: n of the last m steps above the threshold turn `normal` (via `pending`) to `anomaly`.
    clear_ratio: the score must fall below clear_ratio * threshold ...
    clear_hold: ... and stay there for this many steps (`clearing`) before it is `normal` again.
    refractory: steps after an alarm in which no new one opens.
    pending_ns: the score must also have been too high at every sample for at least this time.
    clear_ns: the score must also have stayed below for at least this time.
    refractory_ns: no new alarm opens before this time after the last one's end.
    severity: rising multiples of the threshold, at least 1. An alarm's severity is 1, plus one for each
        multiple its score has reached since it opened.
    recovery: in place of clear_ratio, for an alarm opened by a scorer of kind mewma or mewma_diagonal (the
        one whose score was the largest then): D is the mean of its d since the alarm opened, and the score
        counts as low while d'WD < recovery * D'WD, that is, while less than this part of the event is left
        in its own direction, whatever else has changed. clear_hold and clear_ns still hold. 0 = off.
    rebase: when such an alarm ends while the score is still too high, what is left is taken as the new
        normal (`accepted`): the stream warms up for this many steps, without a reset, and the center of that
        scorer becomes the mean of its z in them. 0 = off.
    relevel: steps in which an alarm's new level is taken as normal: once the score is too high with the alarm
        on, each channel with drift or trend gets as its level, for so many steps, the mean of what the
        forecast has left since (where no scorer looks at a forecast: of the readings), its slope
        moves by relevel_slope_rate of that, the network is fed its own forecast, and the alarm stays on. Then
        all scorers begin anew at their centers (`accepted`); a score that is still too high, or is again
        before the alarm ends, does the same once more. So a lasting change is normal after relevel steps; how
        much longer the alarm is shown is clear_hold. Not together with recovery. 0 = off.
    """

    needed: Annotated[int, Meta(ge=1, le=62)] = 1
    window: Annotated[int, Meta(ge=1, le=62)] = 1
    clear_ratio: Annotated[float, Meta(gt=0, le=1)] = 0.7
    clear_hold: Count = 0
    refractory: Count = 0
    pending_ns: Count = 0
    clear_ns: Count = 0
    refractory_ns: Count = 0
    severity: tuple[float, ...] = ()
    recovery: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    rebase: Annotated[int, Meta(ge=0, le=2**31)] = 0
    relevel: Annotated[int, Meta(ge=0, le=2**31)] = 0
    relevel_slope_rate: Annotated[float, Meta(ge=0, lt=1)] = 3e-4


class DetectorSpec(Spec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole detector.

    kind: `forecast`: outputs are coming readings in model space, O = C * K, horizon by horizon.
        `reconstruct`: outputs are this reading in model space, O = C. `classify`: outputs are class
        scores; `alarm_class` is the anomaly.
    horizons: steps ahead of each forecast, rising. Expected values, and the forecasts that replace missing
        readings, are those of the first. Nothing is judged before the longest has spoken once since a reset.
    early: judge as soon as the first horizon has spoken; a longer one that has not counts as having come
        true: 0 as a scorer's deviation.
    scale_head: with `laplace` or `gaussian` there are as many outputs again behind the first ones, s = ln of
        the scale each forecast expects to be off by, limited to -4..3. A residual is then
        (x - mu) exp(-s), nll is |x - mu| exp(-s) + s, or ((x - mu) exp(-s))^2 / 2 + s.
    period_ns: the sampling period the model was trained on; 0 = unknown.
    warmup: steps after a cold start or reset in which nothing is judged (score NaN).
    residual_scale: (K * C,) spread of each channel's residual on the calibration rows, in model space (with
        a scale head: of the residual in units of the said scale), horizon by horizon; empty = ones.
    scorers: one or more; combine `max` takes the largest of their scores, `sum` adds them
        (within a group; of several groups the largest counts).
        Empty only for `classify`, where the score is the output of `alarm_class`.
    probability: of the combined score; a verdict's probability is 1 - exceed. Empty: it is NaN.
    band: half-width of the band around the expected value, in residual_scale (times the scale said).
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
    scale_head: Literal["none", "laplace", "gaussian"] = "none"
    probability: TableSpec = TableSpec()
    band: Positive = 3.0
    early: bool = False

    def check(self, channels: int, outputs: int) -> None:
        """Check against a model of `channels` readings and `outputs` outputs: `ModelFileError` if unfit."""
        detector_check.check(self, channels, outputs)


# What a file of the first version holds; everything else is left out while it has its default.
_FIRST: dict[type[Spec], tuple[str, ...]] = {
    GuardSpec: (
        "low", "high", "stuck_after", "silent_after_ns", "gap_ns", "on_gap", "on_missing", "max_missing",
    ),
    ConditionSpec: ("drift", "drift_rate", "drift_rate_in_alarm", "clip"),
    ScorerSpec: ("kind", "source", "rate", "center", "precision", "unit"),
    ThresholdSpec: (
        "kind", "value", "rate", "initial", "window", "risk", "level", "count", "excess_count", "excess_sum",
        "excess_squares", "max_freeze",
    ),
    AlarmSpec: ("needed", "window", "clear_ratio", "clear_hold", "refractory"),
    DetectorSpec: (
        "kind", "horizons", "period_ns", "warmup", "guard", "condition", "residual_scale", "scorers",
        "combine", "threshold", "alarm", "alarm_class",
    ),
}  # fmt: skip


def facts(spec: Spec) -> dict[str, object]:
    """The fields of a spec as a file holds them: the first version's, and later ones that say something."""
    first = _FIRST.get(type(spec), ())
    found: dict[str, object] = {}
    for field in msgspec.structs.fields(spec):
        value = getattr(spec, field.name)
        if field.name not in first and not field.required and value == field.default:
            continue
        if isinstance(value, Spec):
            value = facts(value)
        elif isinstance(value, tuple):
            value = tuple(facts(v) if isinstance(v, Spec) else v for v in value)
        found[field.name] = value
    return found
