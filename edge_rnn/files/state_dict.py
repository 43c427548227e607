"""From names and shapes to a `Model`: what a PyTorch state dict says about itself, and what it cannot.

PyTorch names a recurrent module's tensors `<prefix>weight_ih_l<layer>` (an `nn.LSTMCell`'s without
`_l<layer>`) and a linear layer's `<prefix>weight`, `<prefix>bias`. Everything else follows from shapes: H is
the width of `weight_hh` (of `weight_hr` where there is a projection), and the rows of `weight_ih` over H are
the gates: 4 lstm, 3 gru, 1 rnn.

Not in a file, and so an argument where it matters: whether a one-gate cell uses tanh (taken) or relu; an
activation after a single linear layer (none is taken), the order and activations of several; which of several
recurrent modules comes first where the sizes allow more than one order. Nothing is guessed beyond that, and
every tensor is either used, named in `ignore`, or the reason for an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike

from edge_rnn.core.detector_spec import DetectorSpec
from edge_rnn.core.model import GATES, Activation, Cell, Input, Linear, Model, Recurrent, Scaler
from edge_rnn.errors import ModelFileError, printable
from edge_rnn.files.safetensors_file import Array, Tensors

_RECURRENT = re.compile(
    r"(?:(?P<module>.*)\.)?(?P<part>weight_ih|weight_hh|bias_ih|bias_hh|weight_hr)"
    r"(?:_l(?P<layer>[0-9]{1,4}))?(?P<reverse>_reverse)?",
    re.DOTALL,
)
_PARTS = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh", "weight_hr": "w_hr"}
_MAX_PERMUTED = 6


class Choices(TypedDict, total=False):
    """What a file of plain tensors cannot say; the arguments of `load_state_dict`."""

    cell: Cell | None
    head: Sequence[tuple[str, Activation]] | None
    recurrent: Sequence[str] | None
    inputs: Sequence[str | Input] | None
    ignore: Sequence[str]
    name: str


@dataclass(frozen=True, slots=True)
class _Module:
    """A recurrent or linear module found by its names: its tensors by part, and the names they use."""

    name: str
    tensors: dict[tuple[int, str], Array]
    used: tuple[str, ...]


def recurrent_part(name: str) -> bool:
    """Whether `name` is one of a recurrent module's tensors."""
    return _RECURRENT.fullmatch(name) is not None


def _arrays(tensors: Mapping[str, ArrayLike], ignore: Sequence[str], where: str) -> Tensors:
    ignored = {name.rstrip(".") for name in ignore}
    matched: set[str] = set()
    arrays: Tensors = {}
    for name, value in tensors.items():
        if not isinstance(name, str):
            raise ModelFileError(f"{where}: expected text as tensor names, got {name!r}")
        parts = name.split(".")
        hits = ignored & {".".join(parts[:n]) for n in range(1, len(parts) + 1)} if ignored else set()
        if hits:
            matched |= hits
            continue
        try:
            arrays[name] = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ModelFileError(
                f"{where}: tensor {name!r} is no array: {error}; pass numpy arrays or module.state_dict()"
            ) from None
    if ignored - matched:
        raise ModelFileError(f"{where}: ignore: no tensor or module is called {min(ignored - matched)!r}")
    return arrays


def _find_recurrent(tensors: Tensors, where: str) -> dict[str, _Module]:
    found: dict[str, dict[tuple[int, str], Array]] = {}
    names: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        match = _RECURRENT.fullmatch(name)
        if match is None:
            continue
        if match["reverse"]:
            raise ModelFileError(
                f"{where}: tensor {name!r}: a bidirectional layer reads the future, which a live stream does "
                "not have; train it again with bidirectional=False"
            )
        layer = -1 if match["layer"] is None else int(match["layer"])
        key = (layer, _PARTS[match["part"]])
        module_name = match["module"] or ""
        module = found.setdefault(module_name, {})
        if key in module:
            raise ModelFileError(f"{where}: tensor {name!r}: this part of the layer comes twice")
        module[key] = tensor
        names.setdefault(module_name, []).append(name)
    return {name: _Module(name, parts, tuple(names[name])) for name, parts in found.items()}


