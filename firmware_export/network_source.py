"""The network's part of the code: constants, the stages of one step, and `ern_network`.

The arithmetic is in `runtime/edge_rnn_step.c`, or in `integer_source` for w8a16. Weights are those of
`edge_rnn.core.pack` for one lane without the padding of a Linear's rows; that padding only ever adds +0, and
the template's sum does so without storing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_rnn.core import fields as p
from edge_rnn.core.layout import padded
from edge_rnn.core.model import Float32, Model
from edge_rnn.core.pack import pack
from firmware_export.c_text import array, floats32, select, template
from firmware_export.integer_source import IntegerText

_NO_DETECTOR = dict.fromkeys(
    (
        "RESIDUAL", "COUNTS", "DRIFT", "MAX_MISSING", "MAX_FREEZE", "LOCAL_MEAN", "STATEFUL_GUARD", "SILENT",
        "CHANNEL_LIMITS", "VALUE_LIMITS",
        "STUCK", "RANGE", "PREDICT", "MEWMA", "EWMA_Z", "SUM", "FORECAST", "GAP_RESET",
    ),
    False,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class NetworkText:
    """The network's part: features of the templates, functions, constants, and `ern_network`."""

    features: dict[str, bool]
    arithmetic: str
    constants: str
    step: str
    weight_bytes: int
    table_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Stage:
    """One call in the network's step: its lines, and the constants it reads by name."""

    lines: tuple[str, ...]
    constants: tuple[tuple[str, Float32], ...] = ()


def float_part(model: Model, fused: bool) -> NetworkText:
    """The network in float32; `fused`: class F."""
    stages, scratch, work = _stages(model, fused=fused)
    constants = [pair for stage in stages for pair in stage.constants]
    features = _features(model, fused=fused)
    return NetworkText(
        features,
        select(template("edge_rnn_step.c"), features),
        "\n".join(array("float", f"ern_{key}", floats32(values)) for key, values in constants),
        _network(stages, scratch, work, detector=model.detector is not None),
        sum(values.nbytes for _, values in constants),
    )


def integer_part(model: Model, text: IntegerText) -> NetworkText:
    """The network in integers. Activations of the head are those of the float template in class U."""
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
    return NetworkText(features, floats, text.code, copy, text.weight_bytes, text.constant_bytes)


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
