"""The device's state: its fields, its bytes, and the way between it and the daemon's.

Fields go from wide to narrow with a filler at the end, so that the struct has the same bytes under every
ABI (some align a double to 4 bytes). It holds what this model can need and nothing else: no level where no
drift is removed, no counters of a rule that is off. What is left out has a fixed value in the daemon's
state, so nothing is lost on the way; `to_device` and `from_device` are inverse up to what no verdict can
depend on.

In integers (w8a16) the network's part is what `integer_source.network_fields` names, and the way between the
two is a conversion: the daemon's snapshots hold floats.

Counters of 32 bits stop at their largest value. The daemon's have 64: every limit is checked to be
below 2^32 - 1 at export, so a stopped counter is on the same side of it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core import snapshot as core_snapshot
from edge_rnn.core.detector_spec import DetectorSpec
from edge_rnn.core.digest import weights_digest
from edge_rnn.core.integer_kernel import IntegerPacked
from edge_rnn.core.integers import GRU_BITS, Quantized
from edge_rnn.core.layout import StateLayout
from edge_rnn.core.model import Model
from edge_rnn.detect import fields as at
from edge_rnn.detect import snapshot as detector_snapshot
from edge_rnn.detect.plan import plan_of
from edge_rnn.errors import SnapshotError
from firmware_export.integer_source import network_fields

LARGEST_COUNT = 2**32 - 1
# Magic, version, 0, digest, sizes of the detector's and two other parts, which follow.
_STREAM_HEAD = struct.Struct("<4sHH32s3I")
_WIDTH = {
    "int64_t": 8,
    "uint64_t": 8,
    "double": 8,
    "float": 4,
    "uint32_t": 4,
    "uint8_t": 1,
    "int32_t": 4,
    "int16_t": 2,
}
_DTYPE = {
    "int64_t": "<i8", "uint64_t": "<u8", "double": "<f8", "float": "<f4", "uint32_t": "<u4", "uint8_t": "u1",
    "int32_t": "<i4", "int16_t": "<i2",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Field:
    """One member of the struct; shape () is a single number."""

    kind: str
    name: str
    shape: tuple[int, ...] = ()
    comment: str = ""

    @property
    def count(self) -> int:
        """Numbers in it."""
        return int(np.prod(self.shape, dtype=np.int64))

    def declaration(self) -> str:
        """The line in the struct."""
        dimensions = "".join(f"[{n}]" for n in self.shape)
        line = f"    {self.kind} {self.name}{dimensions};"
        return f"{line:<36}/* {self.comment} */" if self.comment else line


@dataclass(frozen=True, slots=True)
class Rules:
    """Which parts of a detector a model uses."""

    drift: bool
    stuck: bool
    silent: bool
    ranges: bool
    gap_reset: bool
    predict: bool
    max_missing: bool
    max_freeze: bool
    local_mean: bool
    residual: bool

    @classmethod
    def of(cls, spec: DetectorSpec) -> Rules:
        """What `spec` switches on."""
        guard = spec.guard
        return cls(
            drift=any(spec.condition.drift),
            stuck=any(guard.stuck_after),
            silent=guard.silent_after_ns > 0,
            ranges=any(v is not None for v in (*guard.low, *guard.high)),
            gap_reset=guard.gap_ns > 0 and guard.on_gap == "reset",
            predict=guard.on_missing == "predict",
            max_missing=guard.max_missing > 0,
            max_freeze=spec.threshold.max_freeze > 0,
            local_mean=spec.threshold.kind == "dspot_ewma",
            residual=spec.kind != "classify",
        )


def fields(model: Model, quantized: Quantized | None = None) -> list[Field]:
    """The members of `pump_state`, the filler included; `quantized`: of the model in integers."""
    found: list[Field] = []
    for i, layer in enumerate(model.layers):
        if quantized is not None:
            break
        found.append(Field("float", f"h{i}", (layer.output_size,), f"layer {i}, {layer.cell}"))
        if layer.cell == "lstm":
            found.append(Field("float", f"c{i}", (layer.hidden_size,)))
    if quantized is not None:
        cells = [layer.cell for layer in model.layers]
        for kind, name, size in network_fields(quantized):
            said = f"layer {name[1:]}, {cells[int(name[1:])]}"
            found.append(Field(kind, name, (size,), f"{said}, {_integer_format(kind, name, quantized)}"))
    if model.detector is not None:
        found += _detector_fields(model, model.detector)
    found.sort(key=lambda f: -_WIDTH[f.kind])
    size = sum(_WIDTH[f.kind] * f.count for f in found)
    unit = _WIDTH[found[0].kind]
    if size % unit:
        found.append(Field("uint8_t", "filler", (-size % unit,), "to the same size under every ABI"))
    return found


def _integer_format(kind: str, name: str, quantized: Quantized) -> str:
    if name[0] == "c":
        return "Q22"
    unit = quantized.layers[int(name[1:])].h_scale
    return "Q24" if kind == "int32_t" else "Q15" if unit == 2.0**-15 else f"steps of {unit:.6g}"


def _detector_fields(model: Model, spec: DetectorSpec) -> list[Field]:
    c, rules, scorers = model.input_size, Rules.of(spec), len(spec.scorers)
    listed = [
        (True, Field("int64_t", "time_ns", (), "of the last sample")),
        (True, Field("int64_t", "steps", (), "samples so far")),
        (True, Field("uint64_t", "history", (), "the last scores, one bit each: too high")),
        (rules.local_mean, Field("double", "local_mean", (), "moving mean of the scores")),
        (True, Field("double", "held", (c,), "last good value, as the network saw it")),
        (rules.stuck, Field("double", "last", (c,), "last finite reading")),
        (rules.drift, Field("double", "level", (c,), "slow level of each channel")),
        (rules.residual, Field("double", "z", (scorers, c), "smoothed deviations")),
        (rules.residual and rules.max_freeze, Field("double", "center", (scorers, c), "what is normal")),
        (rules.silent, Field("int64_t", "heard", (c,), "time of the last reading")),
        (True, Field("float", "y", (model.output_size,), "what the network said last")),
        (rules.stuck, Field("uint32_t", "run", (c,), "equal readings in a row")),
        (rules.max_missing, Field("uint32_t", "bridged", (c,), "samples without a good reading")),
        (True, Field("uint32_t", "warm", (), "samples until the first judgement")),
        (True, Field("uint32_t", "clearing_steps", ())),
        (True, Field("uint32_t", "refractory", (), "steps until a new alarm may open")),
        (rules.max_freeze, Field("uint32_t", "frozen", (), "steps the alarm has lasted")),
        (rules.drift, Field("uint8_t", "levelled", (c,), "1: the level has been found")),
        (True, Field("uint8_t", "spoken", (), "1: y says something")),
        (True, Field("uint8_t", "phase", (), "0 normal, 1 pending, 2 anomaly, 3 clearing")),
    ]
    return [field for wanted, field in listed if wanted]


def state_dtype(model: Model, quantized: Quantized | None = None) -> np.dtype[np.void]:
    """The struct as a NumPy record, little-endian."""
    return np.dtype([(f.name, _DTYPE[f.kind], f.shape) for f in fields(model, quantized)])


def _parts(model: Model) -> list[tuple[str, str, int]]:
    """Name on the device, array and offset in the daemon's record, of every vector and number they share."""
    spec = model.detector
    if spec is None:
        return []
    c = model.input_size
    head, channel = at.DETECT_HEAD, at.MARKS_HEAD
    return [
        ("time_ns", "marks", at.TIME), ("steps", "marks", at.STEPS), ("history", "marks", at.HISTORY),
        ("local_mean", "detect", at.LOCAL_MEAN), ("held", "detect", head + at.HELD_AT * c),
        ("last", "detect", head + at.LAST_AT * c), ("level", "detect", head + at.LEVEL_AT * c),
        ("heard", "marks", channel + at.HEARD_AT * c), ("run", "marks", channel + at.RUN_AT * c),
        ("bridged", "marks", channel + at.BRIDGED_AT * c), ("warm", "marks", at.WARM),
        ("clearing_steps", "marks", at.CLEARING_STEPS), ("refractory", "marks", at.REFRACTORY),
        ("frozen", "marks", at.FROZEN), ("levelled", "marks", channel + at.LEVELLED_AT * c),
        ("spoken", "marks", at.SPOKEN), ("phase", "marks", at.PHASE),
    ]  # fmt: skip


