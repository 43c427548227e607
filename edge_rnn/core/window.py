"""For models trained on windows: the exact answer of the trained model, from zeros, at every reading."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from edge_rnn.core.backend import LibraryLike
from edge_rnn.core.float16 import Weights
from edge_rnn.core.jit import Numeric
from edge_rnn.core.layout import aligned
from edge_rnn.core.loop import StepLoop, not_finite, numbers
from edge_rnn.core.model import Float32, Model


class WindowStepper:
    """At each reading, what the model gives for the last `length` readings when it starts from zeros.

    **When to use which.** Many models are trained on windows: cut the series into pieces of, say, 50
    readings, start every piece from a zero state, look at the last output. Such a model has never seen a
    state that is older than its window. `Stepper` carries the state on for ever: that costs one step per
    reading, and is right for models trained on long sequences with carried state; a model trained on
    windows usually behaves well there too, but nobody has checked it, and its outputs differ from the
    ones in training. `WindowStepper` gives exactly the training's outputs (the same bits as
    `Stepper.run` from zeros over the window) and costs `length` steps per reading. Use it when the model
    was trained on windows from zeros and the numbers must be those of the training, or to measure what the
    carried state changes; use `Stepper` otherwise.

    Until `length` readings have come, the window is what has come so far. The model's rest_state is not
    used, because a window starts from zeros. All code is compiled by the constructor.

    Args:
        model: the network.
        length: readings in a window.
        numeric, lanes, library, weights: as `Stepper`.

    Raises:
        ValueError: length < 1, or as `Stepper`.
        LibraryError: as `Stepper`.
    """

    def __init__(
        self,
        model: Model,
        length: int,
        numeric: Numeric = "auto",
        lanes: int | None = None,
        library: LibraryLike | None = None,
        weights: Weights = "f32",
    ) -> None:
        if length < 1:
            raise ValueError(f"length: expected at least 1 reading, got {length}")
        self._loop = StepLoop(model, numeric, lanes, library, weights=weights)
        self.length = length
        self._states = aligned(1, self._loop.layout.core_size)
        # Twice the window, so that the last `length` readings are always in one piece.
        self._readings = np.zeros((2 * length, model.input_size), np.float32)
        self._ys = np.zeros((length, model.output_size), np.float32)
        self._end = 0

    def __repr__(self) -> str:
        held = min(self._end, self.length)
        return (
            f"<WindowStepper of {self.model.name!r}: {self.model.architecture}; "
            f"{held} of {self.length} readings in the window>"
        )

    @property
    def model(self) -> Model:
        """The model given; with weights="f16", with its weights rounded."""
        return self._loop.model

    def step(self, x: ArrayLike) -> Float32:
        """One reading.

        Args:
            x: (I,) numbers in model space; rounded to float32.

        Returns:
            y, float32 (O,): the last output of the model over the window that ends with x.

        Raises:
            ValueError: another shape, or a number that is not finite as float32; the window is unchanged.
        """
        array = numbers(x, (self.model.input_size,), "x")
        with np.errstate(over="ignore"):
            reading = array.astype(np.float32)
        finite = np.isfinite(reading)
        if not finite.all():
            bad = int(np.argmin(finite))
            raise ValueError(f"x[{bad}]: {not_finite(array[bad])}; the window is unchanged")
        if self._end == len(self._readings):
            self._readings[: self.length - 1] = self._readings[self._end - self.length + 1 :]
            self._end = self.length - 1
        self._readings[self._end] = reading
        self._end += 1
        window = self._readings[max(0, self._end - self.length) : self._end]
        self._states[:] = 0
        ys = self._ys[: len(window)]
        self._loop(self._states, window, ys)
        y: Float32 = ys[-1].copy()
        return y

    def run(self, xs: ArrayLike) -> Float32:
        """T readings (T, I), the same bits as T steps -> float32 (T, O).

        Raises:
            ValueError: another shape, or a number that is not finite as float32; the window is unchanged.
        """
        array = numbers(xs, (-1, self.model.input_size), "xs")
        with np.errstate(over="ignore"):
            finite = np.isfinite(array.astype(np.float32))
        if not finite.all():
            row, column = (int(i) for i in np.argwhere(~finite)[0])
            raise ValueError(
                f"xs[{row}, {column}]: {not_finite(array[row, column])}; the window is unchanged"
            )
        ys = np.empty((len(array), self.model.output_size), np.float32)
        for t, x in enumerate(array):
            ys[t] = self.step(x)
        return ys

    def reset(self) -> None:
        """Forget all readings."""
        self._end = 0
