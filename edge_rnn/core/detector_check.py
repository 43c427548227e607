"""What a detector's section must fulfil beyond its types: sizes, ranges, parts that need each other.

Every refusal is a `ModelFileError` that names the field, what was expected and what was got.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from edge_rnn.errors import ModelFileError

if TYPE_CHECKING:
    from edge_rnn.core.detector_spec import DetectorSpec, ScorerSpec, Spec, TableSpec, TailSpec

# Which of a scorer's lists have C entries; mewma's precision has C * C.
_LISTS = {
    "mewma": ("center", "precision"),
    "mewma_diagonal": ("center", "precision"),
    "ewma_z": ("center", "precision"),
    "running_z": ("center", "precision", "mean"),
    "likelihood": ("center", "precision", "mean"),
    "cusum": ("center", "precision"),
    "page_hinkley": ("center", "precision"),
    "novelty": (),
    "level": ("center", "precision"),
    "magnitude": ("center", "precision", "mean"),
}


def check(spec: DetectorSpec, channels: int, outputs: int) -> None:
    """Check `spec` against a model of `channels` readings and `outputs` outputs.

    Raises:
        ModelFileError: see the module.
    """
    _finite(spec, "detector")
    _network(spec, channels, outputs)
    ahead = len(spec.horizons)
    lengths = {
        "guard.low": (spec.guard.low, channels),
        "guard.high": (spec.guard.high, channels),
        "guard.stuck_after": (spec.guard.stuck_after, channels),
        "condition.drift": (spec.condition.drift, channels),
        "condition.running": (spec.condition.running, channels),
        "condition.trend": (spec.condition.trend, channels),
        "residual_scale": (spec.residual_scale, channels * ahead),
    }
    for name, (value, expected) in lengths.items():
        if len(value) not in (0, expected):
            raise ModelFileError(f"detector.{name}: expected {expected} entries or none, got {len(value)}")
    both = [
        i
        for i, (a, b) in enumerate(zip(spec.condition.drift, spec.condition.running, strict=False))
        if a and b
    ]
    if both:
        raise ModelFileError(
            f"detector.condition: channel {both[0]} has drift and running; a running mean removes drift, "
            "keep one"
        )
    _trend(spec)
    if spec.guard.on_missing == "predict" and (spec.kind != "forecast" or spec.horizons[0] != 1):
        raise ModelFileError(
            "detector.guard.on_missing: predict needs kind forecast and a first horizon of 1"
        )
    if spec.alarm.needed > spec.alarm.window:
        raise ModelFileError(
            f"detector.alarm: needed {spec.alarm.needed} is more than window {spec.alarm.window}"
        )
    if 0.0 < spec.threshold.bar < 1.0:
        raise ModelFileError(
            f"detector.threshold.bar: expected 0 (off) or at least 1, got {spec.threshold.bar:g}"
        )
    if spec.threshold.bar > 0 and spec.threshold.peak_hold > 0:
        raise ModelFileError(
            "detector.threshold: bar and peak_hold both keep what was reported from being so again; leave "
            "one at 0"
        )
    _rising(spec.alarm.severity, "detector.alarm.severity", least=1.0)
    if len(spec.alarm.severity) > 8:
        raise ModelFileError(
            f"detector.alarm.severity: expected at most 8 multiples, got {len(spec.alarm.severity)}"
        )
    able = any(s.kind in ("mewma", "mewma_diagonal") for s in spec.scorers)
    if spec.alarm.recovery > 0 and not able:
        raise ModelFileError("detector.alarm.recovery: needs a scorer of kind mewma or mewma_diagonal")
    if spec.alarm.rebase > 0 and spec.alarm.recovery == 0:
        raise ModelFileError("detector.alarm.rebase: needs a recovery above 0; without one leave 0")
    for i, scorer in enumerate(spec.scorers):
        _scorer(spec, scorer, channels, f"detector.scorers[{i}]")
    _table(spec.probability, "detector.probability", may_be_empty=True)


def _trend(spec: DetectorSpec) -> None:
    condition, alarm = spec.condition, spec.alarm
    for name in ("drift", "running"):
        other = getattr(condition, name)
        both = [i for i, (a, b) in enumerate(zip(condition.trend, other, strict=False)) if a and b]
        if both:
            raise ModelFileError(
                f"detector.condition: channel {both[0]} has trend and {name}; each removes a slow level, "
                "keep one"
            )
    if condition.innovation_limit > 0 and (spec.kind != "forecast" or spec.horizons[0] != 1):
        raise ModelFileError(
            "detector.condition.innovation_limit: needs kind forecast and a first horizon of 1; leave 0"
        )
    if alarm.relevel > 0 and not any((*condition.trend, *condition.drift)):
        raise ModelFileError(
            "detector.alarm.relevel: needs a channel with condition.trend or condition.drift"
        )
    if alarm.relevel > 0 and spec.kind == "classify":
        raise ModelFileError("detector.alarm.relevel: classify has no level to bring back; leave 0")
    if alarm.relevel > 0 and alarm.recovery > 0:
        raise ModelFileError(
            "detector.alarm: recovery and relevel both say what becomes normal after an alarm; keep one"
        )


def _network(spec: DetectorSpec, channels: int, outputs: int) -> None:
    ahead = spec.horizons
    if not ahead or any(a >= b for a, b in pairwise(ahead)):
        raise ModelFileError(f"detector.horizons: expected rising numbers of steps, got {ahead}")
    if spec.kind != "forecast" and ahead != (1,):
        raise ModelFileError(f"detector.horizons: {spec.kind} looks at this reading; leave (1,), got {ahead}")
    if spec.kind == "classify":
        if spec.alarm_class >= outputs:
            raise ModelFileError(
                f"detector.alarm_class: expected one of 0..{outputs - 1}, got {spec.alarm_class}"
            )
        if spec.scorers:
            raise ModelFileError("detector.scorers: classify takes the output itself; leave empty")
        if spec.scale_head != "none":
            raise ModelFileError("detector.scale_head: classify has no scale; leave none")
        return
    expected = channels * len(ahead) * (1 if spec.scale_head == "none" else 2)
    if outputs != expected:
        if len(ahead) == 1 and spec.scale_head == "none":
            raise ModelFileError(
                f"detector.kind: {spec.kind} needs as many outputs as inputs ({channels}), got {outputs}"
            )
        scale = "" if spec.scale_head == "none" else ", each with its scale"
        raise ModelFileError(
            f"detector.horizons: {channels} channels at {len(ahead)} horizons{scale} need {expected} "
            f"outputs, got {outputs}"
        )
    if not spec.scorers:
        raise ModelFileError("detector.scorers: expected at least one, got none")


def _scorer(spec: DetectorSpec, scorer: ScorerSpec, channels: int, where: str) -> None:
    lists = _LISTS[scorer.kind]
    square = channels * channels if scorer.kind == "mewma" else channels
    if lists[:2] == ("center", "precision") and (
        len(scorer.center) != channels or len(scorer.precision) != square
    ):
        raise ModelFileError(
            f"{where}: expected {channels} centers and {square} precisions, "
            f"got {len(scorer.center)} and {len(scorer.precision)}"
        )
    for name in ("center", "precision", "mean"):
        value = getattr(scorer, name)
        if name not in lists and value:
            raise ModelFileError(f"{where}.{name}: {scorer.kind} has none; leave empty, got {len(value)}")
    if "mean" in lists and len(scorer.mean) != channels:
        raise ModelFileError(f"{where}.mean: expected {channels} entries, got {len(scorer.mean)}")
    if scorer.kind not in ("mewma", "ewma_z") and not all(w > 0 for w in scorer.precision):
        raise ModelFileError(f"{where}.precision: expected positive numbers, got {min(scorer.precision)}")
    sizes = {len(scorer.low), len(scorer.high)}
    if scorer.kind != "novelty" and sizes != {0}:
        raise ModelFileError(f"{where}.low, high: only novelty has them; leave empty")
    if sizes not in ({0}, {channels}) or any(a > b for a, b in zip(scorer.low, scorer.high, strict=True)):
        raise ModelFileError(
            f"{where}.low, high: expected {channels} ranges with low <= high, or none, "
            f"got {len(scorer.low)} and {len(scorer.high)}"
        )
    if scorer.source in ("nll", "self_scaled") and spec.scale_head == "none":
        raise ModelFileError(f"{where}.source: {scorer.source} needs a scale_head")
    if scorer.horizon >= len(spec.horizons):
        raise ModelFileError(
            f"{where}.horizon: expected one of 0..{len(spec.horizons) - 1} (the detector has "
            f"{len(spec.horizons)} horizons), got {scorer.horizon}"
        )
    if scorer.tail is not None:
        _tail(scorer.tail, f"{where}.tail")


def _tail(tail: TailSpec, where: str) -> None:
    if tail.kind == "table":
        _table(tail.table, f"{where}.table", may_be_empty=False)
    bins = tail.parts * tail.octaves
    if len(tail.counts) not in (0, bins):
        raise ModelFileError(
            f"{where}.counts: expected {bins} (parts * octaves) or none, got {len(tail.counts)}"
        )


def _table(table: TableSpec, where: str, *, may_be_empty: bool) -> None:
    if len(table.scores) != len(table.exceed) or not (table.scores or may_be_empty):
        raise ModelFileError(
            f"{where}: expected as many scores as parts exceeded, at least one, "
            f"got {len(table.scores)} and {len(table.exceed)}"
        )
    _rising(table.scores, f"{where}.scores", least=0.0)
    inside = all(0.0 < p < 1.0 for p in table.exceed)
    if not inside or any(a <= b for a, b in pairwise(table.exceed)):
        raise ModelFileError(f"{where}.exceed: expected falling numbers between 0 and 1")


def _rising(values: Sequence[float], where: str, least: float) -> None:
    if any(a >= b for a, b in pairwise(values)) or any(v < least for v in values):
        raise ModelFileError(f"{where}: expected rising numbers of at least {least:g}, got {tuple(values)}")


def _finite(part: Spec, where: str) -> None:
    for name in part.__struct_fields__:
        value = getattr(part, name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, float) and not math.isfinite(one):
                raise ModelFileError(f"{where}: expected finite numbers, got {one} in {name}")
            if hasattr(one, "__struct_fields__"):
                _finite(one, f"{where}.{name}")
