"""From the pieces of an `nn.Module` to the layers of a `Model`.

A PyTorch module says what it consists of, but not in which order it calls its parts: that is code.
`watch` therefore puts forward hooks on every part, the caller runs the module once, and the order of
the first calls is the order of the layers; the hooks also see where a Linear's output went on untouched.
Parts that do nothing after training (dropout, identity, flatten) are left out; a part that no `Model`
can hold (a convolution, an embedding, an attention) is refused by name as soon as it is called. What a
module computes with plain functions (`torch.relu(x)`) leaves no trace here; `export.py` finds that out
from the outputs.

Gate order and shapes are PyTorch's own on both sides (LSTM i f g o, GRU r z n), so tensors are copied
as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_rnn.core.model import Activation, Cell, Float32, Linear, Recurrent
from edge_rnn.errors import ExportError
from edge_rnn.training.extra import nn, torch

RECURRENT = (nn.RNNBase, nn.RNNCellBase)
ACTIVATION_MODULES: tuple[tuple[Any, Activation], ...] = (
    (nn.ReLU, "relu"),
    (nn.Tanh, "tanh"),
    (nn.Sigmoid, "sigmoid"),
    (nn.Softmax, "softmax"),
)
PASSING = (nn.Identity, nn.Flatten, nn.Unflatten)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
REMEDIES = {
    "Embedding": "feed one-hot or embedded vectors as inputs instead",
    "EmbeddingBag": "feed one-hot or embedded vectors as inputs instead",
    "LogSoftmax": "export the module without it (the largest log-probability is the largest score)",
    "BatchNorm1d": "put the normalisation of the inputs into scaler=...",
    "LayerNorm": "train without it",
    "Conv1d": "a convolution needs several readings at once; train without it",
}


@dataclass(slots=True)
class Calls:
    """What a run of a module called.

    parts: (dotted name, part) in the order of the first calls.
    bare: the parts (by id) whose output went on as it was: the next Linear, or the caller, got a tensor on
        the very same memory, unchanged since, so that there cannot be an activation between.
    """

    parts: list[tuple[str, Any]] = field(default_factory=list)
    bare: set[int] = field(default_factory=set)
    _outputs: dict[int, tuple[Any, int]] = field(default_factory=dict)

    def called(self, name: str, part: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Note one call; `ExportError` for a part that no model can hold."""
        if all(part is not known for _, known in self.parts):
            _refuse(name, part)
            self.parts.append((name, part))
        if isinstance(part, nn.Linear):
            self.handed_on(inputs[0] if inputs else None)
            # Holding the tensor keeps its memory from being used again for another one.
            self._outputs[id(part)] = (output, output._version)

    def handed_on(self, value: Any) -> None:
        """Note which Linear's output `value` is, if it is one (or a view of one)."""
        while isinstance(value, (tuple, list)) and value:
            value = value[0]
        if not isinstance(value, torch.Tensor):
            return
        for key, (output, version) in self._outputs.items():
            same = value.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()
            if same and output._version == version:
                self.bare.add(key)


@contextmanager
def watch(module: Any) -> Iterator[Calls]:
    """Record which parts of `module` are called while the context is open, and in which order.

    Raises:
        ExportError: (out of the module's forward) a part is called that a model cannot hold.
    """
    calls = Calls()

    def hook(name: str) -> Any:
        return lambda part, inputs, output: calls.called(name, part, inputs, output)

    handles = [
        part.register_forward_hook(hook(name))
        for name, part in module.named_modules()
        if isinstance(part, RECURRENT) or type(part).__module__.startswith("torch.")
    ]
    handles.append(module.register_forward_hook(lambda _part, _inputs, output: calls.handed_on(output)))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _refuse(name: str, part: Any) -> None:
    """Raise `ExportError` for a part of PyTorch that has no place in a model."""
    if isinstance(part, RECURRENT):
        if getattr(part, "bidirectional", False):
            raise ExportError(
                f"{where(name, part)} is bidirectional: its second direction reads the sequence from its "
                "end, so a step would need the future; train it with bidirectional=False"
            )
        return
    known = (nn.Linear, *DROPOUTS, *PASSING, *(kind for kind, _ in ACTIVATION_MODULES))
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    if isinstance(part, (*known, *containers)):
        return
    kind = type(part).__name__
    remedy = REMEDIES.get(kind, "train without it")
    raise ExportError(
        f"{where(name, part)} has no place in a model: expected RNN, LSTM, GRU (or their cells), Linear, "
        f"ReLU, Tanh, Sigmoid, Softmax or Dropout, got {kind}; {remedy}"
    )