def _find_linear(tensors: Tensors) -> dict[str, _Module]:
    found = {}
    for name, tensor in tensors.items():
        if name != "weight" and not name.endswith(".weight"):
            continue
        module = name[: -len("weight")].rstrip(".")
        bias_name = name[: -len("weight")] + "bias"
        bias = tensors.get(bias_name)
        if tensor.ndim != 2 or (bias is not None and bias.shape != tensor.shape[:1]):
            continue
        parts, used = {(0, "weight"): tensor}, [name]
        if bias is not None:
            parts[0, "bias"] = bias
            used.append(bias_name)
        found[module] = _Module(module, parts, tuple(used))
    return found


def _float(tensor: Array, name: str, where: str) -> Array:
    if tensor.dtype.kind != "f":
        raise ModelFileError(
            f"{where}: {name}: expected floating point weights, got {tensor.dtype}; "
            "a quantised model cannot be read: save the float model's state_dict()"
        )
    return tensor


def _cell(parts: Mapping[str, Array], cell: Cell | None, place: str) -> Cell:
    """The kind of a layer from the ratio of its gate rows to its hidden units."""
    fed_back = parts["w_hr"] if "w_hr" in parts else parts["w_hh"]
    if parts["w_ih"].ndim != 2 or fed_back.ndim != 2 or 0 in (*parts["w_ih"].shape, *fed_back.shape):
        raise ModelFileError(f"{place}: expected matrices as weight_ih and weight_hh, none of them empty")
    rows, hidden = parts["w_ih"].shape[0], fed_back.shape[1]
    kinds: dict[int, Cell] = {4: "lstm", 3: "gru", 1: "rnn_relu" if cell == "rnn_relu" else "rnn_tanh"}
    if rows % hidden or rows // hidden not in kinds:
        raise ModelFileError(
            f"{place}: {rows} gate rows over {hidden} hidden units: expected 4 (lstm), 3 (gru) or 1 (rnn) "
            "times as many; the file is damaged or holds another kind of cell"
        )
    return kinds[rows // hidden]


def _layers(module: _Module, cell: Cell | None, where: str) -> tuple[Recurrent, ...]:
    label = module.name or "(top level)"
    numbers = sorted({layer for layer, _ in module.tensors})
    if numbers not in ([-1], list(range(len(numbers)))):
        raise ModelFileError(
            f"{where}: recurrent module {label!r} has layers {numbers}, expected 0 to {len(numbers) - 1}; "
            "tensors are missing"
        )
    layers = []
    for number in numbers:
        place = f"{where}: recurrent module {label!r}" + (f", layer {number}" if number >= 0 else "")
        parts = {part: t for (layer, part), t in module.tensors.items() if layer == number}
        for part in ("w_ih", "w_hh"):
            if part not in parts:
                torch_name = next(k for k, v in _PARTS.items() if v == part)
                raise ModelFileError(f"{place}: {torch_name} is missing")
        parts = {part: _float(tensor, part, place) for part, tensor in parts.items()}
        kind = _cell(parts, cell, place)
        try:
            layers.append(Recurrent(kind, **parts))  # type: ignore[arg-type]
        except ModelFileError as error:
            raise ModelFileError(f"{place}: {error}") from None
    return tuple(layers)


def _resolve(wanted: str, modules: Mapping[str, _Module], argument: str, where: str) -> str:
    """The full name of the module a user calls `wanted`: the name itself, or an end of it that is unique."""
    wanted = wanted.rstrip(".")
    if wanted in modules:
        return wanted
    matches = [name for name in modules if name.endswith(f".{wanted}")]
    if len(matches) == 1:
        return matches[0]
    got = ", ".join(map(repr, modules)) or "none"
    raise ModelFileError(f"{where}: {argument}: no such module {wanted!r}; the file has {got}")


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts lstm2 before lstm10: a longer run of digits is a larger number."""
    return [(len(t), t) if t.isdecimal() else (0, t) for t in re.split("([0-9]+)", name)]


def _stack(
    modules: dict[str, _Module], chosen: Sequence[str] | None, cell: Cell | None, where: str
) -> tuple[list[str], tuple[Recurrent, ...]]:
    """The recurrent modules used, bottom first, and their layers."""
    if not modules:
        raise ModelFileError(
            f"{where}: no recurrent layer found: expected names like 'lstm.weight_ih_l0' or 'cell.weight_ih'"
        )
    if chosen is not None:
        order = [_resolve(name, modules, "recurrent", where) for name in chosen]
        if not order or len(set(order)) != len(order):
            raise ModelFileError(f"{where}: recurrent: expected distinct modules, got {list(chosen)}")
        return order, tuple(layer for name in order for layer in _layers(modules[name], cell, where))
    built = {name: _layers(module, cell, where) for name, module in modules.items()}

    def fits(order: Sequence[str]) -> bool:
        return all(built[a][-1].output_size == built[b][0].input_size for a, b in pairwise(order))

    orders: list[list[str]] = []
    numbered = sorted(
        built, key=lambda name: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", name)]
    )
    if len({re.sub(r"\d+", "", name) for name in built}) == 1 and fits(numbered):
        orders = [numbered]
    elif len(built) <= _MAX_PERMUTED:
        orders = [list(order) for order in permutations(built) if fits(order)]
    if len(orders) != 1:
        sizes = ", ".join(
            f"{name!r} ({layers[0].input_size} -> {layers[-1].output_size})" for name, layers in built.items()
        )
        example = printable(",".join(built))
        raise ModelFileError(
            f"{where}: several recurrent modules, {sizes}, and not exactly one order in which they fit; "
            f"name them bottom first: --recurrent {example} or recurrent={list(built)}, "
            "and the others with --ignore"
        )
    return orders[0], tuple(layer for name in orders[0] for layer in built[name])


def _linear(module: _Module, activation: Activation, where: str) -> Linear:
    place = f"{where}: linear layer {module.name!r}"
    weight = _float(module.tensors[0, "weight"], "weight", place)
    bias = module.tensors.get((0, "bias"))
    try:
        return Linear(weight, None if bias is None else _float(bias, "bias", place), activation)  # type: ignore[arg-type]
    except ModelFileError as error:
        raise ModelFileError(f"{place}: {error}") from None


def _may_be_below(module: _Module, arrays: Tensors, bottom: Recurrent) -> bool:
    """Whether a linear module that fits as the head looks as if it fed the bottom layer instead.

    PyTorch lists modules as they were defined, so one that is defined first and gives what the bottom layer
    reads is an input layer. An embedding (no bias) is one by its columns. In a sorted file, as safetensors
    are, the order says nothing.
    """
    outputs, inputs = module.tensors[0, "weight"].shape
    embeds = (0, "bias") not in module.tensors and inputs == bottom.input_size
    if not embeds and outputs != bottom.input_size:
        return False
    names = list(arrays)
    if names == sorted(names):
        return embeds
    return names.index(module.used[0]) < next(i for i, name in enumerate(names) if recurrent_part(name))


def _head(
    modules: dict[str, _Module],
    chosen: Sequence[tuple[str, Activation]] | None,
    layers: tuple[Recurrent, ...],
    arrays: Tensors,
    where: str,
) -> tuple[list[str], tuple[Linear, ...]]:
    """The linear modules used, in order, and the head they make on the top layer's h."""
    size = layers[-1].output_size
    if chosen is not None:
        order = [_resolve(name, modules, "head", where) for name, _ in chosen]
        pairs = zip(order, chosen, strict=True)
        return order, tuple(_linear(modules[name], activation, where) for name, (_, activation) in pairs)
    if not modules:
        return [], ()
    shapes = {name: module.tensors[0, "weight"].shape for name, module in modules.items()}
    text = ", ".join(f"{name!r} ({i} -> {o})" for name, (o, i) in shapes.items())
    if len(modules) > 1:
        example = [printable(name) for name in modules]
        words = ",".join(f"{n}:relu" for n in example[:-1]) + f",{example[-1]}:none"
        code = ", ".join(f'("{n}", "relu")' for n in example[:-1]) + f', ("{example[-1]}", "none")'
        raise ModelFileError(
            f"{where}: several linear layers, {text}: their order and activations are not in the file; name "
            f"them, for example --head {words} or head=[{code}], and the others with --ignore"
        )
    ((name, (_, inputs)),) = shapes.items()
    if inputs != size:
        raise ModelFileError(
            f"{where}: the linear layer {text} does not fit the last recurrent layer, which gives {size}; "
            "a layer before or beside the recurrent ones cannot be part of a model: leave it out with "
            f"--ignore {printable(name)} or ignore=[{name!r}] if the outputs do not need it"
        )
    if "emb" in name.rpartition(".")[2].lower() or _may_be_below(modules[name], arrays, layers[0]):
        raise ModelFileError(
            f"{where}: {text} looks like an embedding or an input layer, not like an output layer; say "
            f"which: --head {printable(name)}:none (head=[({name!r}, 'none')]) or --ignore {printable(name)}"
        )
    return [name], (_linear(modules[name], "none", where),)


def load_state_dict(
    tensors: Mapping[str, ArrayLike],
    *,
    cell: Cell | None = None,
    head: Sequence[tuple[str, Activation]] | None = None,
    recurrent: Sequence[str] | None = None,
    inputs: Sequence[str | Input] | None = None,
    ignore: Sequence[str] = (),
    name: str = "model",
    scaler: Scaler | None = None,
    detector: DetectorSpec | None = None,
    where: str = "state dict",
) -> Model:
    """A `Model` from the tensors of a PyTorch state dict (numpy arrays, or torch tensors on the CPU).

    Args:
        tensors: name to array, in PyTorch's names and shapes; any prefix.
        cell: `rnn_relu` where a one-gate cell uses relu; else checked against what the shapes say.
        head: (module name, activation) of each linear layer in order; [] for none. Needed for more than one.
        recurrent: the recurrent modules, bottom first; needed where more than one order fits.
        inputs: names of the input channels; default `x0`, `x1`, ...
        ignore: tensors or modules that are deliberately left out.
        name, scaler, detector: of the model.
        where: what messages call the origin.

    Raises:
        ModelFileError: no recurrent layer, an ambiguous or bidirectional one, a tensor that is not used,
            sizes that do not fit, weights that are not finite floats. The message names the argument that
            helps.
    """
    lists: dict[str, object] = {"head": head, "recurrent": recurrent, "inputs": inputs, "ignore": ignore}
    for argument, given in lists.items():
        if isinstance(given, str):
            raise ModelFileError(f"{where}: {argument}: expected a list, got the text {given!r}: [{given!r}]")
    if cell is not None and cell not in GATES:
        raise ModelFileError(f"{where}: cell: expected one of {', '.join(GATES)}, got {cell!r}")
    arrays = _arrays(tensors, ignore, where)
    recurrent_modules = _find_recurrent(arrays, where)
    order, layers = _stack(recurrent_modules, recurrent, cell, where)
    if cell is not None and cell not in {layer.cell for layer in layers}:
        raise ModelFileError(
            f"{where}: cell: {cell} was asked for, but the shapes say {', '.join(x.cell for x in layers)}"
        )
    linear_modules = _find_linear(arrays)
    head_order, head_layers = _head(linear_modules, head, layers, arrays, where)
    used = {n for name in order for n in recurrent_modules[name].used}
    used |= {n for name in head_order for n in linear_modules[name].used}
    unused = [n for n in arrays if n not in used]
    if unused:
        listed = ", ".join(map(repr, unused[:4])) + (
            f" and {len(unused) - 4} more" if len(unused) > 4 else ""
        )
        module = unused[0].rpartition(".")[0] or unused[0]
        raise ModelFileError(
            f"{where}: tensors that a model of recurrent and linear layers does not have: {listed}; "
            f"if the outputs do not need them: --ignore {printable(module)} or ignore=[{module!r}]"
        )
    names = None if inputs is None else tuple(Input(i) if isinstance(i, str) else i for i in inputs)
    try:
        return Model(
            layers=layers,
            head=head_layers,
            name=name,
            inputs=names or (),
            scaler=scaler,
            detector=detector,
        )
    except ModelFileError as error:
        raise ModelFileError(f"{where}: {error}") from None
