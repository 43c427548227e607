"""The network's part of an export in integers (w8a16): constants, and the calls of one step.

The arithmetic is in `runtime/edge_rnn_integer.c`; its formulas, and its integers,
are those of `edge_rnn.core.integers`. Written here is what depends on the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.integers import IntegerLayer, Quantized, tanh_table
from edge_rnn.core.model import Activation
from firmware_export.c_text import array, float32, floats32, select, template


@dataclass(frozen=True, slots=True)
class IntegerText:
    """code: table, arithmetic and constants, ending in `ern_network`; activations: what the head needs of the
    float template; weight_bytes: int8 weights; constant_bytes: all other constants."""

    code: str
    activations: frozenset[Activation]
    weight_bytes: int
    constant_bytes: int


def network_fields(quantized: Quantized) -> list[tuple[str, str, int]]:
    """C type, name and size of the network's state: h int16 (a gru's int32), c int32; the wide ones first."""
    found: list[tuple[str, str, int]] = []
    for i, layer in enumerate(quantized.layers):
        if layer.cell == "lstm":
            found.append(("int32_t", f"c{i}", layer.hidden_size))
        found.append(("int32_t" if layer.cell == "gru" else "int16_t", f"h{i}", layer.output_size))
    return sorted(found, key=lambda f: f[0] != "int32_t")


def integer_network(quantized: Quantized) -> IntegerText:
    """The text of `quantized`'s network."""
    model = quantized.model
    layers, head = quantized.layers, quantized.head
    cells = {layer.cell for layer in layers}
    gated = bool(cells & {"lstm", "gru"})
    projected = any(layer.w_r is not None for layer in layers)
    features = {
        "TABLE": gated or "rnn_tanh" in cells,
        "GATES": gated,
        "LIMITED": gated or "rnn_relu" in cells,
        "INTEGER_TANH": "rnn_tanh" in cells,
        "INTEGER_RELU": "rnn_relu" in cells,
        "INTEGER_LSTM": "lstm" in cells,
        "INTEGER_GRU": "gru" in cells,
        "INTEGER_PROJECTION": projected,
        "INTEGER_COPY": any(layer.cell != "gru" and layer.w_r is None for layer in layers),
        "INTEGER_HEAD": head is not None,
        "INTEGER_OUT": head is None,
        "INTEGER_RECTIFY": head is not None and head.activation == "relu",
    }
    constants = [array("float", "ern_input_scale", floats32(quantized.input_scale))]
    constant_bytes = 4 * len(quantized.input_scale)
    if features["TABLE"]:
        constant_bytes += 2 * len(tanh_table())
    lines = [
        f"for (k = 0; k < {model.input_size}; k++) {{",
        "    xq[k] = ern_input(x[k], ern_input_scale[k]);",
        "}",
    ]
    source, weight_bytes = "xq", 0
    for i, layer in enumerate(layers):
        constants += _constants(i, layer)
        weight_bytes += layer.w_x.size + layer.w_h.size
        constant_bytes += 4 * (layer.m_x.size + layer.m_h.size + layer.bias.size)
        out = layer.output_size
        if layer.cell == "gru":
            lines += [
                f"ern_integer_read(s->h{i}, old, {out});",
                f"ern_integer_gru(&ern_rows{i}, {source}, old, s->h{i});",
                f"ern_integer_read(s->h{i}, signal, {out});",
            ]
            source = "signal"
            continue
        if layer.w_r is not None and layer.m_r is not None:
            weight_bytes += layer.w_r.size
            constant_bytes += 4 * layer.m_r.size
            constants_r = f"ern_w_r{i}, ern_m_r{i}, {layer.shift_r}"
            lines += [
                f"ern_integer_lstm(&ern_rows{i}, {source}, s->h{i}, s->c{i}, inner);",
                f"ern_integer_projection({constants_r}, inner, {layer.hidden_size}, s->h{i}, {out});",
            ]
        else:
            kind = layer.cell.removeprefix("rnn_")
            cell = f"s->c{i}, " if kind == "lstm" else ""
            lines += [
                f"ern_integer_copy(s->h{i}, old, {out});",
                f"ern_integer_{kind}(&ern_rows{i}, {source}, old, {cell}s->h{i});",
            ]
        source = f"s->h{i}"
    inputs, outputs = layers[-1].output_size, model.output_size
    if head is not None:
        weight_bytes += head.weight.size
        constant_bytes += 8 * len(head.scale)
        constants += [
            array("int8_t", "ern_head_w", _whole(head.weight)),
            array("float", "ern_head_scale", floats32(head.scale)),
            array("float", "ern_head_bias", floats32(head.bias)),
        ]
        lines.append(
            f"ern_integer_head(ern_head_w, ern_head_scale, ern_head_bias, {source}, {inputs}, y, {outputs});"
        )
        if head.activation == "relu":
            lines.append(f"ern_integer_rectify(y, {outputs});")
        elif head.activation != "none":
            lines.append(f"ern_{head.activation}_all(y, {outputs});")
    else:
        lines.append(f"ern_integer_out({source}, {float32(layers[-1].h_scale)}, y, {outputs});")
    table = array("int16_t", "ern_table", _whole(tanh_table())) if features["TABLE"] else ""
    text = [table, select(template("edge_rnn_integer.c"), features), *constants, _step(quantized, lines)]
    activation: Activation = "none" if head is None else head.activation
    return IntegerText(
        "\n".join(part for part in text if part),
        frozenset({activation} - {"none", "relu"}),
        weight_bytes,
        constant_bytes,
    )


def _whole(values: NDArray[np.integer]) -> list[str]:
    return [str(int(v)) for v in values.ravel()]


def _constants(i: int, layer: IntegerLayer) -> list[str]:
    """The arrays of one layer, and the struct that names them."""
    parts: list[tuple[str, str, NDArray[np.integer] | None]] = [
        ("int8_t", "w_x", layer.w_x), ("int8_t", "w_h", layer.w_h), ("int32_t", "m_x", layer.m_x),
        ("int32_t", "m_h", layer.m_h), ("int32_t", "bias", layer.bias), ("int8_t", "w_r", layer.w_r),
        ("int32_t", "m_r", layer.m_r),
    ]  # fmt: skip
    names = ", ".join(f"ern_{key}{i}" for _, key, _ in parts[:5])
    sizes = f"{layer.input_size}, {layer.output_size}, {layer.hidden_size}, {layer.shift}"
    return [
        *(array(kind, f"ern_{key}{i}", _whole(values)) for kind, key, values in parts if values is not None),
        f"static const ern_rows ern_rows{i} = {{{names}, {sizes}}};\n",
    ]


def _step(quantized: Quantized, lines: Sequence[str]) -> str:
    layers = quantized.layers
    local = [f"    int16_t xq[{quantized.model.input_size}];"]
    for name, size in (
        ("old", max(layer.output_size for layer in layers)),
        ("inner", max(layer.hidden_size for layer in layers)),
        ("signal", max(layer.output_size for layer in layers)),
    ):
        if any(f"{name}," in line for line in lines):
            local.append(f"    int16_t {name}[{size}];")
    body = "\n".join(f"    {line}" for line in lines)
    declared = "\n".join(local)
    return f"""\
/* One step in model space: x must be finite. */
static void ern_network(ern_state *s, const float *x, float *y)
{{
{declared}
    int32_t k;

{body}
}}
"""