def where(name: str, part: Any) -> str:
    """How messages name a part: `lstm (LSTM)`; the module itself has no name of its own."""
    return f"{name or 'the module'} ({type(part).__name__})"


def array(tensor: Any) -> Float32:
    """A parameter as a float32 array on the CPU."""
    return np.array(tensor.detach().to("cpu", torch.float32).numpy(), dtype=np.float32)


def _optional(part: Any, name: str) -> Float32 | None:
    tensor = getattr(part, name, None)
    return None if tensor is None else array(tensor)


def cell_of(part: Any) -> Cell:
    """Which cell a recurrent part has."""
    if isinstance(part, (nn.LSTM, nn.LSTMCell)):
        return "lstm"
    if isinstance(part, (nn.GRU, nn.GRUCell)):
        return "gru"
    return "rnn_relu" if part.nonlinearity == "relu" else "rnn_tanh"


def recurrent_layers(part: Any) -> list[Recurrent]:
    """The layers of one nn.RNN, nn.LSTM or nn.GRU (or of a cell: one), bottom first."""
    cell = cell_of(part)
    endings = [""] if isinstance(part, nn.RNNCellBase) else [f"_l{k}" for k in range(part.num_layers)]
    return [
        Recurrent(
            cell=cell,
            w_ih=array(getattr(part, f"weight_ih{end}")),
            w_hh=array(getattr(part, f"weight_hh{end}")),
            b_ih=_optional(part, f"bias_ih{end}"),
            b_hh=_optional(part, f"bias_hh{end}"),
            w_hr=_optional(part, f"weight_hr{end}"),
        )
        for end in endings
    ]


def linear(part: Any, activation: Activation) -> Linear:
    """One nn.Linear with the activation that follows it."""
    return Linear(array(part.weight), _optional(part, "bias"), activation)


@dataclass(frozen=True, slots=True)
class HeadPart:
    """One Linear of the head: its dotted name, and its activation where the run has shown it."""

    name: str
    part: Any
    activation: Activation | None


@dataclass(frozen=True, slots=True)
class Found:
    """What `watch` saw, sorted: recurrent layers, head, and what was left out on purpose."""

    layers: tuple[Recurrent, ...]
    head: tuple[HeadPart, ...]
    notices: tuple[str, ...]


def sort_parts(calls: Calls) -> Found:
    """The recurrent layers and the head out of the recorded calls.

    Raises:
        ExportError: no recurrent part, a Linear below a recurrent part, or an activation where none can be.
    """
    layers: list[Recurrent] = []
    head: list[HeadPart] = []
    notices: list[str] = []
    for name, part in calls.parts:
        if isinstance(part, RECURRENT):
            if head:
                raise ExportError(
                    f"{where(name, part)} comes after {where(head[-1].name, head[-1].part)}: a model is "
                    "recurrent layers first, then linear ones; a Linear below a recurrent layer can be "
                    "multiplied into its weight_ih by hand"
                )
            layers += recurrent_layers(part)
            if getattr(part, "dropout", 0.0):
                notices.append(f"{where(name, part)}: dropout {part.dropout} does nothing after training")
        elif isinstance(part, nn.Linear):
            head.append(HeadPart(name, part, "none" if id(part) in calls.bare else None))
        elif isinstance(part, DROPOUTS):
            notices.append(f"{where(name, part)} does nothing after training and is left out")
        else:
            _activation(name, part, head)
    if not layers:
        raise ExportError(
            "the module calls no nn.RNN, nn.LSTM or nn.GRU (nor their cells): expected at least one, "
            f"got {', '.join(where(n, p) for n, p in calls.parts) or 'no part at all'}"
        )
    return Found(tuple(layers), tuple(head), tuple(notices))


def _activation(name: str, part: Any, head: list[HeadPart]) -> None:
    """Give the last Linear the activation that `part` is, if it is one."""
    found = next((label for kind, label in ACTIVATION_MODULES if isinstance(part, kind)), None)
    if found is None:
        return
    if not head or head[-1].activation not in (None, "none"):
        below = "another activation" if head else "a recurrent layer"
        raise ExportError(
            f"{where(name, part)} follows {below}: an activation belongs to the Linear before it; "
            "put a Linear between them or train without it"
        )
    head[-1] = HeadPart(head[-1].name, head[-1].part, found)