def _network(
    model: Model,
    core: NDArray[np.float32],
    device: NDArray[np.void],
    quantized: Quantized | None,
    *,
    to_device: bool,
) -> None:
    """h, c and y between a core row of floats (core_size,) and the device's record (1,)."""
    layout = StateLayout(model)
    row: NDArray[Any] = core
    if quantized is not None:
        packed = IntegerPacked(quantized)
        row = (packed.row(quantized, core) if to_device else core.copy()).view(np.int32)
    pairs = []
    for i, layer in enumerate(model.layers):
        pairs.append((f"h{i}", layout.h(row, i)))
        if layer.cell == "lstm":
            pairs.append((f"c{i}", layout.c(row, i)))
    for name, numbers in pairs:
        if to_device:
            device[name][0] = numbers
        else:
            numbers[:] = device[name][0]
    if quantized is not None and not to_device:
        _check_integers(model, device)
        core[:] = packed.core(quantized, row.view(np.float32))
    if model.detector is not None and to_device:
        device["y"][0] = layout.y(core)
    elif model.detector is not None:
        layout.y(core)[:] = device["y"][0]


def _check_integers(model: Model, device: NDArray[np.void]) -> None:
    """Refuse integers that the exported code could not have written."""
    for i, layer in enumerate(model.layers):
        for name, limit, there in (
            (f"c{i}", 2**30, layer.cell == "lstm"), (f"h{i}", 2**GRU_BITS, layer.cell == "gru")
        ):  # fmt: skip
            if there and np.abs(device[name][0].astype(np.int64)).max() > limit:
                raise SnapshotError(f"device state: {name} holds a number beyond {limit}; it is damaged")


