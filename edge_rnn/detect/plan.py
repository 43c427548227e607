"""A detector as the compiled code reads it: one record of numbers, one arena of vectors, one layout of state.

`Plan(model)` is to a `DetectorSpec` what `Packed` is to the layers. Three things come out of it:

* `record`: all single numbers by name (`PLAN`), and `vectors`: float64, first seven vectors of C numbers
  (`MEAN` .. `STUCK_AFTER` in fields.py), then per scorer kind, source, rate, unit, center (C), precision
  (C or C * C), then what only the general detector reads (general_plan.py).
* the layout of one stream's state, `dtype`: `core` (float32, see core/layout.py), `detect` (float64)
  and `marks` (int64), in this order, each starting at a multiple of 8 bytes, the whole a multiple of 64:

      detect  LOCAL_MEAN .. WINDOW_SUM | held C | last C | level C | per scorer: center C, z C | ring
              | general
      marks   STEPS .. EXCESSES        | run C | heard C | bridged C | levelled C | general

  the parts called general only where the general detector is needed.

* `fresh`: the state of a stream that has seen nothing.

A reset inside a stream (`rest` in loop.py) restores everything except steps, time and what the guard and the
threshold's tail have learned. The names of offsets are in fields.py.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.detector_spec import DetectorSpec, facts
from edge_rnn.core.digest import weights_digest
from edge_rnn.core.layout import StateLayout
from edge_rnn.core.model import Model
from edge_rnn.detect import fields as at
from edge_rnn.detect.general_plan import General, is_general
from edge_rnn.errors import ModelFileError

_LAYOUT_VERSION = 1

_INTEGERS = (
    "channels", "outputs", "kind", "warmup", "scorers", "sums", "threshold", "window", "max_freeze", "needed",
    "alarm_window", "clear_hold", "refractory", "silent_after", "gap", "gap_resets", "predicts",
    "max_missing", "alarm_class", "core_size", "y_at", "detect_at", "detect_size", "marks_at",
    "marks_size", "row_size", "ring_at", "work_size", "fired_at", "vectors_size", "general", "features",
    "horizons", "heads", "gaussian", "rings", "longest", "severities", "points", "late_is_fault",
    "horizons_at", "scales_at", "running_at", "features_at", "severity_at", "points_at", "bands_at",
    "scorers_at", "more_at", "marks_more_at", "utc_offset", "pending_ns", "clear_ns", "refractory_ns",
    "peak_hold", "recovers", "rebase", "recovery_at", "trends", "trends_at", "trend_at", "relevel",
    "relevel_at", "said_next", "levels_said",
)  # fmt: skip
_FLOATS = (
    "drift_rate", "drift_rate_in_alarm", "clip", "mean_rate", "value", "initial", "risk", "level",
    "clear_ratio", "soft_clip", "running_memory", "running_start", "peak_decay", "band", "recovery",
    "bar", "bar_decay",
    "trend_level_rate", "trend_slope_rate", "innovation_limit", "relevel_slope_rate",
)  # fmt: skip
PLAN = np.dtype([(name, "<i8") for name in _INTEGERS] + [(name, "<f8") for name in _FLOATS])


def _round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


class Plan:
    """The compiled form of `model.detector`; read-only, shared by all streams of the model.

    Attributes:
        spec, channels; layout: the core row's `StateLayout`.
        record: one `PLAN` record (1,); vectors: float64 arena.
        dtype: the record of one stream's state; fresh: such a record (1,), a stream that has seen nothing.
        weights_digest, layout_digest, detector_digest: hex, what a snapshot must agree with.

    Raises:
        ModelFileError: the model has no detector section.
    """

    def __init__(self, model: Model) -> None:
        spec = model.detector
        if spec is None:
            raise ModelFileError(
                f"model {model.name}: no detector section, so there are no verdicts; "
                "make one with edge-rnn train or export_model(detector=...), or use a Stepper"
            )
        c = model.channels
        self.spec: DetectorSpec = spec
        self.channels = c
        self.layout = StateLayout(model)
        scorers = len(spec.scorers)
        ring = spec.threshold.window if spec.threshold.kind == "dspot" else 0
        ring_at = at.DETECT_HEAD + (at.SCORERS_AT + 2 * scorers) * c
        detect, marks = ring_at + ring, at.MARKS_HEAD + at.CHANNEL_MARKS * c
        self.general = is_general(model, spec)
        head = at.SCORERS * c + sum(at.SCORER_HEAD + len(s.center) + len(s.precision) for s in spec.scorers)
        more = General(model, spec, head, detect)
        more_at, marks_more_at = detect, marks
        if self.general:
            detect += more.detect_size
            marks += more.marks_size
        self.scorer_names = scorer_names(spec)
        self.work_size = (at.GENERAL_VECTORS + at.FROM_HORIZON * len(spec.horizons)) * c + 2 * scorers + 1
        detect_at = 4 * self.layout.core_size
        marks_at = detect_at + 8 * detect
        self.dtype: np.dtype[np.void] = np.dtype(
            {
                "names": ["core", "detect", "marks"],
                "formats": [("<f4", self.layout.core_size), ("<f8", detect), ("<i8", marks)],
                "offsets": [0, detect_at, marks_at],
                "itemsize": _round_up(marks_at + 8 * marks, 64),
            }
        )
        self.vectors = np.concatenate([self._vectors(model, spec), more.vectors])
        t, a, g = spec.threshold, spec.alarm, spec.guard
        values: dict[str, float] = {
            "channels": c, "outputs": model.output_size, "kind": at.KINDS.index(spec.kind),
            "warmup": spec.warmup,
            "scorers": scorers, "sums": spec.combine == "sum", "threshold": at.THRESHOLD_KINDS.index(t.kind),
            "window": t.window, "max_freeze": t.max_freeze, "needed": a.needed, "alarm_window": a.window,
            "clear_hold": a.clear_hold, "refractory": a.refractory, "silent_after": g.silent_after_ns,
            "gap": g.gap_ns, "gap_resets": g.on_gap == "reset", "predicts": g.on_missing == "predict",
            "max_missing": g.max_missing, "alarm_class": spec.alarm_class, "core_size": self.layout.core_size,
            "y_at": 4 * self.layout.y_offset, "detect_at": detect_at, "detect_size": detect,
            "marks_at": marks_at, "marks_size": marks, "row_size": self.dtype.itemsize, "ring_at": ring_at,
            "drift_rate": spec.condition.drift_rate, "clip": spec.condition.clip, "mean_rate": t.rate,
            "drift_rate_in_alarm": spec.condition.drift_rate_in_alarm,
            "value": t.value, "initial": t.initial, "risk": t.risk, "level": t.level,
            "clear_ratio": a.clear_ratio,
            "work_size": self.work_size, "fired_at": self.work_size - 1, "vectors_size": len(self.vectors),
            "general": self.general, "features": len(model.features), "late_is_fault": g.on_late == "fault",
            "more_at": more_at, "marks_more_at": marks_more_at, "utc_offset": spec.condition.utc_offset_ns,
            "pending_ns": a.pending_ns, "clear_ns": a.clear_ns, "refractory_ns": a.refractory_ns,
            "peak_hold": t.peak_hold, "peak_decay": t.peak_decay, "soft_clip": spec.condition.soft_clip,
            "bar": t.bar, "bar_decay": t.bar_decay,
            "running_memory": spec.condition.running_memory, "running_start": spec.condition.running_start,
            "band": spec.band, "severities": len(a.severity), **more.values,
        }  # fmt: skip
        self.record: NDArray[np.void] = np.zeros(1, PLAN)
        for name, value in values.items():
            self.record[name] = value
        self.fresh = self._fresh(model, spec)
        if self.general:
            self.fresh["detect"][0][more_at:] = more.fresh
        self.weights_digest = weights_digest(model)
        layout = f"detector-row-{_LAYOUT_VERSION} {self.layout.digest} {c} {scorers} {ring} {detect} {marks}"
        if self.general:
            layout += f" general {more.layout}"
        self.layout_digest = hashlib.sha256(layout.encode()).hexdigest()
        constants = (
            msgspec.json.encode(facts(spec), enc_hook=float) + self.vectors[:head].astype("<f8").tobytes()
        )
        if model.features:
            constants += ",".join((*(i.name for i in model.inputs), *model.features)).encode()
        self.detector_digest = hashlib.sha256(constants).hexdigest()
        for array in (self.record, self.vectors, self.fresh):
            array.setflags(write=False)

    @staticmethod
    def _vectors(model: Model, spec: DetectorSpec) -> NDArray[np.float64]:
        c = model.channels
        head = np.zeros((at.SCORERS, c))
        head[at.MEAN] = 0.0 if model.scaler is None else model.scaler.mean
        head[at.STD] = 1.0 if model.scaler is None else model.scaler.std
        head[at.LOW] = [-np.inf if v is None else v for v in spec.guard.low or (None,) * c]
        head[at.HIGH] = [np.inf if v is None else v for v in spec.guard.high or (None,) * c]
        head[at.SCALE] = spec.residual_scale[:c] or 1.0
        # A channel with a level of its own, whether it has a slope or not.
        head[at.DRIFT] = np.add(spec.condition.drift or 0.0, spec.condition.trend or 0.0)
        head[at.STUCK_AFTER] = spec.guard.stuck_after or 0.0
        parts = [head.ravel()]
        for s in spec.scorers:
            numbers = (at.SCORER_KINDS.index(s.kind), at.SOURCES.index(s.source), s.rate, s.unit)
            parts.append(np.array([*numbers, *s.center, *s.precision], np.float64))
        return np.concatenate(parts)

    def _fresh(self, model: Model, spec: DetectorSpec) -> NDArray[np.void]:
        fresh = np.zeros(1, self.dtype)
        fresh["core"][0] = self.layout.rest(model)
        detect, marks = fresh["detect"][0], fresh["marks"][0]
        detect[at.LOCAL_MEAN] = spec.threshold.initial
        detect[at.VALUE] = spec.threshold.value
        detect[at.EXCESS_SUM] = spec.threshold.excess_sum
        detect[at.EXCESS_SQUARES] = spec.threshold.excess_squares
        for i, scorer in enumerate(spec.scorers):
            start = at.DETECT_HEAD + (at.SCORERS_AT + 2 * i) * self.channels
            center = scorer.center or (0.0,) * self.channels
            smoothed = scorer.mean if scorer.kind in ("likelihood", "magnitude") else center
            detect[start : start + 2 * self.channels] = (*center, *smoothed)
        marks[at.WARM] = spec.warmup
        marks[at.COUNT], marks[at.EXCESSES] = spec.threshold.count, spec.threshold.excess_count
        return fresh


def scorer_names(spec: DetectorSpec) -> tuple[str, ...]:
    """What verdicts call the scorers: source and kind, and the steps ahead where there are several."""
    names: list[str] = []
    for s in spec.scorers:
        name = f"{s.source} {s.kind}"
        if len(spec.horizons) > 1 and s.source in ("residual", "nll", "self_scaled"):
            name = f"{name} +{spec.horizons[s.horizon]}"
        if s.side != "both":
            name = f"{name} {s.side}"
        # Two that differ in their numbers alone are told apart by their place.
        names.append(name if name not in names else f"{name} #{len(names)}")
    return tuple(names)


@lru_cache(maxsize=32)
def plan_of(model: Model) -> Plan:
    """The plan of `model`, made once per model object."""
    return Plan(model)


def record_dtype(model: Model) -> np.dtype[np.void]:
    """The record of one stream's whole state: `core` f4, `detect` f8, `marks` i8; see the module."""
    return plan_of(model).dtype
