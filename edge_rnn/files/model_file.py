"""Our model file: safetensors tensors and one JSON document, `__metadata__["edge_rnn"]`.

    tensors    layers.<i>.{w_ih,w_hh,b_ih,b_hh,w_hr}   PyTorch's shapes and gate order, float32
               head.<i>.{weight,bias}
               self_test.{x,y}    rest_state.<i>.{h,c}
    document   format, name, inputs, layers, head, digests; and, where the model has them, scaler, detector,
               self_test, rest_state, activation_ranges, provenance (all described in FORMAT.md)

The document repeats the sizes the tensors have, and both must agree; every tensor must be accounted for and
every key known, so nothing in a file is silently unread. Two digests are checked at load: `weights` over the
tensors, cells and activations, and `state` over the layout of a stream's state; a snapshot names both. They
guard against accidents, not against an author who means harm.

A file is written to a temporary name beside its place, flushed to the disk and then renamed, so a reader
finds the old file or the new one, never half of one. Equal models give equal bytes. The format has no place
for a host name, a user or a path, and `save` refuses texts that hold a path.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.digest import weights_digest
from edge_rnn.core.layout import StateLayout
from edge_rnn.core.model import (
    GATES,
    Float32,
    Input,
    Linear,
    Model,
    Recurrent,
    RestState,
    Scaler,
    SelfTest,
)
from edge_rnn.core.reference import Reference
from edge_rnn.errors import ModelFileError
from edge_rnn.files.model_document import (
    Document,
    LayerSection,
    RestStateSection,
    read_document,
    write_document,
)
from edge_rnn.files.safetensors_file import Tensors, check, read_tensors, write_tensors

KEY = "edge_rnn"
MAX_TEST_STEPS = 4096
MAX_TEST_MACS = 4_000_000_000
Run = Callable[[Float32], NDArray[np.floating]]


def is_model_file(data: bytes, where: str) -> bool:
    """Whether checked safetensors bytes hold our document (else they are plain tensors)."""
    return KEY in check(data, where).metadata


def _tensors_of(model: Model) -> dict[str, Float32]:
    found: dict[str, Float32 | None] = {}
    for i, layer in enumerate(model.layers):
        for part in ("w_ih", "w_hh", "b_ih", "b_hh", "w_hr"):
            found[f"layers.{i}.{part}"] = getattr(layer, part)
    for i, linear in enumerate(model.head):
        found |= {f"head.{i}.weight": linear.weight, f"head.{i}.bias": linear.bias}
    if model.self_test is not None:
        found |= {"self_test.x": model.self_test.x, "self_test.y": model.self_test.y}
    if model.rest_state is not None:
        for i, (h, c) in enumerate(zip(model.rest_state.h, model.rest_state.c, strict=True)):
            found |= {f"rest_state.{i}.h": h, f"rest_state.{i}.c": c}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def encode_model(model: Model) -> bytes:
    """The bytes of `model`'s file; equal models give equal bytes.

    Raises:
        ModelFileError: a text holds a path, the provenance is not plain JSON, or the document is over 1 MB.
    """
    _check_replay_cost(model)
    return write_tensors(_tensors_of(model), {KEY: write_document(model)})


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write `model` to `path`: whole or not at all, also through a power cut.

    Raises:
        ModelFileError: the model cannot be written as a file, or the place cannot be written to.
    """
    data = encode_model(model)
    target = Path(path)
    try:
        _write_atomically(target, data)
    except (OSError, ValueError) as error:  # ValueError: no file name, or a NUL in it
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelFileError(f"{target}: cannot be written: {reason}") from None


def _write_atomically(target: Path, data: bytes) -> None:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# --- reading ---------------------------------------------------------------------------------------------


class _Taker:
    """Hands out a file's tensors once each and knows which are left."""

    def __init__(self, tensors: Tensors, where: str) -> None:
        self._left = dict(tensors)
        self._where = where

    def take(self, name: str, shape: tuple[int, ...]) -> Float32:
        tensor = self._left.pop(name, None)
        if tensor is None:
            raise ModelFileError(f"{self._where}: tensor {name!r} is missing; the file is damaged")
        if tensor.dtype != np.float32 or tensor.shape != shape:
            raise ModelFileError(
                f"{self._where}: tensor {name!r}: expected float32 {shape}, "
                f"got {tensor.dtype} {tensor.shape}; the file is damaged"
            )
        return cast(Float32, tensor)

    def finish(self) -> None:
        if self._left:
            raise ModelFileError(
                f"{self._where}: tensor {min(self._left)!r} is not part of the description; "
                "the file is damaged"
            )


def _layer(taker: _Taker, i: int, section: LayerSection) -> Recurrent:
    rows, fed_back = GATES[section.cell] * section.hidden, section.projection or section.hidden

    def bias(name: str) -> Float32 | None:
        return taker.take(f"layers.{i}.{name}", (rows,)) if section.bias else None

    return Recurrent(
        cell=section.cell,
        w_ih=taker.take(f"layers.{i}.w_ih", (rows, section.inputs)),
        w_hh=taker.take(f"layers.{i}.w_hh", (rows, fed_back)),
        b_ih=bias("b_ih"),
        b_hh=bias("b_hh"),
        w_hr=taker.take(f"layers.{i}.w_hr", (section.projection, section.hidden))
        if section.projection
        else None,
    )


