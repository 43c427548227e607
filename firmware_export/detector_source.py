"""The detector's part of the code: its constants, and which parts of its template it needs.

The arithmetic is in `runtime/edge_rnn_detect.c`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_rnn.core.model import Model
from edge_rnn.detect import fields as at
from edge_rnn.detect.plan import plan_of
from firmware_export.c_text import array, float64, floats64, integer
from firmware_export.state import Rules


@dataclass(frozen=True, slots=True)
class DetectorText:
    """The constants of the detector, and which parts of its template it needs."""

    constants: str
    features: dict[str, bool]
    table_bytes: int

    @classmethod
    def of(cls, model: Model) -> DetectorText:
        """The text of a model's detector; empty if it has none."""
        spec = model.detector
        if spec is None:
            return cls("", {}, 0)
        rules, c, plan = Rules.of(spec), model.input_size, plan_of(model)
        kinds = {s.kind for s in spec.scorers}
        features = {
            "RESIDUAL": rules.residual, "DRIFT": rules.drift, "MAX_MISSING": rules.max_missing,
            "MAX_FREEZE": rules.max_freeze, "LOCAL_MEAN": rules.local_mean, "SILENT": rules.silent,
            "STUCK": rules.stuck, "RANGE": rules.ranges, "PREDICT": rules.predict, "MEWMA": "mewma" in kinds,
            "EWMA_Z": "ewma_z" in kinds, "SUM": spec.combine == "sum", "FORECAST": spec.kind == "forecast",
            "GAP_RESET": rules.gap_reset,
            "COUNTS": rules.stuck or rules.max_missing or rules.max_freeze,
            "STATEFUL_GUARD": rules.stuck or rules.silent,
            "VALUE_LIMITS": rules.stuck or rules.ranges,
            "CHANNEL_LIMITS": rules.stuck or rules.silent or rules.ranges,
        }  # fmt: skip
        vectors = plan.vectors[: at.SCORERS * c].reshape(at.SCORERS, c)
        # Readings outside these are not finite, which the guard says first.
        largest = float(np.finfo(np.float64).max)
        limits = np.clip(vectors[[at.LOW, at.HIGH]], -largest, largest)
        tables = [("mean", vectors[at.MEAN]), ("std", vectors[at.STD])]
        tables += [("low", limits[0]), ("high", limits[1])] if rules.ranges else []
        tables += [("residual_scale", vectors[at.SCALE])] if rules.residual else []
        text = [array("double", f"ern_{key}", floats64(values), "ERN_INPUTS") for key, values in tables]
        size = 8 * c * len(tables)
        if rules.stuck:
            counts = [f"{int(v)}u" for v in vectors[at.STUCK_AFTER]]
            text.append(array("uint32_t", "ern_stuck_after", counts, "ERN_INPUTS"))
            size += 4 * c
        if rules.drift:
            flags = [f"{int(v)}u" for v in vectors[at.DRIFT]]
            text.append(array("uint8_t", "ern_drifts", flags, "ERN_INPUTS"))
            size += c
        if rules.residual:
            text.append(cls._scorers(model))
            size += sum(8 * (len(s.center) + len(s.precision) + 2) + 16 for s in spec.scorers)
        return cls("\n".join([cls._numbers(model), *text, cls._helpers(rules)]), features, size)

    @staticmethod
    def _numbers(model: Model) -> str:
        spec = model.detector
        if spec is None:
            return ""
        t, a, g, condition, rules = spec.threshold, spec.alarm, spec.guard, spec.condition, Rules.of(spec)
        listed = [
            (True, "CLIP", float64(condition.clip)),
            (rules.drift, "DRIFT_RATE", float64(condition.drift_rate)),
            (rules.drift, "DRIFT_RATE_IN_ALARM", float64(condition.drift_rate_in_alarm)),
            (True, "WARMUP", f"{spec.warmup}u"),
            (rules.silent, "SILENT_AFTER_NS", integer("int64_t", g.silent_after_ns)),
            (rules.gap_reset, "GAP_NS", integer("int64_t", g.gap_ns)),
            (rules.max_missing, "MAX_MISSING", f"{g.max_missing}u"),
            (rules.residual, "SCORERS", str(len(spec.scorers))),
            (not rules.residual, "ALARM_CLASS", str(spec.alarm_class)),
            (True, "THRESHOLD", float64(t.value)),
            (rules.local_mean, "INITIAL_MEAN", float64(t.initial)),
            (rules.local_mean, "MEAN_RATE", float64(t.rate)),
            (rules.max_freeze, "MAX_FREEZE", f"{t.max_freeze}u"),
            (True, "ALARM_NEEDED", f"{a.needed}u"),
            (True, "ALARM_WINDOW_MASK", f"UINT64_C({(1 << a.window) - 1})"),
            (True, "CLEAR_RATIO", float64(a.clear_ratio)),
            (True, "CLEAR_HOLD", f"{a.clear_hold}u"),
            (True, "REFRACTORY", f"{a.refractory}u"),
        ]
        return "".join(f"#define ERN_{key} ({value})\n" for wanted, key, value in listed if wanted)

    @staticmethod
    def _scorers(model: Model) -> str:
        scorers = model.detector.scorers if model.detector else ()
        both = len({s.kind for s in scorers}) == 2
        text = [
            "typedef struct {\n    const double *center;\n    const double *precision;\n    double rate;\n"
            "    double unit;\n    uint8_t of_input; /* 1: scores the reading itself, 0: the residual */\n"
            + ("    uint8_t mewma;    /* 1: mewma, 0: ewma_z */\n" if both else "")
            + "} ern_scorer;\n"
        ]
        rows = []
        for k, s in enumerate(scorers):
            text.append(array("double", f"ern_center{k}", floats64(s.center)))
            text.append(array("double", f"ern_precision{k}", floats64(s.precision)))
            source, kind = int(s.source == "input"), f", {int(s.kind == 'mewma')}u" if both else ""
            numbers = f"{float64(s.rate)}, {float64(s.unit)}, {source}u{kind}"
            rows.append(f"    {{ern_center{k}, ern_precision{k}, {numbers}}}, /* {s.kind} of {s.source} */\n")
        text.append(f"static const ern_scorer ern_scorers[ERN_SCORERS] = {{\n{''.join(rows)}}};\n")
        return "\n".join(text)

    @staticmethod
    def _helpers(rules: Rules) -> str:
        if not (rules.silent or rules.gap_reset):
            return ""
        return """\
/* Nanoseconds from one time to a later one; wraps like the daemon's arithmetic. */
static int64_t ern_elapsed(int64_t from, int64_t to)
{
    return (int64_t)((uint64_t)to - (uint64_t)from);
}
"""
