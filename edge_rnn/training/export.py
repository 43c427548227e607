"""Write a PyTorch module as a model file, or refuse.

The order of work: find the parts (`parts.py`), run the module on sample inputs (`calling.py`), build the
`Model`, run the float64 reference on the same inputs, compare. Only a model whose outputs agree is
written, and the inputs and outputs go with it as the file's self-test, so that every later load on every
machine repeats the comparison.

Functional activations (`torch.relu(self.fc1(x))`) leave no trace in the module. There are only five
activations and few linear layers, so the export tries them all on the head, whose inputs (the top layer's
h) it knows from the reference, and takes the one that reproduces the outputs; with `head=` the caller says
it instead. If samples cannot tell two activations apart (a Linear that never gave a negative number: none
or relu?), none is taken and a notice says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_rnn import __version__
from edge_rnn.core.detector_spec import DetectorSpec
from edge_rnn.core.model import ACTIVATIONS, Activation, Float32, Input, Linear, Model, Scaler, SelfTest
from edge_rnn.core.reference import Reference
from edge_rnn.errors import ExportError, ModelFileError
from edge_rnn.files.model_file import save
from edge_rnn.training.calling import Way, WrongCallError, check_dtype, ways
from edge_rnn.training.extra import torch
from edge_rnn.training.parts import RECURRENT, Found, linear, sort_parts, watch

SELF_TEST_STEPS = 32
SEARCHED_LAYERS = 4

Head = Sequence[str | tuple[str, Activation]]


class ExportNotice(UserWarning):
    """Something in the module that the export left out or took for granted, and why."""


def export_model(
    module: Any,
    path: str | Path,
    inputs: Sequence[str | Input] = (),
    *,
    scaler: Scaler | None = None,
    detector: DetectorSpec | None = None,
    name: str = "model",
    samples: ArrayLike | None = None,
    head: Head | None = None,
    call: Callable[[Any], Any] | None = None,
) -> Model:
    """Write `module` as a model file at `path` and return the `Model`.

    Args:
        module: an nn.Module made of nn.RNN / nn.LSTM / nn.GRU (or their cells) and nn.Linear, with ReLU,
            Tanh, Sigmoid or Softmax after a Linear; or one of these alone. float32 or float64, any
            device. It may return the outputs of all steps or of the last one, alone or with the state.
        path: the file to write; replaced in one piece, or not at all.
        inputs: names (or `Input`s with units) of the input channels; default x0, x1, ...
        scaler: raw readings to model space, if the module was trained on scaled ones.
        detector: how verdicts are made from the outputs.
        name: letters for people.
        samples: (T, I) inputs as the module sees them (scaled), T >= 16; default: random ones.
        head: the linear layers in order with the activation after each, for what the search cannot find:
            `["fc1", ("fc2", "relu")]`; a name alone means no activation.
        call: for a module that is called in an unusual way: (T, I) tensor to its outputs (T, O).

    Raises:
        ExportError: a part that no model can hold, or outputs that the model does not reproduce.
        ModelFileError: weights that are not finite, a scaler or detector that does not fit, or a place
            that cannot be written to.

    Warns:
        ExportNotice: dropout left out; activations the samples could not tell apart.

    The module's training mode and PyTorch's random state are as before when this returns.
    """
    if not isinstance(module, torch.nn.Module):
        raise ExportError(
            f"module: expected an nn.Module, got {type(module).__name__}; a state_dict goes into "
            "edge_rnn.load_state_dict instead"
        )
    if isinstance(inputs, str):
        raise ExportError(f"inputs: expected a list of names, got the text {inputs!r}: [{inputs!r}]")
    parameter = check_dtype(module)
    channels = tuple(i if isinstance(i, Input) else Input(i) for i in inputs)
    x = _samples(samples, _input_size(module, channels))
    tensor = torch.as_tensor(x).to(parameter.device, parameter.dtype)
    with _quiet(module):
        fit = _find(module, tensor, x, head, call)
    model = Model(
        layers=fit.found.layers,
        head=fit.head,
        name=name,
        inputs=channels,
        scaler=scaler,
        detector=detector,
        self_test=SelfTest(x[:SELF_TEST_STEPS], fit.y[:SELF_TEST_STEPS], tolerance(fit.y)),
        provenance={
            "source": "export from PyTorch",
            "torch": str(torch.__version__),
            "module": type(module).__name__,
            "edge_rnn": __version__,
            "called_with": fit.way,
            "largest_difference": fit.difference,
            "notices": list(fit.notices),
        },
    )
    save(model, path)
    for notice in fit.notices:
        warnings.warn(notice, ExportNotice, stacklevel=2)
    return model


def tolerance(y: NDArray[np.floating]) -> float:
    """The largest difference that rounding can explain: 1e-5 of the outputs' range, 2e-6 of their size."""
    spread = float(np.ptp(y, axis=0).max())
    return max(1e-5 * spread + 2e-6 * float(np.abs(y).max()), 1e-8)