def _rest_state(taker: _Taker, section: RestStateSection, layers: tuple[Recurrent, ...]) -> RestState:
    if section.layers != len(layers):
        raise ModelFileError(f"rest_state: expected {len(layers)} layers, got {section.layers}")
    return RestState(
        h=tuple(taker.take(f"rest_state.{i}.h", (r.output_size,)) for i, r in enumerate(layers)),
        c=tuple(
            taker.take(f"rest_state.{i}.c", (r.hidden_size,)) if r.cell == "lstm" else None
            for i, r in enumerate(layers)
        ),
    )


def _check_replay_cost(model: Model) -> None:
    """Keep a load's time bounded: a self-test is a few dozen steps, not a benchmark."""
    if model.self_test is None:
        return
    steps = len(model.self_test.x)
    if steps > MAX_TEST_STEPS or steps * model.macs > MAX_TEST_MACS:
        raise ModelFileError(
            f"self_test: expected at most {MAX_TEST_STEPS} steps and {MAX_TEST_MACS} multiply-adds in all, "
            f"got {steps} and {steps * model.macs}; record fewer steps"
        )


def _build(document: Document, taker: _Taker) -> Model:
    layers = tuple(_layer(taker, i, section) for i, section in enumerate(document.layers))
    head = tuple(
        Linear(
            weight=taker.take(f"head.{i}.weight", (section.outputs, section.inputs)),
            bias=taker.take(f"head.{i}.bias", (section.outputs,)) if section.bias else None,
            activation=section.activation,
        )
        for i, section in enumerate(document.head)
    )
    scaler, test, rest = document.scaler, document.self_test, document.rest_state
    inputs = layers[0].input_size if layers else len(document.inputs)
    outputs = head[-1].output_size if head else layers[-1].output_size if layers else 0
    return Model(
        layers=layers,
        head=head,
        name=document.name,
        inputs=tuple(Input(i.name, i.unit) for i in document.inputs),
        scaler=None if scaler is None else Scaler(np.array(scaler.mean), np.array(scaler.std)),
        detector=document.detector,
        self_test=None if test is None else SelfTest(
            x=taker.take("self_test.x", (test.steps, inputs)),
            y=taker.take("self_test.y", (test.steps, outputs)),
            tolerance=test.tolerance,
        ),
        rest_state=None if rest is None else _rest_state(taker, rest, layers),
        activation_ranges=document.activation_ranges,
        provenance=document.provenance,
        features=document.features,
    )  # fmt: skip


def _check_digest(what: str, expected: str, got: str, where: str) -> None:
    if expected != got:
        raise ModelFileError(
            f"{where}: digest of the {what}: the file says {expected[:16]!r}, "
            f"its content gives {got[:16]!r}; the file is damaged or was edited by hand: write it again"
        )


def decode_model(data: bytes, where: str, *, self_test: bool = True) -> Model:
    """The model in a model file's bytes; `where` is what messages call the file.

    With `self_test` the recorded steps are replayed with the float64 reference, so a file whose numbers are
    not what its author measured never gets past here.

    Raises:
        ModelFileError: not our file, another format version, damaged, inconsistent, or the self-test fails.
    """
    tensors, metadata = read_tensors(data, where)
    if KEY not in metadata:
        raise ModelFileError(
            f"{where}: plain tensors without a model description; "
            "turn it into a model file with: edge-rnn convert"
        )
    document = read_document(metadata[KEY], where)
    taker = _Taker(tensors, where)
    try:
        model = _build(document, taker)
        _check_replay_cost(model)
    except ModelFileError as error:
        text = str(error)
        raise ModelFileError(text if text.startswith(where) else f"{where}: {text}") from None
    taker.finish()
    _check_digest("weights", document.digests.weights, weights_digest(model), where)
    _check_digest("state layout", document.digests.state, StateLayout(model).digest, where)
    if self_test:
        reference = Reference(model)
        check_self_test(model, reference.run, where)
    return model


def check_self_test(model: Model, run: Run, where: str) -> float | None:
    """Replay the recorded steps with `run` and return the largest deviation; None where there are none.

    Args:
        model: its `self_test` holds x (T, I), y (T, O) and the allowed absolute deviation.
        run: x (T, I) float32 to y (T, O), from the resting state: of a fresh `Reference` or `Stepper`.
        where: what the message calls the file.

    Raises:
        ModelFileError: an output deviates by more than the tolerance; the message names the worst one.
    """
    test = model.self_test
    if test is None:
        return None
    with np.errstate(all="ignore"):  # weights at the edge of float32 may overflow: the comparison says so
        got = np.asarray(run(test.x), dtype=np.float64)
        deviation = np.abs(got - test.y)
    # Not a number counts as the worst deviation there is.
    deviation[np.isnan(deviation)] = np.inf
    worst = float(deviation.max())
    if not worst <= test.tolerance:
        step, output = (int(i) for i in np.unravel_index(int(deviation.argmax()), deviation.shape))
        raise ModelFileError(
            f"{where}: self-test: step {step}, output {output}: expected {test.y[step, output]:.9g}, "
            f"got {got[step, output]:.9g} (deviation {worst:.3g}, allowed {test.tolerance:.3g}); "
            "the file does not belong to its recorded outputs: export or convert it again"
        )
    return worst
