"""The JSON document inside a model file: its sections, and the way there and back.

Every key is known and typed: an unknown, missing or repeated one is an error, and so is another format
version, which is looked at first. Numbers are written with the shortest digits that give the same float64
again. What a user may put in freely, the provenance, must be plain JSON that comes back as it went in, and no
text may hold a path.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from edge_rnn.core.detector_spec import DetectorSpec, facts
from edge_rnn.core.digest import weights_digest
from edge_rnn.core.layout import StateLayout
from edge_rnn.core.model import Activation, Cell, Model
from edge_rnn.errors import ModelFileError, printable
from edge_rnn.files.safetensors_file import refuse_repeated

FORMAT = 1
Size = Annotated[int, Meta(ge=1, le=2**20)]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Base of the document's sections."""


class InputSection(Section, frozen=True, kw_only=True):
    """One input channel."""

    name: str
    unit: str = ""


class LayerSection(Section, frozen=True, kw_only=True):
    """One recurrent layer's sizes."""

    cell: Cell
    inputs: Size
    hidden: Size
    projection: Annotated[int, Meta(ge=0, le=2**20)] = 0
    bias: bool


class HeadSection(Section, frozen=True, kw_only=True):
    """One linear layer's sizes and activation."""

    inputs: Size
    outputs: Size
    bias: bool
    activation: Activation


class ScalerSection(Section, frozen=True, kw_only=True):
    """Readings to model space, float64."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class SelfTestSection(Section, frozen=True, kw_only=True):
    """Recorded steps; the numbers are tensors."""

    steps: Size
    tolerance: float


class RestStateSection(Section, frozen=True, kw_only=True):
    """A stored resting state; the numbers are tensors."""

    layers: Size


class DigestSection(Section, frozen=True, kw_only=True):
    """SHA-256 of the weights and of the state's layout, hex."""

    weights: str
    state: str


class Document(Section, frozen=True, kw_only=True):
    """The whole description; absent sections are left out of the file."""

    format: int
    name: str
    inputs: tuple[InputSection, ...]
    layers: tuple[LayerSection, ...]
    head: tuple[HeadSection, ...]
    digests: DigestSection
    scaler: ScalerSection | None = None
    detector: DetectorSpec | None = None
    self_test: SelfTestSection | None = None
    rest_state: RestStateSection | None = None
    activation_ranges: tuple[float, ...] | None = None
    provenance: dict[str, object] = msgspec.field(default_factory=dict)
    features: tuple[str, ...] = ()


class _Version(Struct, frozen=True):
    format: int


def _document_of(model: Model) -> Document:
    test, rest, scaler = model.self_test, model.rest_state, model.scaler
    ranges = model.activation_ranges
    return Document(
        format=FORMAT,
        name=model.name,
        inputs=tuple(InputSection(name=i.name, unit=i.unit) for i in model.inputs),
        layers=tuple(
            LayerSection(
                cell=r.cell,
                inputs=r.input_size,
                hidden=r.hidden_size,
                projection=0 if r.w_hr is None else r.output_size,
                bias=r.b_ih is not None,
            )
            for r in model.layers
        ),
        head=tuple(
            HeadSection(
                inputs=h.input_size,
                outputs=h.output_size,
                bias=h.bias is not None,
                activation=h.activation,
            )
            for h in model.head
        ),
        digests=DigestSection(weights=weights_digest(model), state=StateLayout(model).digest),
        scaler=None if scaler is None else ScalerSection(
            mean=tuple(scaler.mean.tolist()), std=tuple(scaler.std.tolist())
        ),
        detector=model.detector,
        self_test=None if test is None else SelfTestSection(steps=len(test.x), tolerance=test.tolerance),
        rest_state=None if rest is None else RestStateSection(layers=len(rest.h)),
        activation_ranges=None if ranges is None else tuple(float(r) for r in ranges),
        provenance=dict(model.provenance),
        features=model.features,
    )  # fmt: skip


# An absolute path, a home directory or a drive letter at the start of a text or of a word.
_PATH = re.compile(r"(?:^|[\s\"'=(\[,;:])(?:(?:/[^/\s]+){2,}|~\w*/|[A-Za-z]:[\\/](?!/)|\\\\\w)")


def _check_text(text: str, place: str, known: frozenset[str] = frozenset()) -> None:
    if _PATH.search(text) and text not in known:
        raise ModelFileError(
            f"{place}: a model file never holds a path, got {text[:60]!r}; give the bare file name"
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ModelFileError(f"{place}: expected valid Unicode text, got {text[:60]!r}") from None


def _check_json(value: object, place: str, known: frozenset[str], depth: int = 0) -> None:
    """Refuse what does not come back from JSON as it went in, and paths other than the `known` texts."""
    if depth > 16:
        raise ModelFileError(f"{place}: nested deeper than 16 levels")
    if isinstance(value, str):
        _check_text(value, place, known)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ModelFileError(f"{place}: expected text keys, got {key!r}")
            _check_text(key, place, known)
            _check_json(item, f"{place}.{key}", known, depth + 1)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_json(item, f"{place}[{i}]", known, depth + 1)
    elif type(value) is float:
        if not math.isfinite(value):
            raise ModelFileError(f"{place}: expected a finite number, got {value}")
    elif type(value) is int:
        if not -(2**63) <= value < 2**63:
            raise ModelFileError(f"{place}: expected a number of 64 bits, got {value}")
    elif value is not None and type(value) is not bool:
        raise ModelFileError(
            f"{place}: expected plain JSON (text, number, true, false, null, list, object), "
            f"got {type(value).__name__}"
        )


def _plain_number(value: object) -> object:
    """NumPy's scalars as Python's, exactly: calibration fills a detector's numbers with them."""
    if isinstance(value, np.generic):
        return value.item()
    raise ModelFileError(f"expected plain numbers and text in a model, got {type(value).__name__}")


_ENCODER = msgspec.json.Encoder(order="deterministic", enc_hook=_plain_number)
# Keeps the order of a spec's fields.
_FACTS = msgspec.json.Encoder(enc_hook=_plain_number)


def write_document(model: Model) -> str:
    """The document of `model` as JSON; equal models give equal texts.

    Raises:
        ModelFileError: a text holds a path, or the provenance is not plain JSON.
    """
    _check_text(model.name, "name")
    # A channel may be named after a topic like /plant/pump/flow, which only looks like a path.
    names = frozenset(channel.name for channel in model.inputs)
    for i, channel in enumerate(model.inputs):
        _check_text(channel.name, f"inputs[{i}].name", names)
        _check_text(channel.unit, f"inputs[{i}].unit")
    _check_json(model.provenance, "provenance", names)
    document = _document_of(model)
    if model.detector is not None:
        detector = msgspec.Raw(_FACTS.encode(facts(model.detector)))
        document = msgspec.structs.replace(document, detector=detector)
    return _ENCODER.encode(document).decode("utf-8")


def read_document(text: str, where: str) -> Document:
    """The document in a JSON text; `where` is what messages call the file.

    Raises:
        ModelFileError: another format version, no JSON, an unknown, missing or repeated key, a wrong type.
    """
    try:
        json.loads(text, object_pairs_hook=refuse_repeated)
        version = msgspec.json.decode(text, type=_Version).format
        if version != FORMAT:
            raise ModelFileError(
                f"{where}: format {version}, this version reads format {FORMAT}; "
                "install a newer edge-rnn or write the file again"
            )
        return msgspec.json.decode(text, type=Document)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ModelFileError(
            f"{where}: model description: {printable(str(error))[:300]}; the file is damaged"
        ) from None
