"""What a model is: frozen values, checked here and nowhere else.

A `Model` is a stack of recurrent layers, a head of linear layers and what is known about its
inputs. Weights have PyTorch's shapes and gate order (LSTM i f g o, GRU r z n), so a tensor can be
compared with its origin at any time; `pack.py` brings them into the kernels' order.

Letters used everywhere: I inputs, H hidden units, P projected units (an LSTM's `proj_size`),
O outputs, G gates of a cell (rnn 1, gru 3, lstm 4), L layers.

A step is one reading: there is no batch dimension and no `batch_first`; dropout does nothing after
training; a bidirectional layer cannot exist here because it needs the future.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_rnn.core.detector_spec import DetectorSpec
from edge_rnn.errors import ModelFileError

Cell = Literal["rnn_tanh", "rnn_relu", "lstm", "gru"]
Activation = Literal["none", "relu", "tanh", "sigmoid", "softmax"]
CELLS: tuple[Cell, ...] = get_args(Cell)
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
GATES: Mapping[Cell, int] = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def _tensor(value: ArrayLike, name: str, dimensions: int) -> Float32:
    """A read-only, C-contiguous, finite float32 copy of `value`, or a `ModelFileError`."""
    raw = np.asarray(value)
    if raw.dtype.kind not in "fiub":
        raise ModelFileError(f"{name}: expected numbers, got dtype {raw.dtype}")
    if raw.ndim != dimensions or raw.size == 0:
        raise ModelFileError(
            f"{name}: expected {dimensions} dimension(s), none of them 0, got shape {raw.shape}"
        )
    with np.errstate(over="ignore"):
        array = np.array(raw, dtype=np.float32, order="C")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ModelFileError(
            f"{name}: expected finite numbers, got {raw[where]} at index {where}; "
            "the training has diverged or the file is damaged"
        )
    array.setflags(write=False)
    return array


def _expect(name: str, array: Float32, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ModelFileError(f"{name}: expected shape {shape}, got {array.shape}")


@dataclass(frozen=True, slots=True, eq=False)
class Recurrent:
    """One recurrent layer in PyTorch's shapes and gate order; all tensors float32.

    Args:
        cell: rnn_tanh, rnn_relu, lstm or gru.
        w_ih: (G*H, I).
        w_hh: (G*H, H), or (G*H, P) where there is a projection.
        b_ih, b_hh: (G*H,) each, or both None.
        w_hr: (P, H), an LSTM's projection of h, or None.

    Raises:
        ModelFileError: a shape does not fit or a value is not finite.
    """

    cell: Cell
    w_ih: Float32
    w_hh: Float32
    b_ih: Float32 | None = None
    b_hh: Float32 | None = None
    w_hr: Float32 | None = None

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise ModelFileError(f"cell: expected one of {', '.join(CELLS)}, got {self.cell!r}")
        w_ih = _tensor(self.w_ih, "w_ih", 2)
        w_hh = _tensor(self.w_hh, "w_hh", 2)
        gates = GATES[self.cell]
        if w_ih.shape[0] % gates:
            raise ModelFileError(
                f"w_ih: {self.cell} has {gates} gates, so its rows must be a multiple of {gates}, "
                f"got {w_ih.shape[0]}"
            )
        rows = w_ih.shape[0]
        hidden = rows // gates
        w_hr = None
        if self.w_hr is not None:
            if self.cell != "lstm":
                raise ModelFileError(f"w_hr: only an lstm has a projection, got one on {self.cell}")
            w_hr = _tensor(self.w_hr, "w_hr", 2)
            _expect("w_hr", w_hr, (w_hr.shape[0], hidden))
            if w_hr.shape[0] >= hidden:
                raise ModelFileError(
                    f"w_hr: proj_size must be smaller than hidden_size {hidden}, got {w_hr.shape[0]}"
                )
        _expect("w_hh", w_hh, (rows, hidden if w_hr is None else w_hr.shape[0]))
        if (self.b_ih is None) != (self.b_hh is None):
            raise ModelFileError("b_ih, b_hh: expected both or neither, got one")
        b_ih = b_hh = None
        if self.b_ih is not None and self.b_hh is not None:
            b_ih, b_hh = _tensor(self.b_ih, "b_ih", 1), _tensor(self.b_hh, "b_hh", 1)
            _expect("b_ih", b_ih, (rows,))
            _expect("b_hh", b_hh, (rows,))
        for name, value in (
            ("w_ih", w_ih), ("w_hh", w_hh), ("b_ih", b_ih), ("b_hh", b_hh), ("w_hr", w_hr)
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"<Recurrent {self.cell} {self.input_size} -> {self.output_size}>"

    @property
    def input_size(self) -> int:
        """I, the layer's inputs."""
        return int(self.w_ih.shape[1])

    @property
    def hidden_size(self) -> int:
        """H, the hidden units (the size of c)."""
        return int(self.w_ih.shape[0]) // GATES[self.cell]

    @property
    def output_size(self) -> int:
        """P with a projection, else H: the size of h, which the next layer and the next step read."""
        return self.hidden_size if self.w_hr is None else int(self.w_hr.shape[0])

    @property
    def macs(self) -> int:
        """Multiply-adds of one step of this layer's matrices."""
        return self.w_ih.size + self.w_hh.size + (0 if self.w_hr is None else self.w_hr.size)


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """One head layer: `activation(weight @ x + bias)`; weight (O, I), bias (O,) or None, float32."""

    weight: Float32
    bias: Float32 | None = None
    activation: Activation = "none"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ModelFileError(
                f"activation: expected one of {', '.join(ACTIVATIONS)}, got {self.activation!r}"
            )
        weight = _tensor(self.weight, "weight", 2)
        bias = None
        if self.bias is not None:
            bias = _tensor(self.bias, "bias", 1)
            _expect("bias", bias, (weight.shape[0],))
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", bias)

    def __repr__(self) -> str:
        return f"<Linear {self.input_size} -> {self.output_size} {self.activation}>"

    @property
    def input_size(self) -> int:
        """Inputs of this layer."""
        return int(self.weight.shape[1])

    @property
    def output_size(self) -> int:
        """Outputs of this layer."""
        return int(self.weight.shape[0])


