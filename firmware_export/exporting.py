"""`export`: a model in, a directory of C out, whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_rnn import __version__
from edge_rnn.core.digest import weights_digest
from edge_rnn.core.integers import Quantized
from edge_rnn.core.model import Model
from edge_rnn.detect.integer import quantize_on
from edge_rnn.detect.plan import plan_of
from edge_rnn.detect.thresholds import export_obstacles
from edge_rnn.errors import DataError, ExportError
from edge_rnn.files.model_file import save
from edge_rnn.files.readings import read_table
from firmware_export import accuracy
from firmware_export import budget as budgets
from firmware_export.golden import golden
from firmware_export.layouts import LAYOUTS, arrange
from firmware_export.recorded import held
from firmware_export.rest import rest_from
from firmware_export.selftest import selftest
from firmware_export.source import generate
from firmware_export.state import LARGEST_COUNT, to_device
from firmware_export.targets import Target, target_named

TYPES = ("f32", "w8a16")
_RECORD = "export.json"
_MOST_CHANNELS = 64
_TAKEN = frozenset(
    """ auto bool break case catch char class complex const continue default delete do double else enum
    errno export extern float for friend goto if imaginary inline int limits long math namespace new
    operator private public register restrict return short signed sizeof static stdbool stddef stdint stdio
    stdlib string struct switch template this throw time try typedef union unsigned using virtual void
    volatile while main """.split()  # noqa: SIM905  (one word a line would be no easier to read)
)


@dataclass(frozen=True, slots=True)
class Export:
    """What was written: folder, its files (relative), the C name, the budget.

    quantized, errors: in w8a16 the integers it was made of, and what they cost in accuracy."""

    folder: Path
    files: tuple[str, ...]
    name: str
    target: Target
    layout: str
    budget: budgets.Budget
    quantized: Quantized | None = None
    errors: accuracy.IntegerErrors | None = None


def export(
    model: Model,
    out: str | Path,
    *,
    name: str | None = None,
    type: str = "f32",  # noqa: A002  (the command's word)
    target: str = "m4f",
    layout: str = "c",
    rest: str | Path | None = None,
    initial: bytes | None = None,
    flash: int | None = None,
    ram: int | None = None,
    clock_hz: float | None = None,
    measure: bool = True,
    calibrate: str | Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Export:
    """Write `model` as C99 into the directory `out`.

    Args:
        out: a directory that does not exist, is empty, or holds an earlier export, which is replaced.
        name: prefix of all C names and files; default: the model's name.
        type: number format, "f32" or "w8a16" (int8 weights, int16 activations).
        target: a core, see `firmware_export.TARGETS`.
        layout: "c" (Makefile), "cmake", "arduino" (library) or "zephyr" (module).
        rest: recorded normal data; the model starts from where it settles on its median. The model so made
            is written beside the code as NAME.safetensors.
        initial: a snapshot of `Detector` (or `Stepper`) that `NAME_init` starts from.
        flash, ram: bytes there are; ram counts one stream's state and verdict, and the stack.
        clock_hz: processor clock, for an estimate of time.
        measure: compile (and run, on an emulated core) to measure code, stack and instructions, where the
            programs for that are installed.
        calibrate: for w8a16, recorded normal data to take ranges from and to measure errors on; None: the
            ranges in the model file, and noise.
        progress: called with what is done next, where that takes long.

    Raises:
        ExportError: what was asked for cannot be done; nothing is written.
        DataError: `rest` or `calibrate` cannot be used. SnapshotError: `initial` is not of this model.
    """
    core = target_named(target)
    if type not in TYPES:
        raise ExportError(f"type: expected one of {', '.join(TYPES)}, got {type!r}")
    if calibrate is not None and type != "w8a16":
        raise ExportError("calibrate: only integers have ranges; leave it out, or take type w8a16")
    if layout not in LAYOUTS:
        raise ExportError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
    for what, value in (("flash", flash), ("ram", ram), ("clock", clock_hz)):
        if value is not None and not 0 < value < float("inf"):
            raise ExportError(f"{what}: expected a number above 0, got {value}")
    prefix = c_name(model.name if name is None else name, given=name is not None)
    check_exportable(model)
    folder = Path(out)
    _check_folder(folder)
    if rest is not None:
        model = rest_from(model, rest)
    quantized, errors = _integers(model, calibrate) if type == "w8a16" else (None, None)
    start = None if initial is None else to_device(model, initial, quantized=quantized)
    recorded = golden(model, fused=core.fused, quantized=quantized)
    plain = generate(model, prefix, core.fused, start, quantized=quantized, packing=core.packing)
    found = budgets.budget(
        model, prefix, core, plain, recorded, measure=measure, clock_hz=clock_hz, quantized=quantized,
        progress=progress,
    )  # fmt: skip
    budgets.check(found, flash, ram)
    lines = [*found.lines(), *(errors.lines() if errors else ())]
    notes = " *\n * Budget on " + core.title + ":\n" + "".join(f" *   {line}\n" for line in lines)
    source = generate(model, prefix, core.fused, start, notes, quantized=quantized, packing=core.packing)
    code = {f"{prefix}.h": source.header, f"{prefix}.c": source.code, **selftest(model, prefix, recorded)}
    files = arrange(layout, model, prefix, core, code)
    facts = {
        "edge_rnn": __version__, "model": model.name, "weights": weights_digest(model), "name": prefix,
        "type": type, "target": core.name, "layout": layout,
        "class": None if quantized else "F" if core.fused else "U",
        "integers": None if quantized is None else quantized.digest,
        "errors": None if errors is None else errors.as_json(),
        "detector": None if model.detector is None else plan_of(model).detector_digest,
        "inputs": [{"name": i.name, "unit": i.unit} for i in model.inputs],
    }  # fmt: skip
    files[_RECORD] = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    files["budget.json"] = json.dumps(found.as_json(), indent=2) + "\n"
    written = _write(folder, files, {f"{prefix}.safetensors": model} if rest is not None else {})
    return Export(folder, written, prefix, core, layout, found, quantized, errors)


def _integers(model: Model, calibrate: str | Path | None) -> tuple[Quantized, accuracy.IntegerErrors]:
    """The model in w8a16 and what that costs, on recorded data or on noise."""
    if calibrate is None:
        quantized = quantize_on(model, None)
        return quantized, accuracy.measure(model, quantized, *accuracy.noise(model), "noise")
    table = read_table(calibrate, channels=[i.name for i in model.inputs], min_rows=1)
    for k, one in enumerate(model.inputs):
        if not np.isfinite(table.values[:, k]).any():
            raise DataError(f"{calibrate}: channel {one.name!r} has no finite value, so it has no range")
    quantized = quantize_on(model, table.values)
    xs, present = held(table.values)
    errors = accuracy.measure(model, quantized, table.times_ns, xs, present, "the calibration data")
    return quantized, errors


def c_name(text: str, *, given: bool = True) -> str:
    """`text` if it can be the prefix of C names; a model's own name has other characters replaced first.

    Raises:
        ExportError: it cannot.
    """
    name = text if given else re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_")
    usable = len(name) <= 40 and re.fullmatch(r"[A-Za-z](_?[A-Za-z0-9])*", name, re.ASCII) is not None
    if not usable or name.lower() in _TAKEN:
        raise ExportError(
            f"name: expected a C identifier of at most 40 characters, no word of C or C++, got {text!r}; "
            "give one with --name"
        )
    return name


def check_exportable(model: Model) -> None:
    """Raise an `ExportError` that names everything about `model` that C cannot have."""
    spec = model.detector
    if spec is None:
        return
    problems = [f"detector: {reason}" for reason in export_obstacles(spec, model.features)]
    if problems:
        problems.append(
            "exportable are the scorers mewma, ewma_z and the thresholds fixed, quantile, dspot_ewma"
        )
    if model.input_size > _MOST_CHANNELS:
        problems.append(f"detector: expected at most {_MOST_CHANNELS} channels, got {model.input_size}")
    counts = {
        "warmup": spec.warmup, "guard.max_missing": spec.guard.max_missing,
        "threshold.max_freeze": spec.threshold.max_freeze, "alarm.clear_hold": spec.alarm.clear_hold,
        "alarm.refractory": spec.alarm.refractory,
        "guard.stuck_after": max(spec.guard.stuck_after, default=0),
    }  # fmt: skip
    problems += [
        f"detector.{key}: expected less than {LARGEST_COUNT} steps (32-bit counters), got {value}"
        for key, value in counts.items()
        if value >= LARGEST_COUNT
    ]
    if problems:
        raise ExportError("; ".join(problems))


def _check_folder(folder: Path) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise ExportError(f"{folder}: expected a directory, got something else; give another one")
    try:
        inside = list(folder.iterdir())
    except OSError as error:
        raise ExportError(f"{folder}: cannot be read: {error.strerror or error}") from None
    if inside and not (folder / _RECORD).is_file():
        raise ExportError(
            f"{folder}: is not empty and holds no earlier export, so it is not replaced; give another one"
        )


def _write(folder: Path, files: dict[str, str], models: dict[str, Model]) -> tuple[str, ...]:
    """Write everything beside `folder` first, then put it in its place in one step."""
    target = folder.absolute()
    fresh: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        fresh.chmod(0o755)
        for path, text in files.items():
            place = fresh / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, "utf-8", newline="\n")
        for path, model in models.items():
            save(model, fresh / path)
        if target.exists():
            old = fresh.with_name(f"{fresh.name}.old")
            target.rename(old)
            try:
                fresh.rename(target)
            except OSError:
                old.rename(target)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            fresh.rename(target)
    except OSError as error:
        raise ExportError(
            f"{folder}: cannot be written: {error.strerror or error}; nothing was changed"
        ) from None
    finally:
        if fresh is not None:
            with suppress(OSError):
                shutil.rmtree(fresh)
    return tuple(sorted([*files, *models]))