@dataclass(frozen=True, slots=True)
class Fit:
    """What reproduces the module: parts, head, the module's outputs (T, O), and how it was called."""

    found: Found
    head: tuple[Linear, ...]
    y: Float32
    way: str
    difference: float
    notices: tuple[str, ...]


@contextmanager
def _quiet(module: Any) -> Iterator[None]:
    """Evaluation mode, no gradients, and a random state that is put back at the end."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def _input_size(module: Any, inputs: tuple[Input, ...]) -> int:
    """I: what the module's first recurrent part reads, checked against the names."""
    sizes = [part.input_size for part in module.modules() if isinstance(part, RECURRENT)]
    if not sizes:
        raise ExportError(
            f"{type(module).__name__} has no nn.RNN, nn.LSTM or nn.GRU (nor their cells); "
            "expected at least one, nothing to step"
        )
    if inputs and len(inputs) != sizes[0]:
        raise ExportError(
            f"inputs: expected {sizes[0]} names (the first recurrent layer's inputs), got {len(inputs)}"
        )
    return int(sizes[0])


def _samples(samples: ArrayLike | None, size: int) -> Float32:
    """The sample inputs (T, size): the caller's, or normal ones from a generator of their own."""
    if samples is None:
        normal = np.random.default_rng(20240229).standard_normal((64, size))
        # Small and large values: the nearly linear and the saturated part of every gate are compared.
        return np.asarray(normal * np.resize([0.5, 1.0, 3.0], 64)[:, None], dtype=np.float32)
    if isinstance(samples, torch.Tensor):
        samples = samples.detach().cpu().numpy()
    x = np.asarray(samples, dtype=np.float32)
    if x.ndim != 2 or x.shape[1] != size or x.shape[0] < 16:
        raise ExportError(f"samples: expected shape (T, {size}) with T >= 16 steps, got {x.shape}")
    if not np.isfinite(x).all():
        raise ExportError("samples: expected finite numbers, got NaN or infinity; leave such rows out")
    return x


def _find(module: Any, tensor: Any, x: Float32, head: Head | None, call: Callable[[Any], Any] | None) -> Fit:
    """The first way of calling the module whose outputs the reference reproduces.

    Raises:
        ExportError: none does; the message says how far the best one is off and what to try.
    """
    failures: list[str] = []
    best: tuple[float, str] = (np.inf, "")
    options: list[tuple[str, Way]] = list(ways(module)) if call is None else [("call=", _given(call))]
    for way, run in options:
        try:
            with watch(module) as calls:
                run(tensor[:2], 1)
        except WrongCallError:
            pass
        except ExportError:
            raise
        except Exception as error:  # noqa: BLE001  (the module's own code may raise anything)
            failures.append(f"{way}: {type(error).__name__}: {_line(error)}")
            continue
        found = sort_parts(calls)
        heads = _heads(module, found, head)
        outputs = heads[0][-1].output_size if heads[0] else found.layers[-1].output_size
        try:
            y = np.asarray(run(tensor, outputs).to("cpu", torch.float32).numpy())
        except WrongCallError as error:
            failures.append(f"{way}: its output has shape {error}")
            continue
        except Exception as error:  # noqa: BLE001  (as above)
            failures.append(f"{way}: {type(error).__name__}: {_line(error)}")
            continue
        if not np.isfinite(y).all():
            raise ExportError("the module's outputs are not finite (NaN or infinity): has training diverged?")
        fits = _compare(found, heads, x, y)
        if fits and fits[0][0] <= tolerance(y):
            notices = (*found.notices, *_ambiguity(found, [h for d, h in fits if d <= tolerance(y)]))
            return Fit(found, fits[0][1], y, way, fits[0][0], notices)
        if fits and fits[0][0] < best[0]:
            best = (fits[0][0], f"called with {way}, tolerance {tolerance(y):.2g}")
    raise ExportError(_refusal(module, best, failures, searched=head is None))


def _given(call: Callable[[Any], Any]) -> Way:
    """The caller's own way of running the module."""

    def run(x: Any, outputs: int) -> Any:
        y = call(x)
        if not isinstance(y, torch.Tensor) or y.numel() != x.shape[0] * outputs:
            got = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
            raise WrongCallError(f"{got} for {x.shape[0]} steps and {outputs} outputs")
        return y.reshape(x.shape[0], outputs)

    return run


