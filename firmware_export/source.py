"""From a model to the two files of C: the header with the state, and the code with the weights.

The arithmetic is in the templates (`runtime/edge_rnn_step.c`, `runtime/edge_rnn_detect.c`). Written here is
what depends on the model: sizes, constants, the state, and the order in which layers are called. Weights
are those of `edge_rnn.core.pack` for one lane without the padding of a Linear's rows; that padding only
ever adds +0, and the template's sum does so without storing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_rnn import __version__
from edge_rnn.core import fields as p
from edge_rnn.core.digest import weights_digest
from edge_rnn.core.integers import Quantized
from edge_rnn.core.layout import padded
from edge_rnn.core.model import Float32, Model
from edge_rnn.core.pack import pack
from edge_rnn.detect import fields as at
from edge_rnn.detect.plan import plan_of
from edge_rnn.detect.verdict import FAULT_KINDS, STATUSES, verdict_dtype
from firmware_export.c_text import array, float32, float64, floats32, floats64, rename, select, template
from firmware_export.integer_source import IntegerText, Packing, integer_network
from firmware_export.state import Field, Rules, fields, resting, state_dtype

_NO_DETECTOR = dict.fromkeys(
    (
        "RESIDUAL", "COUNTS", "DRIFT", "MAX_MISSING", "MAX_FREEZE", "LOCAL_MEAN", "STATEFUL_GUARD", "SILENT",
        "CHANNEL_LIMITS", "VALUE_LIMITS",
        "STUCK", "RANGE", "PREDICT", "MEWMA", "EWMA_Z", "SUM", "FORECAST", "GAP_RESET",
    ),
    False,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """The two files, and what they hold.

    header, code: text; weight_bytes, table_bytes: constants of the network and of the detector;
    state_bytes, verdict_bytes: sizes of the structs (verdict 0 without a detector).
    """

    header: str
    code: str
    weight_bytes: int
    table_bytes: int
    state_bytes: int
    verdict_bytes: int


@dataclass(frozen=True, slots=True)
class _Stage:
    """One call in the network's step: its lines, and the constants it reads by name."""

    lines: tuple[str, ...]
    constants: tuple[tuple[str, Float32], ...] = ()