def _float64(value: ArrayLike, name: str) -> Float64:
    array = np.array(value, dtype=np.float64, ndmin=1)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ModelFileError(f"{name}: expected a vector of finite numbers, got {value!r}")
    array.setflags(write=False)
    return array


@dataclass(frozen=True, slots=True, eq=False)
class Scaler:
    """Readings to model space: `(x - mean) / std`, float64 (I,), then cast to float32.

    The subtraction happens in float64. Folding it into the first layer's weights would cost four
    digits for a channel like an air pressure in pascal (a large mean with a small spread).
    """

    mean: Float64
    std: Float64

    def __post_init__(self) -> None:
        mean, std = _float64(self.mean, "scaler.mean"), _float64(self.std, "scaler.std")
        if mean.shape != std.shape:
            raise ModelFileError(f"scaler: mean has shape {mean.shape}, std {std.shape}")
        if not (std > 0).all():
            raise ModelFileError(
                f"scaler.std: expected positive numbers, got {std.min()} for channel "
                f"{int(std.argmin())}; leave a constant channel out or give it std 1"
            )
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)

    def __repr__(self) -> str:
        return f"<Scaler of {self.mean.size} channel(s)>"


@dataclass(frozen=True, slots=True)
class Input:
    """Name and unit of one input channel; the unit is free text and may be empty."""

    name: str
    unit: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class SelfTest:
    """Recorded steps from the resting state: x (T, I) and the y (T, O) PyTorch gave for them.

    `tolerance` is the largest allowed |y - ours|, absolute, already in the scale of the outputs.
    """

    x: Float32
    y: Float32
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        x, y = _tensor(self.x, "self_test.x", 2), _tensor(self.y, "self_test.y", 2)
        if x.shape[0] != y.shape[0]:
            raise ModelFileError(f"self_test: {x.shape[0]} inputs but {y.shape[0]} outputs")
        if not 0 < self.tolerance < np.inf:
            raise ModelFileError(f"self_test.tolerance: expected > 0, got {self.tolerance}")
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)

    def __repr__(self) -> str:
        return f"<SelfTest of {len(self.x)} step(s), tolerance {self.tolerance:.2g}>"


