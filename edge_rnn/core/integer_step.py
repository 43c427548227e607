"""One stream of a quantised model, stepped in integers: what a microcontroller computes, bit for bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_rnn.core.integer_kernel import IntegerPacked, run_rows
from edge_rnn.core.integers import Quantized
from edge_rnn.core.loop import not_finite, numbers
from edge_rnn.core.model import Float32, Model
from edge_rnn.core.quantize import quantize


class IntegerStepper:
    """A quantised model with its state; it starts at the model's rest_state, or zeros.

    Args:
        model: quantised constants, or a model, whose ranges then come from its file (see `quantize`).

    Raises:
        ExportError: the model has no integer form.
    """

    def __init__(self, model: Quantized | Model) -> None:
        self.quantized = quantize(model) if isinstance(model, Model) else model
        self._packed = IntegerPacked(self.quantized)
        self._row = np.zeros(self._packed.layout.core_size, np.float32)
        self.reset()

    @property
    def model(self) -> Model:
        """The model in float32."""
        return self.quantized.model

    def step(self, x: ArrayLike) -> Float32:
        """One reading (I,) in model space -> y float32 (O,). Raises ValueError as `run`."""
        y: Float32 = self.run(numbers(x, (self.model.input_size,), "x")[None])[0]
        return y

    def run(self, xs: ArrayLike) -> Float32:
        """T readings (T, I) in model space -> (T, O) float32.

        Raises:
            ValueError: another shape, or a number that is not finite as float32; nothing was stepped.
        """
        array = numbers(xs, (-1, self.model.input_size), "xs")
        with np.errstate(over="ignore"):
            data = np.ascontiguousarray(array, np.float32)
        bad = np.argwhere(~np.isfinite(data))
        if len(bad):
            row, column = bad[0]
            raise ValueError(f"xs[{row}, {column}]: {not_finite(array[row, column])}; nothing was stepped")
        ys, _ = run_rows(self._packed, self._row, data)
        return ys

    @property
    def state(self) -> NDArray[np.int32]:
        """A copy of the state row as 32-bit words; where a layer's h and c are is in `StateLayout`."""
        return self._row.view(np.int32).copy()

    def reset(self) -> None:
        """Back to the model's rest_state, each number to its nearest step, or to zeros."""
        self._row[:] = self._packed.row(self.quantized, self._packed.layout.rest(self.model))
