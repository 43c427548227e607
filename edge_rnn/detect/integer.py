"""The detector over a quantised network: all of `detector.py` as it is, only the network's step is in
integers.

The same compiled loop is built around `integer_step`; h and c lie in the row as integers. Snapshots hold
them as floats, so a stream can move between the two networks and to a device. Verdicts are those of the
exported C.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.integer_kernel import IntegerPacked
from edge_rnn.core.integers import Quantized
from edge_rnn.core.model import Float64, Model
from edge_rnn.core.quantize import quantize
from edge_rnn.detect import fields as at
from edge_rnn.detect import loop, snapshot
from edge_rnn.detect.detector import Detector, DetectorTable
from edge_rnn.errors import ExportError

_MOST_ROWS, _STRETCH = 65_536, 4096


class IntegerDetectorTable(DetectorTable):
    """A `DetectorTable` whose network is `quantized`.

    Args:
        model: with a detector section; its network is the one `quantized` was made of.
        quantized: see `quantize`.
        capacity: number of streams.
    """

    def __init__(self, model: Model, quantized: Quantized, capacity: int) -> None:
        super().__init__(model, capacity, "U")
        self._quantized, self._integers = quantized, IntegerPacked(quantized)
        self._run = loop.integer_rows(of_any=self.plan.general)
        self._fresh = self.plan.fresh.copy()
        self._fresh["core"][0] = self._integers.row(quantized, self._fresh["core"][0])
        self.states[:] = self._fresh
        self._words = np.zeros(self._integers.scratch_size, np.int32)
        for word, array in (
            (at.FRESH_WORD, self._fresh), (at.NETWORK_WORD, self._integers.plan),
            (at.WEIGHTS_WORD, self._integers.weights), (at.SCRATCH_WORD, self._words),
        ):  # fmt: skip
            self._table[word] = array.ctypes.data

    def reset(self, row: int) -> None:
        """Make `row` a stream that has seen nothing."""
        self.states[row] = self._fresh[0]

    def snapshot(self, row: int) -> bytes:
        """The row with h and c as floats: a float detector can go on from it, too.

        A float32 holds 24 bits, so an lstm's cell beyond +-4 is rounded.
        """
        record = self.states[row : row + 1].copy()
        record["core"][0] = self._integers.core(self._quantized, record["core"][0])
        return snapshot.dump(self.plan, record[0], self.fused)

    def restore(self, row: int, content: bytes) -> None:
        """Bring `row` to a saved state, each number to its nearest step; errors as `DetectorTable`."""
        record = snapshot.load(self.plan, content)
        record["core"][0] = self._integers.row(self._quantized, record["core"][0])
        self.states[row] = record[0]


class IntegerDetector(Detector):
    """One stream over a quantised network; `quantized.model` has a detector section."""

    def __init__(self, quantized: Quantized) -> None:
        super().__init__(quantized.model, "U")
        self._use(IntegerDetectorTable(quantized.model, quantized, 1))


def network_inputs(model: Model, readings: NDArray[np.float64]) -> Float64:
    """What the network is given for raw readings (T, C), in model space (T', C): scaled, without its drift,
    limited.

    A missing reading (NaN) is held. Of long recordings evenly spread stretches are taken.
    """
    values = readings
    if len(values) > _MOST_ROWS:
        starts = np.linspace(0, len(values) - _STRETCH, _MOST_ROWS // _STRETCH).astype(int)
        values = np.concatenate([values[s : s + _STRETCH] for s in starts])
    if model.scaler is not None:
        values = (values - model.scaler.mean) / model.scaler.std
    values = np.where(np.isfinite(values), values, np.nan)
    spec = model.detector
    level, held = np.full(model.input_size, np.nan), np.zeros(model.input_size)
    drifts = np.zeros(model.input_size, np.bool_)
    rate, limit = 0.0, np.inf
    if spec is not None:
        rate, limit = spec.condition.drift_rate, spec.condition.clip
        if spec.condition.drift:
            drifts = np.array(spec.condition.drift, np.bool_)
    rows = np.empty_like(values)
    for t, row in enumerate(values):
        known = ~np.isnan(row)
        level = np.where(drifts & known & np.isnan(level), row, level)
        z = np.clip(np.where(drifts, row - level, row), -limit, limit)
        held = np.where(known, z, held)
        level = np.where(known, level + rate * z, level)
        rows[t] = held
    return rows


def quantize_on(model: Model, readings: NDArray[np.float64] | None) -> Quantized:
    """The model in integers: ranges from raw readings (T, C) in the inputs' order, else from the model file.

    Raises:
        ExportError: the model has no integer form, or its ranges are not known.
        DataError: there are no readings.
    """
    if readings is not None and model.features:
        raise ExportError(
            f"w8a16: the ranges of features ({', '.join(model.features)}) cannot be measured on readings "
            "yet; train without them"
        )
    return quantize(model, None if readings is None else network_inputs(model, readings))