@dataclass(frozen=True, slots=True, eq=False)
class RestState:
    """The state a reset goes to: per layer h (output_size,) and, for an lstm, c (hidden_size,)."""

    h: tuple[Float32, ...]
    c: tuple[Float32 | None, ...]

    def __post_init__(self) -> None:
        h = tuple(_tensor(v, f"rest_state.h[{i}]", 1) for i, v in enumerate(self.h))
        c = tuple(None if v is None else _tensor(v, f"rest_state.c[{i}]", 1) for i, v in enumerate(self.c))
        object.__setattr__(self, "h", h)
        object.__setattr__(self, "c", c)

    def __repr__(self) -> str:
        return f"<RestState of {len(self.h)} layer(s)>"


# Features of a sample's time; those of channels are "difference:<channel>".
TIME_FEATURES = ("day_sin", "day_cos", "half_day_sin", "half_day_cos", "week_sin", "week_cos", "weekend")
DIFFERENCE = "difference:"


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A whole model: layers, head, and what is known about inputs, scaling and detection.

    Args:
        layers: one or more `Recurrent`, bottom first.
        head: zero or more `Linear`; without any, the output is the top layer's h.
        name: letters for people; never a path.
        inputs: one `Input` per channel, a reading of every sample; default `x0`, `x1`, ...
        features: what the network is given behind the channels, made of them and of the sample's time by the
            detector: `day_sin`, `day_cos`, `half_day_sin`, `half_day_cos`, `week_sin`, `week_cos` (phase of
            the day, of 12 hours, of the week from Monday), `weekend` (1 or 0), `difference:<channel>` (its
            conditioned value minus the one before). No channel may have such a name.
        scaler: raw readings to model space, or None where readings are in model space already.
        detector: how verdicts are made from the outputs, or None for a model that only steps.
        self_test: recorded steps that every load replays.
        rest_state: where a reset goes; None means zeros.
        activation_ranges: per layer the largest |h| seen in training, for integer exports.
        provenance: plain JSON facts about the origin; never a host name, user or path.

    Raises:
        ModelFileError: sizes of neighbours do not fit.
    """

    layers: tuple[Recurrent, ...]
    head: tuple[Linear, ...] = ()
    name: str = "model"
    inputs: tuple[Input, ...] = ()
    scaler: Scaler | None = None
    detector: DetectorSpec | None = None
    self_test: SelfTest | None = None
    rest_state: RestState | None = None
    activation_ranges: tuple[float, ...] | None = None
    provenance: Mapping[str, object] = field(default_factory=dict)
    features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("layers", "head", "inputs", "features"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.layers:
            raise ModelFileError("layers: expected at least one recurrent layer, got none")
        size = self.layers[0].input_size
        for i, layer in enumerate(self.layers):
            if layer.input_size != size:
                raise ModelFileError(
                    f"layers[{i}]: expected {size} inputs (what the layer below gives), "
                    f"got {layer.input_size}"
                )
            size = layer.output_size
        for i, linear in enumerate(self.head):
            if linear.input_size != size:
                raise ModelFileError(
                    f"head[{i}]: expected {size} inputs (what the layer below gives), got {linear.input_size}"
                )
            size = linear.output_size
        if not self.inputs:
            default = tuple(Input(f"x{i}") for i in range(self.input_size - len(self.features)))
            object.__setattr__(self, "inputs", default)
        channels = len(self.inputs)
        if channels + len(self.features) != self.input_size:
            and_features = f" and {len(self.features)} features" if self.features else ""
            raise ModelFileError(
                f"inputs: expected {self.input_size} (the first layer's), got {channels}{and_features}"
            )
        names = [i.name for i in self.inputs]
        if len(set(names)) != len(names) or not all(names):
            raise ModelFileError(f"inputs: expected distinct, non-empty names, got {names}")
        self._check_features(names)
        if self.scaler is not None and self.scaler.mean.size != channels:
            raise ModelFileError(f"scaler: expected {channels} channels, got {self.scaler.mean.size}")
        if self.detector is not None:
            self.detector.check(channels, self.output_size)
        if self.self_test is not None:
            shapes = (self.self_test.x.shape[1], self.self_test.y.shape[1])
            if shapes != (self.input_size, self.output_size):
                raise ModelFileError(
                    f"self_test: expected {self.input_size} inputs and {self.output_size} outputs, "
                    f"got {shapes[0]} and {shapes[1]}"
                )
        if self.rest_state is not None:
            self._check_rest(self.rest_state)
        ranges = self.activation_ranges
        if ranges is not None and (len(ranges) != len(self.layers) or not all(r > 0 for r in ranges)):
            raise ModelFileError(
                f"activation_ranges: expected {len(self.layers)} positive numbers, got {ranges}"
            )

    def __repr__(self) -> str:
        names = ", ".join(i.name for i in self.inputs[:8]) + (", ..." if len(self.inputs) > 8 else "")
        detector = "no detector" if self.detector is None else f"{self.detector.kind} detector"
        return (
            f"<Model {self.name!r}: {self.architecture}; {self.parameters:,} parameters; "
            f"inputs {names}; {detector}>"
        )

    @property
    def architecture(self) -> str:
        """The network in one line: `lstm 5 -> 64 -> 64, linear 64 -> 1`."""
        parts: list[str] = []
        for i, layer in enumerate(self.layers):
            if i and self.layers[i - 1].cell == layer.cell:
                parts[-1] += f" -> {layer.output_size}"
            else:
                parts.append(f"{layer.cell} {layer.input_size} -> {layer.output_size}")
        for linear in self.head:
            activation = "" if linear.activation == "none" else f" {linear.activation}"
            parts.append(f"linear {linear.input_size} -> {linear.output_size}{activation}")
        return ", ".join(parts)

    def _check_features(self, names: list[str]) -> None:
        if not self.features:
            return
        known = (*TIME_FEATURES, *(DIFFERENCE + name for name in names))
        for feature in self.features:
            if feature not in known or self.features.count(feature) > 1:
                raise ModelFileError(
                    f"features: expected distinct ones of {', '.join(TIME_FEATURES)} and "
                    f"{DIFFERENCE}<channel>, got {feature!r}"
                )
            if feature in names:
                raise ModelFileError(f"inputs: {feature!r} is the name of a feature; rename the channel")

    def _check_rest(self, rest: RestState) -> None:
        if len(rest.h) != len(self.layers) or len(rest.c) != len(self.layers):
            raise ModelFileError(f"rest_state: expected {len(self.layers)} layers")
        for i, (layer, h, c) in enumerate(zip(self.layers, rest.h, rest.c, strict=True)):
            expected = (layer.hidden_size,) if layer.cell == "lstm" else None
            if h.shape != (layer.output_size,) or (None if c is None else c.shape) != expected:
                raise ModelFileError(f"rest_state: layer {i} does not fit its {layer.cell}")

    @property
    def channels(self) -> int:
        """C, the readings of a sample; with the features they are the network's inputs."""
        return len(self.inputs)

    @property
    def input_size(self) -> int:
        """I, the network's inputs: channels, then features."""
        return self.layers[0].input_size

    @property
    def output_size(self) -> int:
        """O, the model's outputs."""
        return self.head[-1].output_size if self.head else self.layers[-1].output_size

    @property
    def macs(self) -> int:
        """Multiply-adds of one step: all matrices, biases and activations not counted."""
        return sum(r.macs for r in self.layers) + sum(h.weight.size for h in self.head)

    @property
    def parameters(self) -> int:
        """Numbers learned: all tensors of layers and head."""
        tensors: list[Float32 | None] = []
        for r in self.layers:
            tensors += [r.w_ih, r.w_hh, r.b_ih, r.b_hh, r.w_hr]
        for linear in self.head:
            tensors += [linear.weight, linear.bias]
        return sum(t.size for t in tensors if t is not None)