def _heads(module: Any, found: Found, head: Head | None) -> list[tuple[Linear, ...]]:
    """Every head worth trying; the plainest first. With `head` there is only that one."""
    if head is not None:
        return [tuple(_named(module, entry) for entry in head)]
    unknown = sum(part.activation is None for part in found.head)
    choices: list[tuple[Activation, ...]] = [
        (part.activation,) if part.activation is not None
        else (ACTIVATIONS if unknown <= SEARCHED_LAYERS else ("none",))
        for part in found.head
    ]  # fmt: skip
    plain = [linear(part.part, "none") for part in found.head]
    return [
        tuple(replace(layer, activation=label) for layer, label in zip(plain, labels, strict=True))
        for labels in product(*choices)
    ]


def _named(module: Any, entry: str | tuple[str, Activation]) -> Linear:
    name, activation = (entry, "none") if isinstance(entry, str) else entry
    parts = dict(module.named_modules())
    part = parts.get(name)
    if not isinstance(part, torch.nn.Linear):
        known = [n for n, p in parts.items() if isinstance(p, torch.nn.Linear)]
        raise ExportError(
            f"head: expected the name of a Linear ({', '.join(known) or 'there is none'}), got {name!r}"
        )
    if activation not in ACTIVATIONS:
        raise ExportError(f"head: {name}: expected one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    return linear(part, activation)


def _compare(
    found: Found, heads: list[tuple[Linear, ...]], x: Float32, y: Float32
) -> list[tuple[float, tuple[Linear, ...]]]:
    """(largest difference, head) for every head, the plainest of the equally good ones first."""
    try:
        Model(layers=found.layers, head=heads[0])
    except ModelFileError as error:
        raise ExportError(
            f"the parts do not form one chain in the order in which they are called ({error}); a model is "
            "recurrent layers, then linear ones, each reading what the one before gives"
        ) from error
    body = Reference(Model(layers=found.layers)).run(x)
    limit = tolerance(y)
    results = []
    for layers in heads:
        out = body
        for layer in layers:
            out = apply(layer, out)
        results.append((float(np.abs(out - y).max()), layers))
    fitting = [result for result in results if result[0] <= limit]
    return fitting or sorted(results, key=lambda result: result[0])


def apply(layer: Linear, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """`layer` on rows (T, I) in float64."""
    out = x @ layer.weight.T.astype(np.float64)
    if layer.bias is not None:
        out = out + layer.bias
    if layer.activation == "relu":
        return np.maximum(out, 0.0)
    if layer.activation == "tanh":
        return np.tanh(out)
    if layer.activation == "sigmoid":
        return 0.5 + 0.5 * np.tanh(0.5 * out)
    if layer.activation == "softmax":
        e = np.exp(out - out.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True))
    return out


def _ambiguity(found: Found, fitting: list[tuple[Linear, ...]]) -> list[str]:
    """A notice for every Linear whose activation the samples could not tell."""
    notices = []
    for i, part in enumerate(found.head):
        labels = list(dict.fromkeys(layers[i].activation for layers in fitting if i < len(layers)))
        if len(labels) > 1:
            # The whole head as it was taken, but for this layer: ready to be pasted.
            taken = [other.activation for other in fitting[0]]
            taken[i] = labels[1]
            named = [(p.name, a) for p, a in zip(found.head, taken, strict=True)]
            notices.append(
                f"{part.name}: the samples cannot tell {' from '.join(labels)}, taken as {labels[0]}; "
                f"if that is wrong, give samples= that tell them apart or head={named}"
            )
    return notices


def _example(module: Any) -> list[str | tuple[str, str]]:
    """What `head=` could be for this module: its linear layers, an activation after all but the last."""
    names = [name for name, part in module.named_modules() if isinstance(part, torch.nn.Linear)]
    return [*((name, "relu") for name in names[:-1]), *names[-1:]]


def _refusal(module: Any, best: tuple[float, str], failures: list[str], *, searched: bool) -> str:
    """The one-line message for a module that cannot be reproduced."""
    if not np.isfinite(best[0]):
        return (
            f"{type(module).__name__} could not be run on sample inputs ({'; '.join(failures[:3])}); "
            "give call=lambda x: ... from inputs (T, I) to outputs (T, O)"
        )
    owned = [name for name, _ in module.named_parameters(recurse=False)]
    hints = [
        "something between or after the layers is not ReLU, Tanh, Sigmoid or Softmax after a Linear"
        if searched
        else "head= does not say what forward does",
        f"name the head yourself, for example head={_example(module)}",
        "an unusual forward needs call=lambda x: ...",
    ]
    if owned and not isinstance(module, RECURRENT):
        hints.append(f"{', '.join(owned)} of the module itself cannot be part of a model")
    return (
        f"{type(module).__name__} is not written: its outputs are not reproduced, largest difference "
        f"{best[0]:.3g} ({best[1]}); {'; '.join(hints)}"
    )


def _line(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else ""
