"""One stream, one model, one reading at a time: the library's `Stepper`.

Everything is in model space: no scaling here. The state is one row of float32 (see `layout.py`); a
step changes nothing else. What PyTorch computes for a sequence, `step` computes reading by reading,
within 5e-7 of float64 for weights of common size. Very large weights can make a network chaotic: then no
two ways of rounding agree for long, PyTorch's included.
"""

from __future__ import annotations

from collections.abc import Sequence
from sys import getrefcount

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_rnn.core.backend import LibraryLike
from edge_rnn.core.entries import DONE
from edge_rnn.core.float16 import Weights
from edge_rnn.core.gates import Gates, gate_activations
from edge_rnn.core.jit import Numeric
from edge_rnn.core.layout import address
from edge_rnn.core.loop import StepLoop, for_kernel, not_finite, numbers
from edge_rnn.core.model import Float32, Model
from edge_rnn.core.snapshot import read_snapshot, write_snapshot
from edge_rnn.core.state import State, read_state, write_state


class Stepper:
    """A recurrent model with its state, stepped once per reading. One stepper belongs to one thread.

    All code is compiled, or loaded from the cache, by the constructor.

    Args:
        model: the network.
        numeric: "F" (fused multiply-add), "U" (without), or "auto": F where the CPU has it. Within a
            class all machines give the same bits; between the classes they differ by <= 5e-7 of the scale.
        lanes: vector width 4, 8 or 16; None takes what suits the CPU. No bit depends on it.
        library: a folder made by `edge-rnn build`, or a `Library`: its code runs, and nothing is compiled.
            The class is then the library's.
        weights: "f32", or "f16" for large networks, whose time is that of moving the weights. They are then
            rounded to float16 (11 bits; biases stay float32) and widened in registers; all else is the same,
            so the bits are those of a float32 stepper of the rounded model. Against "f32", outputs change by
            <= 1.2e-4 for lstm and gru of 64 to 512 units with PyTorch's initial weights, and by <= 1e-3 of
            their scale for every network of the tests; how much for yours, only comparing the two shows.
            A fifth (gru) to a third (lstm) less time at 2 layers of 512 units, a tenth more at 64. A snapshot
            is laid out alike but names the rounded weights, so "f32" and "f16" refuse each other's.

    Raises:
        ValueError: `numeric`, `lanes` or `weights` is none of these; with "f16", a weight is beyond +-65504
            or a library is given, too.
        LibraryError: the library is not for this model, CPU or version.
    """

    def __init__(
        self,
        model: Model,
        numeric: Numeric = "auto",
        lanes: int | None = None,
        library: LibraryLike | None = None,
        weights: Weights = "f32",
    ) -> None:
        self._loop = StepLoop(model, numeric, lanes, library, weights=weights)
        self._layout = self._loop.layout
        self._states = self._loop.at_rest(1)
        self._row = self._states[0]
        self._steps = np.zeros(1, np.uint64)
        self._drive = self._loop.drive
        self._x_shape = (model.input_size,)
        # Two output arrays take turns: the one given last is mostly still held when the next reading comes.
        self._next, self._given = self._output(), self._output()
        _, y, _ = self._next
        self._unheld = getrefcount(y)
        self._own = self._output()  # never given away
        # Readings that are no contiguous array of floats are copied here first.
        self._x = np.zeros((1, model.input_size))
        self._x_row = self._x[0]
        self._own_table, self._y, _ = self._own
        self._words = self._loop.table(self._states, self._x, self._y, 1, steps=self._steps)
        self._table = address(self._words)

    def _output(self) -> tuple[int, Float32, NDArray[np.int64]]:
        """The address of the arguments of a step, the array that gets its outputs, and the arguments."""
        y = np.empty(self.model.output_size, np.float32)
        words = self._loop.table(self._states, None, y, 1, steps=self._steps)
        return address(words), y, words

    def __repr__(self) -> str:
        return (
            f"<Stepper of {self.model.name!r}: {self.model.architecture}; class {self.numeric}, "
            f"{self.lanes} lanes, {self.steps} step(s) taken>"
        )

    @property
    def model(self) -> Model:
        """The model given; with weights="f16", with its weights rounded."""
        return self._loop.model

    @property
    def numeric(self) -> str:
        """The numeric class in use, "F" or "U"."""
        return "F" if self._loop.fused else "U"

    @property
    def lanes(self) -> int:
        """The vector width in use."""
        return self._loop.packed.lanes

    @property
    def steps(self) -> int:
        """Readings stepped since the last reset or set_state."""
        return int(self._steps[0])

    def step(self, x: ArrayLike) -> Float32:
        """One reading.

        Args:
            x: (I,) numbers in model space; rounded to float32.

        Returns:
            y, float32 (O,). It is yours for as long as you, or a view of it, hold it. Then its memory is
            taken for a later output, so do not change its shape or type in place.

        Raises:
            ValueError: another shape, or a number that is not finite as float32; the state is unchanged.
        """
        output = self._next
        self._next = self._given
        self._given = output
        table, y, _ = output
        if getrefcount(y) == self._unheld:
            if self._drive(table, id(x)) == DONE:
                return y
        elif self._drive(self._own_table, id(x)) == DONE:
            return self._y.copy()
        return self._copy_and_step(x)

    def _copy_and_step(self, x: ArrayLike) -> Float32:
        """A step for any reading; y is a new array."""
        array = x if type(x) is np.ndarray else numbers(x, self._x_shape, "x")
        if array.shape != self._x_shape or array.dtype.kind not in "fiub":
            array = numbers(x, self._x_shape, "x")
        self._x_row[...] = array
        bad = self._drive(self._table, 0)
        if bad != DONE:
            raise ValueError(f"x[{bad}]: {not_finite(array[int(bad)])}; the state is unchanged")
        return self._y.copy()

    def run(self, xs: ArrayLike) -> Float32:
        """T readings in one call, the same bits as T steps.

        Args:
            xs: (T, I) numbers in model space.

        Returns:
            ys, float32 (T, O).

        Raises:
            ValueError: another shape, or a number that is not finite as float32 (the message names row
                and column); nothing was stepped.
        """
        array = for_kernel(numbers(xs, (-1, *self._x_shape), "xs"))
        ys = np.empty((len(array), self.model.output_size), np.float32)
        self._loop(self._states, array, ys, steps=self._steps)
        return ys

    def hidden(self, layer: int = -1) -> Float32:
        """A copy of the layer's h, (H,), or (P,) with a projection."""
        return self._layout.h(self._row, self._layer(layer)).copy()

    def cell(self, layer: int = -1) -> Float32:
        """A copy of an lstm layer's c, (H,).

        Raises:
            ValueError: the layer is no lstm.
        """
        index = self._layer(layer)
        if self.model.layers[index].cell != "lstm":
            raise ValueError(
                f"layer {index}: only an lstm has a cell state, got {self.model.layers[index].cell}"
            )
        return self._layout.c(self._row, index).copy()

    def _layer(self, layer: int) -> int:
        count = len(self.model.layers)
        if not -count <= layer < count:
            raise ValueError(f"layer: expected 0 to {count - 1}, got {layer}")
        return layer % count

    def get_state(self) -> State:
        """h and c in PyTorch's shapes without the batch, (L, H); see `edge_rnn.core.state`."""
        return read_state(self._row, self.model, self._layout)

    def set_state(
        self, h: ArrayLike | Sequence[ArrayLike], c: ArrayLike | Sequence[ArrayLike | None] | None = None
    ) -> None:
        """Take over a state, for example PyTorch's `h_n, c_n`; outputs and the step count start anew.

        Args:
            h: (L, H) or (L, 1, H); a list of one array per layer where sizes differ.
            c: the same for an lstm's cell state, None in a list for other cells; None without any lstm.

        Raises:
            ValueError: a shape does not fit or a number is not finite; the state is unchanged.
        """
        self._row[:] = write_state(h, c, self.model, self._layout)
        self._steps[0] = 0

    def reset(self) -> None:
        """Back to the model's rest_state, or to zeros where it has none."""
        self._row[:] = self._layout.rest(self.model)
        self._steps[0] = 0

    def forecast(self, n: int) -> Float32:
        """The next n outputs if every output came true: closed loop, each output is the next input.

        The first input is the output of the last step. The state is left untouched.

        Returns:
            float32 (n, O); row 0 is two readings after the last one for a model that predicts the next
            reading (the last step's own output is the reading before it).

        Raises:
            ValueError: outputs are not as many as inputs, or nothing was stepped yet.
        """
        inputs, outputs = self.model.input_size, self.model.output_size
        if inputs != outputs:
            raise ValueError(
                f"forecast: needs a model whose outputs are its inputs, got {inputs} inputs and "
                f"{outputs} outputs"
            )
        if self.steps == 0:
            raise ValueError(
                "forecast: nothing was stepped yet, so there is no last output; call step() first"
            )
        if n < 0:
            raise ValueError(f"forecast: expected n >= 0, got {n}")
        # Inputs and outputs are one array, shifted by a row: what a step writes, the next one reads.
        trail = np.zeros((n + 1, inputs), np.float32)
        trail[0] = self._layout.y(self._row)
        self._loop(self._states.copy(), trail[:n], trail[1:])
        return trail[1:]

    def gates(self, x: ArrayLike) -> list[Gates]:
        """The gate activations this reading would give; the state is left untouched.

        Args:
            x: (I,) numbers in model space.

        Returns:
            One dict per layer, bottom first, of float64 (H,): i f g o for an lstm, r z n for a gru,
            h for an rnn. Computed by the float64 reference from the current state.

        Raises:
            ValueError: as `step`.
        """
        array = numbers(x, self._x_shape, "x")
        with np.errstate(over="ignore"):
            reading = array.astype(np.float32)
        if not np.isfinite(reading).all():
            bad = int(np.argmin(np.isfinite(reading)))
            raise ValueError(f"x[{bad}]: {not_finite(array[int(bad)])}; the state is unchanged")
        return gate_activations(self.model, self._layout, self._row, reading)

    def snapshot(self) -> bytes:
        """The whole state as bytes; `restore` continues bit for bit, on any machine of the same class."""
        return write_snapshot(self._row, self.steps, self._loop.fused, self._loop.digest, self._layout)

    def restore(self, data: bytes) -> None:
        """Continue from a snapshot.

        Raises:
            SnapshotError: it is damaged or belongs to another model; the state is unchanged.
        """
        self._row[:], self._steps[0] = read_snapshot(data, self._loop.digest, self._layout)
