"""The same equations in float64 NumPy: the readable specification, and the tests' oracle.

PyTorch's definitions (torch.nn.LSTM, GRU, RNN, Linear), one step at a time, no batch:

    LSTM   i f g o = sigmoid, sigmoid, tanh, sigmoid of (W_ih x + b_ih + W_hh h + b_hh)
           c' = f c + i g,   h' = o tanh(c'),   with a projection  h' = W_hr (o tanh(c'))
    GRU    r z = sigmoid of (W_ih x + b_ih + W_hh h + b_hh),   n = tanh(W_in x + b_in + r (W_hn h + b_hn))
           h' = (1 - z) n + z h
    RNN    h' = tanh or relu of (W_ih x + b_ih + W_hh h + b_hh)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from edge_rnn.core.model import Activation, Float32, Float64, Model, Recurrent

Gates = dict[str, Float64]


def sigmoid(x: Float64) -> Float64:
    """1 / (1 + exp(-x)), without overflow."""
    result: Float64 = 0.5 + 0.5 * np.tanh(0.5 * x)
    return result


def activate(x: Float64, activation: Activation) -> Float64:
    """A head layer's activation."""
    if activation == "relu":
        return np.where(x < 0, 0.0, x)
    if activation == "tanh":
        bounded: Float64 = np.tanh(x)
        return bounded
    if activation == "sigmoid":
        return sigmoid(x)
    if activation == "softmax":
        e = np.exp(x - x.max())
        share: Float64 = e / e.sum()
        return share
    return x


def _matrix(value: Float32 | None, size: int) -> Float64:
    return np.zeros(size) if value is None else value.astype(np.float64)


class _Layer:
    """One recurrent layer with float64 weights and its state."""

    def __init__(self, layer: Recurrent) -> None:
        self.cell = layer.cell
        self.w_ih, self.w_hh = layer.w_ih.astype(np.float64), layer.w_hh.astype(np.float64)
        self.b_ih = _matrix(layer.b_ih, len(layer.w_ih))
        self.b_hh = _matrix(layer.b_hh, len(layer.w_ih))
        self.w_hr = None if layer.w_hr is None else layer.w_hr.astype(np.float64)
        self.h = np.zeros(layer.output_size)
        self.c = np.zeros(layer.hidden_size)

    def step(self, x: Float64) -> Gates:
        """Step h and c; the gate activations of this step."""
        from_x, from_h = self.w_ih @ x + self.b_ih, self.w_hh @ self.h + self.b_hh
        if self.cell == "gru":
            rx, zx, nx = np.split(from_x, 3)
            rh, zh, nh = np.split(from_h, 3)
            r, z = sigmoid(rx + rh), sigmoid(zx + zh)
            n = np.tanh(nx + r * nh)
            self.h = (1 - z) * n + z * self.h
            return {"r": r, "z": z, "n": n}
        if self.cell == "lstm":
            i, f, g, o = np.split(from_x + from_h, 4)
            i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
            self.c = f * self.c + i * g
            h = o * np.tanh(self.c)
            self.h = h if self.w_hr is None else self.w_hr @ h
            return {"i": i, "f": f, "g": g, "o": o}
        z = from_x + from_h
        self.h = np.tanh(z) if self.cell == "rnn_tanh" else np.where(z < 0, 0.0, z)
        return {"h": self.h.copy()}


class Reference:
    """A model with its state in float64; starts at the model's rest_state, or zeros."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._layers = [_Layer(layer) for layer in model.layers]
        self._head = [
            (h.weight.astype(np.float64), _matrix(h.bias, h.output_size), h.activation) for h in model.head
        ]
        if model.rest_state is not None:
            self.set_state(model.rest_state.h, model.rest_state.c)

    def set_state(self, h: tuple[Float32 | Float64, ...], c: tuple[Float32 | Float64 | None, ...]) -> None:
        """Per layer h and, for an lstm, c."""
        for layer, new_h, new_c in zip(self._layers, h, c, strict=True):
            layer.h = np.array(new_h, np.float64)
            if new_c is not None:
                layer.c = np.array(new_c, np.float64)

    @property
    def h(self) -> list[Float64]:
        """Per layer h."""
        return [layer.h.copy() for layer in self._layers]

    @property
    def c(self) -> list[Float64 | None]:
        """Per layer c, None where the layer is no lstm."""
        return [layer.c.copy() if layer.cell == "lstm" else None for layer in self._layers]

    def gates(self, x: ArrayLike) -> list[Gates]:
        """Step the layers with x (I,); the gate activations of each."""
        signal = np.asarray(x, np.float64)
        result = []
        for layer in self._layers:
            result.append(layer.step(signal))
            signal = layer.h
        return result

    def step(self, x: ArrayLike) -> Float64:
        """One reading (I,) -> y (O,)."""
        self.gates(x)
        signal = self._layers[-1].h.copy()
        for weight, bias, activation in self._head:
            signal = activate(weight @ signal + bias, activation)
        return signal

    def run(self, xs: ArrayLike) -> Float64:
        """T readings (T, I) -> (T, O)."""
        rows = np.asarray(xs, np.float64)
        return np.array([self.step(x) for x in rows]).reshape(len(rows), self.model.output_size)