def _scorer_parts(model: Model, detect: NDArray[np.float64]) -> list[tuple[str, int, NDArray[np.float64]]]:
    """Name on the device, scorer, and the daemon's vector, of all scorers' centers and deviations."""
    c = model.input_size
    found = []
    for k in range(len(model.detector.scorers) if model.detector else 0):
        start = at.DETECT_HEAD + (at.SCORERS_AT + 2 * k) * c
        found += [("center", k, detect[start : start + c]), ("z", k, detect[start + c : start + 2 * c])]
    return found


def device_record(model: Model, row: NDArray[Any], quantized: Quantized | None = None) -> NDArray[np.void]:
    """The device's record (1,) of a detector's record (1,), or without one of a core row (core_size,)."""
    device = np.zeros(1, state_dtype(model, quantized))
    if model.detector is None:
        _network(model, row.astype(np.float32), device, quantized, to_device=True)
        return device
    known = device.dtype.names or ()
    _network(model, row["core"][0], device, quantized, to_device=True)
    for name, where, start in _parts(model):
        if name in known:
            count = device[name][0].size
            numbers = row[where][0][start : start + count]
            if device.dtype[name].base == np.dtype("<u4"):
                numbers = np.minimum(numbers, LARGEST_COUNT)
            device[name][0] = numbers if device[name][0].shape else numbers[0]
    for name, k, numbers in _scorer_parts(model, row["detect"][0]):
        if name in known:
            device[name][0, k] = numbers
    return device


def resting(model: Model, quantized: Quantized | None = None) -> NDArray[np.void]:
    """The device's record (1,) of a stream that has seen nothing."""
    if model.detector is None:
        return device_record(model, StateLayout(model).rest(model), quantized)
    return device_record(model, plan_of(model).fresh, quantized)


def to_device(model: Model, snapshot: bytes, *, quantized: Quantized | None = None) -> bytes:
    """A `Detector.snapshot()` (a `Stepper.snapshot()` where the model has no detector) as a device's state.

    A stream's state from the daemon's store does as well: the detector's part of it is taken.

    Args:
        quantized: what a w8a16 export was made of (`Export.quantized`): h and c become integers.

    Returns:
        The bytes of the exported `..._state`, to be copied over it.

    Raises:
        SnapshotError: the snapshot is damaged or another model's.
    """
    if model.detector is None:
        row, _ = core_snapshot.read_snapshot(snapshot, weights_digest(model), StateLayout(model))
        return device_record(model, row, quantized).tobytes()
    record = detector_snapshot.load(plan_of(model), _detector_part(snapshot))
    return device_record(model, record, quantized).tobytes()


def _detector_part(snapshot: bytes) -> bytes:
    """The detector's snapshot in a stream's state (FORMAT.md); a detector's snapshot as it is."""
    if snapshot[:4] != b"ERST" or len(snapshot) < _STREAM_HEAD.size:
        return snapshot
    size = _STREAM_HEAD.unpack_from(snapshot)[4]
    return snapshot[_STREAM_HEAD.size : _STREAM_HEAD.size + size]


def from_device(
    model: Model,
    state: bytes,
    *,
    fused: bool = True,
    steps: int = 0,
    quantized: Quantized | None = None,
) -> bytes:
    """A device's state as a snapshot that `Detector.restore` (or `Stepper.restore`) accepts.

    Args:
        state: the bytes of the exported `..._state`.
        fused: whether the device computes in class F; a note in the snapshot.
        steps: readings so far, where the model has no detector that counts them.
        quantized: what a w8a16 export was made of; the snapshot is of floats.

    Raises:
        SnapshotError: the size does not fit, or numbers are not what the exported code could have written.
    """
    dtype = state_dtype(model, quantized)
    if len(state) != dtype.itemsize:
        raise SnapshotError(
            f"device state: expected {dtype.itemsize} bytes of {model.name}'s state, got {len(state)}; "
            "read the whole struct of this very export"
        )
    device = np.frombuffer(state, dtype).copy()
    if model.detector is None:
        layout, core = StateLayout(model), np.zeros(StateLayout(model).core_size, np.float32)
        _network(model, core, device, quantized, to_device=False)
        digest = weights_digest(model)
        data = core_snapshot.write_snapshot(core, steps, fused, digest, layout)
        core_snapshot.read_snapshot(data, digest, layout)
        return data
    plan = plan_of(model)
    row = plan.fresh.copy()
    known = dtype.names or ()
    _network(model, row["core"][0], device, quantized, to_device=False)
    for name, where, start in _parts(model):
        if name in known:
            count = device[name][0].size
            row[where][0][start : start + count] = device[name][0].astype(row[where].dtype)
    for name, k, numbers in _scorer_parts(model, row["detect"][0]):
        if name in known:
            numbers[:] = device[name][0, k]
    if "heard" not in known:
        start = at.MARKS_HEAD + at.HEARD_AT * model.input_size
        row["marks"][0][start : start + model.input_size] = device["time_ns"][0]
    data = detector_snapshot.dump(plan, row[0], fused)
    detector_snapshot.load(plan, data)
    return data