def generate(
    model: Model,
    name: str,
    fused: bool,
    initial: bytes | None = None,
    notes: str = "",
    *,
    quantized: Quantized | None = None,
    packing: Packing = "plain",
) -> Source:
    """The files of `model` under the C name `name`.

    Args:
        fused: class F.
        initial: a device's state (`state.to_device`) that `..._init` starts from; None: the resting state.
        notes: lines for the header's comment, such as the budget.
        quantized: the model in integers (w8a16), its weights in the order of `packing`.
    """
    detector = _DetectorText.of(model)
    if quantized is None:
        network = _float_network(model, fused)
    else:
        network = _integer_network(model, integer_network(quantized, packing))
        fused = False
    features = {**network.features, **detector.features}
    members = fields(model, quantized)
    device = state_dtype(model, quantized)
    verdict_bytes = verdict_dtype(model.input_size).itemsize if model.detector else 0
    record = resting(model, quantized)
    first = record if initial is None else np.frombuffer(initial, device)
    parts = [
        _preamble(name, fused, detector=model.detector is not None, integers=quantized is not None),
        network.arithmetic,
        f"/* ---- the model {'-' * 83} */\n" if quantized is None else "",
        network.constants,
        detector.constants,
        _resets(members, record, first if initial is not None else None, detector=model.detector is not None),
        network.step,
        select(template("edge_rnn_detect.c"), features) if model.detector else "",
        _interface(model),
    ]
    header = _header(model, members, notes, device.itemsize, quantized, initial=initial is not None)
    code = "\n".join(part for part in parts if part)
    return Source(
        rename(header, name), rename(code, name), network.weight_bytes,
        network.table_bytes + detector.table_bytes, device.itemsize, verdict_bytes,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _NetworkText:
    """The network's part: features of the templates, functions, constants, and `ern_network`."""

    features: dict[str, bool]
    arithmetic: str
    constants: str
    step: str
    weight_bytes: int
    table_bytes: int = 0


def _float_network(model: Model, fused: bool) -> _NetworkText:
    stages, scratch, work = _stages(model, fused=fused)
    constants = [pair for stage in stages for pair in stage.constants]
    features = _features(model, fused=fused)
    return _NetworkText(
        features,
        select(template("edge_rnn_step.c"), features),
        "\n".join(array("float", f"ern_{key}", floats32(values)) for key, values in constants),
        _network(stages, scratch, work, detector=model.detector is not None),
        sum(values.nbytes for _, values in constants),
    )


def _integer_network(model: Model, text: IntegerText) -> _NetworkText:
    """Activations of the head are those of the float template in class U."""
    wanted = text.activations
    features = {
        **dict.fromkeys(_features(model, fused=False), False),
        "TANH": bool(wanted),
        "GATE": "sigmoid" in wanted,
        "TANH_ALL": "tanh" in wanted,
        "SIGMOID_ALL": "sigmoid" in wanted,
    }
    floats = select(template("edge_rnn_step.c"), features) if wanted else ""
    copy = _COPY if model.detector is not None else ""
    return _NetworkText(features, floats, text.code, copy, text.weight_bytes, text.constant_bytes)


# ---- the network ---------------------------------------------------------------------------------


def _features(model: Model, *, fused: bool) -> dict[str, bool]:
    cells = {layer.cell for layer in model.layers}
    activations = {linear.activation for linear in model.head}
    gated = bool(cells & {"lstm", "gru"}) or "sigmoid" in activations
    dense = [r.hidden_size for r in model.layers if r.w_hr is not None] + [h.input_size for h in model.head]
    tanh_all = "rnn_tanh" in cells or "tanh" in activations
    return {
        **_NO_DETECTOR,
        "FUSED": fused,
        "TANH": gated or tanh_all,
        "GATE": gated,
        "RELU": "rnn_relu" in cells or "relu" in activations,
        "TANH_ALL": tanh_all,
        "SIGMOID_ALL": "sigmoid" in activations,
        "SOFTMAX": "softmax" in activations,
        "DENSE16": fused and any(n % 16 == 0 for n in dense),
        "DENSE": any(n % 16 or not fused for n in dense),
        "SUMS": (fused and any(n % 16 for n in dense)) or "softmax" in activations,
        "RNN": bool(cells & {"rnn_tanh", "rnn_relu"}),
        "LSTM": "lstm" in cells,
        "GRU": "gru" in cells,
        # A core without the instruction computes floats in software.
        "CHAINS": not fused,
    }


def _stages(model: Model, *, fused: bool) -> tuple[list[_Stage], int, int]:
    """The calls of one step; the numbers of scratch for a layer, and for inner outputs of the head."""
    packed = pack(model, 1)
    plan = [int(v) for v in packed.plan]
    stages: list[_Stage] = []
    source, rows, scratch, work = "x", model.input_size, 0, 0

    def dense(key: str, start: int, n_x: int, n_y: int) -> tuple[tuple[str, Float32], ...]:
        bias = packed.weights[start : start + n_y]
        table = packed.weights[start + padded(n_y) :][: n_y * padded(n_x)].reshape(n_y, padded(n_x))
        return ((f"{key}_bias", bias), (f"{key}_rows", table[:, :n_x].ravel()))

    for i, layer in enumerate(model.layers):
        record = plan[p.HEADER + i * p.LAYER : p.HEADER + (i + 1) * p.LAYER]
        hidden, out = layer.hidden_size, layer.output_size
        gates = {"lstm": 4, "gru": 3}.get(layer.cell, 1)
        size = hidden * (gates * (rows + out) + (4 if layer.cell == "gru" else gates))
        weights = packed.weights[record[p.WEIGHTS] : record[p.WEIGHTS] + size]
        constants: tuple[tuple[str, Float32], ...] = ((f"layer{i}", weights),)
        scratch = max(scratch, hidden)
        old, new = (f"s->h{i}", "scratch") if layer.w_hr is not None else ("scratch", f"s->h{i}")
        lines = [] if layer.w_hr is not None else [f"ern_copy(s->h{i}, scratch, {out});"]
        head = f"(ern_layer{i}, {source}, {rows}, {old}, {out}"
        if layer.cell == "lstm":
            lines.append(f"ern_lstm{head}, s->c{i}, {new}, {hidden});")
        elif layer.cell == "gru":
            lines.append(f"ern_gru{head}, {new});")
        else:
            lines += [f"ern_rnn{head}, {new});", f"ern_{layer.cell[4:]}_all({new}, {out});"]
        if layer.w_hr is not None:
            key, call = f"projection{i}", _dense(hidden, fused=fused)
            constants += dense(key, record[p.PROJECTION], hidden, out)
            lines.append(f"{call}(ern_{key}_bias, ern_{key}_rows, scratch, {hidden}, {out}, s->h{i});")
        stages.append(_Stage(tuple(lines), constants))
        source, rows = f"s->h{i}", out
    start = p.HEADER + len(model.layers) * p.LAYER
    for i, linear in enumerate(model.head):
        record = plan[start + i * p.LINEAR : start + (i + 1) * p.LINEAR]
        columns, last = linear.output_size, i + 1 == len(model.head)
        target = "y" if last else f"work{i % 2}"
        work = work if last else max(work, columns)
        call = _dense(rows, fused=fused)
        lines = [f"{call}(ern_head{i}_bias, ern_head{i}_rows, {source}, {rows}, {columns}, {target});"]
        if linear.activation == "softmax":
            lines.append(f"ern_softmax({target}, {columns});")
        elif linear.activation != "none":
            lines.append(f"ern_{linear.activation}_all({target}, {columns});")
        stages.append(_Stage(tuple(lines), dense(f"head{i}", record[p.DENSE], rows, columns)))
        source, rows = target, columns
    if not model.head:
        stages.append(_Stage((f"ern_copy({source}, y, {rows});",)))
    return stages, scratch, work


def _dense(n_x: int, *, fused: bool) -> str:
    return "ern_dense16" if fused and n_x % 16 == 0 else "ern_dense"


_COPY = """\
static void ern_copy(const float *from, float *to, int32_t n)
{
    int32_t k;

    for (k = 0; k < n; k++) {
        to[k] = from[k];
    }
}

"""


def _network(stages: Sequence[_Stage], scratch: int, work: int, *, detector: bool) -> str:
    lines = [line for stage in stages for line in stage.lines]
    local = [f"    float scratch[{scratch}];"]
    local += [
        f"    float {name}[{work}];" for name in ("work0", "work1") if any(name in line for line in lines)
    ]
    body = "\n".join(["", *(f"    {line}" for line in lines)])
    declared = "\n".join(local)
    copies = detector or any("ern_copy" in line for line in lines)
    return f"""\
{_COPY if copies else ""}/* One step in model space: x must be finite. */
static void ern_network(ern_state *s, const float *x, float *y)
{{
{declared}
{body}
}}
"""


def _preamble(name: str, fused: bool, *, detector: bool, integers: bool) -> str:
    verdict = "typedef char ern_size_of_verdict[(sizeof(ern_verdict) == ERN_VERDICT_BYTES) ? 1 : -1];\n"
    verdict = verdict if detector else ""
    fma = """
#if !defined(__FP_FAST_FMAF) && !defined(__FMA__) && !defined(__ARM_FEATURE_FMA) && \\
    !defined(__aarch64__) && !defined(__riscv_flen)
#error "made for a core with fused multiply-add: choose its compiler flags, or export for another target"
#endif
""" if fused else ""  # fmt: skip
    numeric = "Numeric class " + (
        "F: a multiply-add is rounded once" if fused else "U: a product and a sum are rounded each"
    )
    numeric = "Format w8a16: int8 weights, int16 activations" if integers else numeric
    return f"""\
/* {name}: the code and the weights; see {name}.h.
 *
 * {numeric}. Nothing here allocates, prints, calls
 * libm or keeps anything that changes: all of it is in the caller's {name}_state. */

#include "{name}.h"

#include <float.h>

/* Equal bits need IEEE arithmetic as it is written. */
#if defined(__FAST_MATH__)
#error "compile without -ffast-math"
#endif
#if defined(FLT_EVAL_METHOD) && (FLT_EVAL_METHOD != 0)
#error "float and double must be computed in their own precision; on 32-bit x86: -msse2 -mfpmath=sse"
#endif
{fma}
/* The compiler must not fuse a product and a sum by itself; -ffp-contract=off says so for the whole
 * program, this says so for this file, and ern_arithmetic checks it when it runs. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
/* Short copies stay loops, so that no C library is needed. */
#pragma GCC optimize("no-tree-loop-distribute-patterns")
/* Moving loads far ahead costs more registers than there are, and so stack. */
#pragma GCC optimize("no-schedule-insns")
#endif

typedef char ern_size_of_float[((sizeof(float) == 4u) && (FLT_MANT_DIG == 24)) ? 1 : -1];
typedef char ern_size_of_double[((sizeof(double) == 8u) && (DBL_MANT_DIG == 53)) ? 1 : -1];
typedef char ern_size_of_state[(sizeof(ern_state) == ERN_STATE_BYTES) ? 1 : -1];
{verdict}"""


def _resets(members: Sequence[Field], rest: np.ndarray, initial: np.ndarray | None, *, detector: bool) -> str:
    """Constants and functions that bring the state to its beginnings."""
    network = [f for f in members if f.kind in _NETWORK_KINDS]
    text = ""

    def value(field: Field, record: np.ndarray) -> np.ndarray:
        return np.ravel(record[field.name][0])

    def assign(field: Field, record: np.ndarray, prefix: str) -> tuple[str, list[str]]:
        """A constant array where the numbers are not all the same, and the lines that set the field."""
        numbers = value(field, record)
        literal = {"float": float32, "double": float64}.get(
            field.kind, lambda v: _integer(field.kind, int(v))
        )
        index = f"s->{field.name}"
        if not field.shape:
            return "", [f"    {index} = {literal(numbers[0])};"]
        if len(field.shape) == 2:
            index += "[0]"
        same = len({v.tobytes() for v in numbers}) == 1
        constant = (
            "" if same else array(field.kind, f"ern_{prefix}_{field.name}", [literal(v) for v in numbers])
        )
        right = literal(numbers[0]) if same else f"ern_{prefix}_{field.name}[k]"
        if len(field.shape) == 2:
            rows, columns = field.shape
            place = f"s->{field.name}[k / {columns}][k % {columns}]"
            return constant, [
                f"    for (k = 0; k < {rows * columns}; k++) {{",
                f"        {place} = {right};",
                "    }",
            ]
        count = field.shape[0]
        return constant, [f"    for (k = 0; k < {count}; k++) {{", f"        {index}[k] = {right};", "    }"]

    def function(head: str, chosen: Sequence[Field], record: np.ndarray, prefix: str) -> str:
        pairs = [assign(f, record, prefix) for f in chosen]
        body = "\n".join(line for _, lines in pairs for line in lines)
        counter = "    int32_t k;\n\n" if "(k = 0" in body else ""
        return "".join(constant for constant, _ in pairs) + f"{head}\n{{\n{counter}{body}\n}}\n"

    rest_head = "static void ern_rest_network(ern_state *s)" if detector else "void ern_reset(ern_state *s)"
    text += function(rest_head, network, rest, "rest")
    others = [f for f in members if f.kind not in _NETWORK_KINDS]
    if detector:
        head = "void ern_reset(ern_state *s)"
        text += "\n" + function(head, others, rest, "fresh").replace(
            "\n}\n", "\n    ern_rest_network(s);\n}\n"
        )
    if initial is None:
        text += "\nvoid ern_init(ern_state *s)\n{\n    ern_reset(s);\n}\n"
    else:
        text += "\n" + function("void ern_init(ern_state *s)", members, initial, "initial")
    return text


# Kinds of which only the network has numbers.
_NETWORK_KINDS = ("float", "int16_t", "int32_t")


def _integer(kind: str, value: int) -> str:
    if kind in _NETWORK_KINDS:
        return str(value)
    if kind == "int64_t":
        return "INT64_MIN" if value == -(2**63) else f"INT64_C({value})"
    if kind == "uint64_t":
        return f"UINT64_C({value})"
    return f"{value}u"


# ---- the detector --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _DetectorText:
    """The constants of the detector, and which parts of its template it needs."""

    constants: str
    features: dict[str, bool]
    table_bytes: int

    @classmethod
    def of(cls, model: Model) -> _DetectorText:
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
            (rules.silent, "SILENT_AFTER_NS", _integer("int64_t", g.silent_after_ns)),
            (rules.gap_reset, "GAP_NS", _integer("int64_t", g.gap_ns)),
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


# ---- header and interface ------------------------------------------------------------------------


def _header(
    model: Model,
    members: Sequence[Field],
    notes: str,
    state_bytes: int,
    quantized: Quantized | None,
    *,
    initial: bool,
) -> str:
    c, o, spec = model.input_size, model.output_size, model.detector
    channels = "\n".join(
        f" *   {k}  {_plain(i.name)}{f' [{_plain(i.unit)}]' if i.unit else ''}"
        for k, i in enumerate(model.inputs)
    )
    cells = ", ".join(f"{r.cell} {r.input_size}->{r.output_size}" for r in model.layers)
    head = "".join(f", linear {h.input_size}->{h.output_size} {h.activation}" for h in model.head)
    start = "the state it was exported with" if initial else "the resting state, nothing seen"
    integers = "" if quantized is None else f", in integers (w8a16) {quantized.digest[:16]}"
    late = "#define ERN_ERROR_TIME (-2)  /* not later than the last sample; nothing was changed */"
    text = f"""\
/* {_plain(model.name)}: {cells}{head}
 * Made by edge-rnn {__version__}; weights {weights_digest(model)[:16]}{integers}. Do not edit.
 *
 * Inputs, in this order:
{channels}
{notes} */
#ifndef ERN_H
#define ERN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define ERN_INPUTS {c}
#define ERN_OUTPUTS {o}
#define ERN_STATE_BYTES {state_bytes}u

/* What a call returns. */
#define ERN_OK 0
#define ERN_ERROR_INPUT (-1) /* an input is not finite; nothing was changed */
{late if spec else ""}

/* One stream: the caller's, wherever it likes; plain bytes, valid after ern_init. */
typedef struct {{
{chr(10).join(f.declaration() for f in members)}
}} ern_state;

/* Begin: {start}. */
void ern_init(ern_state *s);

/* Forget everything: back to the resting state, nothing seen. */
void ern_reset(ern_state *s);

/* One step of the network in model space: x[ERN_INPUTS] scaled, y[ERN_OUTPUTS]. */
int ern_step(ern_state *s, const float x[ERN_INPUTS], float y[ERN_OUTPUTS]);

/* 1 if this build computes as the model needs it, 0 if the compiler fused what it must not. */
int ern_arithmetic(void);
"""
    if spec is not None:
        text += _detector_header(c, spec.guard.silent_after_ns > 0, spec.kind)
    return text.replace("*/\n\n\n", "*/\n\n") + "\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n"


def _detector_header(channels: int, silent: bool, kind: str) -> str:
    size = verdict_dtype(channels).itemsize
    spare = size - (35 + 25 * channels)
    filler = (
        f"    uint8_t filler[{spare}];           /* to the same size under every ABI */\n" if spare else ""
    )
    statuses = "\n".join(f"#define ERN_{w.upper()} {k}u" for k, w in enumerate(STATUSES))
    faults = "\n".join(
        f"#define ERN_{'NO_FAULT' if w == 'none' else w.upper().replace('-', '_')} {k}u"
        for k, w in enumerate(FAULT_KINDS)
    )
    said = "what the network had expected" if kind == "forecast" else "what the network makes of it"
    text = f"""
/* Status of a verdict. */
{statuses}

/* Fault of a channel. */
{faults}

#define ERN_VERDICT_BYTES {size}u

/* The answer to one sample; numbers that do not exist are NaN. */
typedef struct {{
    int64_t time_ns;
    int64_t step;                /* count of samples, from 1 */
    double score;                /* too high where score > threshold */
    double threshold;
    double share[ERN_INPUTS];    /* each channel's part of the score, sums to 1 */
    double residual[ERN_INPUTS]; /* reading minus expected, in the reading's unit */
    double expected[ERN_INPUTS]; /* {said}, in the reading's unit */
    uint8_t fault[ERN_INPUTS];
    uint8_t status;
    uint8_t alarm;               /* 1: on */
    uint8_t accepted;            /* 1: a lasting new level was taken as normal */
{filler}}} ern_verdict;

/* One sample of raw readings x[ERN_INPUTS], NaN allowed, at a time in nanoseconds that rises from call to
 * call. Bit i of present_mask: channel i has a new reading in x[i]. */
int ern_detect(ern_state *s, int64_t time_ns, const double x[ERN_INPUTS], uint64_t present_mask,
               ern_verdict *verdict);

/* The same where x[i] may also be an old reading held (bit i of held_mask): judged, but no news. */
int ern_detect_held(ern_state *s, int64_t time_ns, const double x[ERN_INPUTS], uint64_t present_mask,
                    uint64_t held_mask, ern_verdict *verdict);
"""
    if silent:
        text += """
/* 1 if the whole stream counts as silent at now_ns; ask from a timer, no sample will tell. */
int ern_silent(const ern_state *s, int64_t now_ns);
"""
    return text


_ARITHMETIC = {
    False: """\
int ern_arithmetic(void)
{
    /* (1 + e)^2 - (1 + 2e) is 0 where the product is rounded first, e^2 where it is not. */
    const volatile float one_and = 0x1.0008p+0f;
    const volatile float minus = -0x1.001p+0f;
    const float a = one_and;
    const float b = minus;

    return (((a * a) + b) == 0.0f) ? 1 : 0;
}
""",
    True: """\
int ern_arithmetic(void)
{
    /* (1 + e)^2 - (1 + 2e) is 0 where the product is rounded first, e^2 where it is not. */
    const volatile float one_and = 0x1.0008p+0f;
    const volatile float minus = -0x1.001p+0f;
    const volatile double wide_one_and = 0x1.0000001p+0;
    const volatile double wide_minus = -0x1.0000002p+0;
    const float a = one_and;
    const float b = minus;
    const double c = wide_one_and;
    const double d = wide_minus;

    return ((((a * a) + b) == 0.0f) && (((c * c) + d) == 0.0)) ? 1 : 0;
}
""",
}


def _interface(model: Model) -> str:
    """The functions of the header that the templates do not hold."""
    to_state = model.detector is not None
    call = "    ern_network(s, x, s->y);\n    ern_copy(s->y, y, ERN_OUTPUTS);\n" if to_state else (
        "    ern_network(s, x, y);\n"
    )  # fmt: skip
    text = f"""\
int ern_step(ern_state *s, const float x[ERN_INPUTS], float y[ERN_OUTPUTS])
{{
    int32_t k;

    for (k = 0; k < ERN_INPUTS; k++) {{
        if ((x[k] - x[k]) != 0.0f) {{
            return ERN_ERROR_INPUT;
        }}
    }}
{call}    return ERN_OK;
}}

{_ARITHMETIC[to_state]}"""
    if model.detector is not None and model.detector.guard.silent_after_ns > 0:
        text += """
int ern_silent(const ern_state *s, int64_t now_ns)
{
    return (s->steps > 0) && (now_ns > s->time_ns) && (ern_elapsed(s->time_ns, now_ns) > ERN_SILENT_AFTER_NS);
}
"""
    return text


def _plain(text: str) -> str:
    """Text that cannot end a comment nor leave its line."""
    kept = "".join(ch if ch.isprintable() else "?" for ch in text)
    return kept.replace("\\", "|").replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?")
