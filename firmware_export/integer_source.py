"""The network's part of an export in integers (w8a16): constants, and the calls of one step.

The arithmetic is in `runtime/edge_rnn_integer.c`; its formulas, and its integers, are those of
`edge_rnn.core.integers`. Written here is what depends on the model.

**Packings.** Weights lie in the order in which the code reads them: unit by unit, first those of the inputs,
then those of h, in groups of columns, for each group those of every gate. Rows are filled up with zeros to
whole groups.

    plain    groups of 4
    narrow   the same, for cores that multiply 32 bits at most
    dsp      groups of 4 in the order 0, 2, 1, 3: SXTB16 takes bytes 0 and 2 of a word, then 1 and 3
    mve      groups of 8: one vector of 16-bit numbers

The code reads every packing on every core, at its own speed; the integers are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.integers import IntegerLayer, Quantized, tanh_table
from edge_rnn.core.model import Activation
from firmware_export.c_text import array, float32, floats32, select, template

Packing = Literal["plain", "narrow", "dsp", "mve"]


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


def integer_network(quantized: Quantized, packing: Packing = "plain") -> IntegerText:
    """The text of `quantized`'s network."""
    return _Writer(quantized, packing).text()


class _Writer:
    """Collects constants and lines of the step, layer by layer."""

    def __init__(self, quantized: Quantized, packing: Packing) -> None:
        self.quantized, self.packing = quantized, packing
        self.group = 8 if packing == "mve" else 4
        self.weight_bytes = self.constant_bytes = 0
        self.constants: list[str] = []
        self.lines: list[str] = []
        # int16 numbers a step needs besides the state.
        self.locals: dict[str, int] = {}

    def whole(self, size: int) -> int:
        """`size` in whole groups."""
        return -(-size // self.group) * self.group

    def local(self, name: str, size: int) -> str:
        """A local array of whole groups."""
        self.locals[name] = max(self.locals.get(name, 0), self.whole(size))
        return name

    def text(self) -> IntegerText:
        quantized, model = self.quantized, self.quantized.model
        head = quantized.head
        features = self._features()
        self._array("float", "ern_input_scale", floats32(quantized.input_scale), 4)
        if features["TABLE"]:
            self.constant_bytes += 2 * len(tanh_table())
        source = self.local("xq", model.input_size)
        inputs, whole = model.input_size, self.whole(model.input_size)
        self.lines += [
            f"for (k = 0; k < {inputs}; k++) {{",
            "    xq[k] = ern_input(x[k], ern_input_scale[k]);",
            "}",
        ]
        self.lines += [f"for (k = {inputs}; k < {whole}; k++) {{", "    xq[k] = 0;", "}"] * (whole > inputs)
        last = len(quantized.layers) - 1
        for i, layer in enumerate(quantized.layers):
            source = self._layer(i, layer, source, dense=i < last or head is not None)
        if head is None:
            unit = float32(quantized.layers[-1].h_scale)
            self.lines.append(f"ern_integer_out({source}, {unit}, y, {model.output_size});")
        else:
            self._weights("ern_head_w", _grouped(head.weight[:, None, :], self.packing, self.group))
            self._array("float", "ern_head_scale", floats32(head.scale), 4)
            self._array("float", "ern_head_bias", floats32(head.bias), 4)
            n = self.whole(quantized.layers[-1].output_size)
            self.lines.append(
                f"ern_integer_head(ern_head_w, ern_head_scale, ern_head_bias, {source}, {n}, y, "
                f"{model.output_size});"
            )
            if head.activation == "relu":
                self.lines.append(f"ern_integer_rectify(y, {model.output_size});")
            elif head.activation != "none":
                self.lines.append(f"ern_{head.activation}_all(y, {model.output_size});")
        features["INTEGER_COPY"] = any("ern_integer_copy" in line for line in self.lines)
        table = array("int16_t", "ern_table", _whole(tanh_table())) if features["TABLE"] else ""
        parts = [
            f"#define ERN_GROUP {self.group}\n", table, select(template("edge_rnn_integer.c"), features),
            *self.constants, self._step(),
        ]  # fmt: skip
        activation: Activation = "none" if head is None else head.activation
        return IntegerText(
            "\n".join(part for part in parts if part),
            frozenset({activation} - {"none", "relu"}),
            self.weight_bytes,
            self.constant_bytes,
        )

    def _features(self) -> dict[str, bool]:
        layers, head = self.quantized.layers, self.quantized.head
        cells = {layer.cell for layer in layers}
        gated = bool(cells & {"lstm", "gru"})
        plain = bool(cells & {"rnn_tanh", "rnn_relu"})
        projected = any(layer.w_r is not None for layer in layers)
        return {
            "DSP": self.packing == "dsp",
            "MVE": self.packing == "mve",
            "NARROW": self.packing == "narrow",
            "TABLE": gated or "rnn_tanh" in cells,
            "GATES": gated,
            "LIMITED": "rnn_relu" in cells,
            "DOT1": plain or projected or head is not None,
            "DOT1_CELL": plain,
            "DOT3": "gru" in cells,
            "DOT4": "lstm" in cells,
            "INTEGER_ROWS": True,
            "INTEGER_TANH": "rnn_tanh" in cells,
            "INTEGER_RELU": "rnn_relu" in cells,
            "INTEGER_LSTM": "lstm" in cells,
            "INTEGER_GRU": "gru" in cells,
            "INTEGER_PROJECTION": projected,
            "INTEGER_HEAD": head is not None,
            "INTEGER_OUT": head is None,
            "INTEGER_RECTIFY": head is not None and head.activation == "relu",
        }

    def _layer(self, i: int, layer: IntegerLayer, source: str, *, dense: bool) -> str:
        """The lines and constants of layer `i`; where its output can be read, in whole groups if `dense`."""
        self._constants(i, layer)
        out, whole = layer.output_size, self.whole(layer.output_size)
        if layer.cell == "gru":
            # The layer below may still be read from one of two.
            old, new = self.local("old", out), self.local("other" if source == "signal" else "signal", out)
            self.lines += [
                f"ern_integer_read(s->h{i}, {old}, {out}, {whole});",
                f"ern_integer_gru(&ern_layer{i}, ern_b_h{i}, {source}, {old}, s->h{i}, {new});",
            ]
            if whole > out:
                self.lines += [f"for (k = {out}; k < {whole}; k++) {{", f"    {new}[k] = 0;", "}"]
            return new
        if layer.w_r is not None:
            inner, units = self.local("inner", layer.hidden_size), self.whole(layer.hidden_size)
            old = f"s->h{i}"
            if whole > out:
                old = self.local("old", out)
                self.lines.append(f"ern_integer_copy(s->h{i}, {old}, {out}, {whole});")
            self.lines.append(f"ern_integer_lstm(&ern_layer{i}, {source}, {old}, s->c{i}, {inner});")
            if units > layer.hidden_size:
                self.lines += [
                    f"for (k = {layer.hidden_size}; k < {units}; k++) {{",
                    "    inner[k] = 0;",
                    "}",
                ]
            shift = f"ern_w_r{i}, ern_m_r{i}, {layer.shift_r}"
            self.lines.append(f"ern_integer_projection({shift}, {inner}, {units}, s->h{i}, {out});")
        else:
            old = self.local("old", out)
            kind = layer.cell.removeprefix("rnn_")
            cell = f"s->c{i}, " if kind == "lstm" else ""
            self.lines += [
                f"ern_integer_copy(s->h{i}, {old}, {out}, {whole});",
                f"ern_integer_{kind}(&ern_layer{i}, {source}, {old}, {cell}s->h{i});",
            ]
        if not dense or whole == out:
            return f"s->h{i}"
        signal = self.local("signal", out)
        self.lines.append(f"ern_integer_copy(s->h{i}, {signal}, {out}, {whole});")
        return signal

    def _constants(self, i: int, layer: IntegerLayer) -> None:
        units, rows = layer.hidden_size, len(layer.w_x)
        gates = rows // units
        parts = [
            _grouped(_by_unit(weights, units), self.packing, self.group) for weights in (layer.w_x, layer.w_h)
        ]
        self._weights(f"ern_w{i}", np.concatenate([p.reshape(units, -1) for p in parts], axis=1))
        m_x, m_h, bias = (
            v[:rows].reshape(gates, units).T.ravel() for v in (layer.m_x, layer.m_h, layer.bias)
        )
        listed = [f"{{{a}, {b}, {c}}}" for a, b, c in zip(m_x, m_h, bias, strict=True)]
        self._array("ern_row", f"ern_rows{i}", listed, 8)
        if layer.cell == "gru":
            self._array("int32_t", f"ern_b_h{i}", _whole(layer.bias[rows:]), 4)
        if layer.w_r is not None and layer.m_r is not None:
            self._weights(f"ern_w_r{i}", _grouped(layer.w_r[:, None, :], self.packing, self.group))
            self._array("int16_t", f"ern_m_r{i}", _whole(layer.m_r), 2)
        sizes = [self.whole(layer.input_size), self.whole(layer.output_size), units, layer.bits]
        self.constants.append(
            f"static const ern_layer ern_layer{i} = "
            f"{{ern_w{i}, ern_rows{i}, {', '.join(map(str, sizes))}}};\n"
        )

    def _weights(self, name: str, values: NDArray[np.int8]) -> None:
        self.weight_bytes += values.size
        aligned = "ERN_ALIGNED " if self.packing == "dsp" else ""
        self.constants.append(array(f"{aligned}int8_t", name, _whole(values)))

    def _array(self, kind: str, name: str, literals: Sequence[str], width: int) -> None:
        self.constant_bytes += width * len(literals)
        self.constants.append(array(kind, name, literals))

    def _step(self) -> str:
        declared = "\n".join(f"    int16_t {name}[{size}];" for name, size in self.locals.items())
        body = "\n".join(f"    {line}" for line in self.lines)
        return f"""\
/* One step in model space: x must be finite. */
static void ern_network(ern_state *s, const float *x, float *y)
{{
{declared}
    int32_t k;

{body}
}}
"""


def _by_unit(weights: NDArray[np.int8], units: int) -> NDArray[np.int8]:
    """Rows (G*H, K), gate by gate -> (H, G, K)."""
    return weights.reshape(-1, units, weights.shape[1]).transpose(1, 0, 2)


def _grouped(weights: NDArray[np.int8], packing: Packing, group: int) -> NDArray[np.int8]:
    """Weights (U, G, K) in the order they are read: per unit (U, groups, G, group)."""
    units, gates, columns = weights.shape
    groups = -(-columns // group)
    filled = np.zeros((units, gates, groups * group), np.int8)
    filled[:, :, :columns] = weights
    ordered = filled.reshape(units, gates, groups, group).transpose(0, 2, 1, 3)
    return ordered[..., [0, 2, 1, 3]] if packing == "dsp" else ordered


def _whole(values: NDArray[np.integer]) -> list[str]:
    return [str(int(v)) for v in values.ravel()]
