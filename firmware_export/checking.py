"""Recorded data through the exported code, against the Python runtime, word by word."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.model import Model
from edge_rnn.detect.verdict import STATUSES
from edge_rnn.errors import DataError, ExportError
from edge_rnn.files.readings import read_table
from firmware_export import toolchain
from firmware_export.exporting import Export
from firmware_export.golden import detector, runtime
from firmware_export.recorded import exported, held


@dataclass(frozen=True, slots=True)
class Checked:
    """Of `samples` recorded samples, `words` words of answers were compared and `mismatches` differ."""

    samples: int
    words: int
    mismatches: int
    alarms: int
    where: str

    def line(self) -> str:
        """For people."""
        said = "every bit is right" if self.mismatches == 0 else f"{self.mismatches:,} words DIFFER"
        return f"{self.samples:,} samples on {self.where}, {self.words:,} words, {self.alarms} alarms: {said}"

    def as_json(self) -> dict[str, object]:
        """Plain numbers."""
        return {
            "samples": self.samples, "words": self.words, "mismatches": self.mismatches,
            "alarms": self.alarms, "where": self.where,
        }  # fmt: skip


def check(model: Model, made: Export, data: str | Path) -> Checked:
    """Build the export for its core, run it on recorded data, compare every word with the runtime.

    A missing value is held, as `edge-rnn replay` does.

    Raises:
        ExportError: a compiler or emulator is missing or fails. DataError: the data cannot be used.
    """
    table = read_table(data, channels=[i.name for i in model.inputs], min_rows=1)
    xs, present = held(table.values)
    rows = present.any(1)
    times, xs, present = table.times_ns[rows], xs[rows], present[rows]
    if not len(times):
        raise DataError(f"{data}: no row has a value, so there is nothing to compare")
    absent = toolchain.missing(made.target)
    if absent is not None:
        raise ExportError(f"check: needs {absent}, which is not installed; the export itself is written")
    sources = made.folder / "src" if (made.folder / "src").is_dir() else made.folder
    fused, quantized = made.target.fused, made.quantized
    detect = model.detector is not None
    with tempfile.TemporaryDirectory(prefix="firmware-export-") as place:
        program = Path(place) / "program"
        toolchain.build(sources, made.name, model, made.target, program, detect=detect)
        if detect:
            samples = toolchain.detect_samples(times, xs, present)
            ran = toolchain.run(program, model, made.target, samples, detect=True, quantized=quantized)
            said = detector(model, quantized, fused=fused).run(times, xs, present)
            expected = exported(said, model.input_size)
            wrong, words = different(ran.answers, expected)
            anomaly = expected["status"] == STATUSES.index("anomaly")
            alarms = int((np.diff(anomaly.astype(int), prepend=0) == 1).sum())
        else:
            x = (
                (xs - (model.scaler.mean if model.scaler else 0)) / (model.scaler.std if model.scaler else 1)
            ).astype(np.float32)
            inputs = toolchain.step_samples(x)
            ran = toolchain.run(program, model, made.target, inputs, detect=False, quantized=quantized)
            y = runtime(model, quantized, fused=fused).run(x)
            wrong, words, alarms = int((ran.answers.view("u4") != y.view("u4")).sum()), y.size, 0
    return Checked(
        len(times), words, wrong, alarms, f"{made.target.title}{' (emulated)' if made.target.machine else ''}"
    )


def different(answers: NDArray[np.generic], expected: NDArray[np.void]) -> tuple[int, int]:
    """Words of two arrays of verdicts that differ, and how many there are: by their bits, a NaN as NaN."""
    wrong = words = 0
    for name in answers.dtype.names or ():  # without the explanation, which the device does not give
        a, b = np.asarray(answers[name]), np.asarray(expected[name])  # type: ignore[call-overload]
        unequal = a != b
        if a.dtype.kind == "f":
            unequal = (a.view(np.uint64) != b.view(np.uint64)) & ~(np.isnan(a) & np.isnan(b))
        wrong += int(unequal.sum())
        words += a.size
    return wrong, words
