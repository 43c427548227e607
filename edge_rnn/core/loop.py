"""One model made ready for this machine: packed constants, compiled code, one caller's scratch.

`Stepper`, `StepperBatch` and `WindowStepper` all go through here to the one compiled loop. It is
given addresses, so this class owns the arrays behind them, keeps them alive and never resizes them;
shapes are validated by its callers once.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_rnn.core import fields as at
from edge_rnn.core.backend import LibraryLike, backend
from edge_rnn.core.digest import weights_digest
from edge_rnn.core.entries import DRIVE, DRIVE_HALF, Entry
from edge_rnn.core.float16 import Weights, rounded
from edge_rnn.core.header import readable
from edge_rnn.core.jit import Numeric
from edge_rnn.core.layout import address, aligned
from edge_rnn.core.model import Float32, Float64, Model
from edge_rnn.core.pack import pack

Numbers = Float32 | Float64
_FLOAT32, _FLOAT64, _INT64 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64)


def numbers(value: ArrayLike, shape: tuple[int, ...], what: str) -> NDArray[np.generic]:
    """`value` as an array of numbers; -1 in `shape` stands for any length.

    Raises:
        ValueError: it is no array of numbers, or has another shape.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{what}: expected numbers of shape {_shape(shape)}, got ragged rows") from error
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{what}: expected numbers of shape {_shape(shape)}, got dtype {array.dtype}")
    if array.ndim != len(shape) or any(e not in (-1, g) for e, g in zip(shape, array.shape, strict=True)):
        raise ValueError(f"{what}: expected shape {_shape(shape)}, got {_shape(array.shape)}")
    return array


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join("T" if n < 0 else str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"


def for_kernel(array: NDArray[np.generic]) -> Numbers:
    """The array as the compiled loop takes it: float32 as it is, all else as float64, contiguous."""
    if array.dtype == np.float32:
        return np.ascontiguousarray(array, np.float32)
    return np.ascontiguousarray(array, np.float64)


class StepLoop:
    """`model` compiled and packed for this machine; not for use by two threads at once.

    Args:
        model: the network.
        numeric: "F", "U" or "auto".
        lanes: vector width (4, 8, 16); None takes the one that suits the target. No bit depends on it.
        library: compiled functions from there, see `backend`; None compiles them here.
        entry: the function that `drive` is.
        weights: "f16" rounds the weights to float16; `model` is then the rounded one. They are kept as such
            for `DRIVE`; tiles read each weight once for many streams and keep them as float32.

    Raises:
        ValueError: `weights` is none of these or comes with a library, or a weight is too large for float16.
    """

    def __init__(
        self,
        model: Model,
        numeric: Numeric = "auto",
        lanes: int | None = None,
        library: LibraryLike | None = None,
        entry: Entry = DRIVE,
        weights: Weights = "f32",
    ) -> None:
        if weights not in ("f32", "f16"):
            raise ValueError(f'weights: expected "f32" or "f16", got {weights!r}')
        if weights == "f16":
            if library is not None:
                raise ValueError(
                    'weights: a library has float32 weights only; leave out library or use "f32"'
                )
            model = rounded(model)
        self.model = model
        half = weights == "f16" and entry is DRIVE
        code = backend(model, numeric, lanes, library)
        self.fused = code.fused
        self.packed = pack(model, code.lanes, half)
        self.layout = self.packed.layout
        self.digest = weights_digest(model)
        self.drive = code.code(DRIVE_HALF if half else entry)
        self._scratch = aligned(1, self.packed.scratch_size)
        self._constants = np.zeros(at.WORDS, np.int64)
        self._constants[at.PLAN_AT] = address(self.packed.plan)
        self._constants[at.WEIGHTS_AT] = address(self.packed.weights)
        self._constants[at.SCRATCH_AT] = address(self._scratch)

    def table(
        self,
        states: Float32,
        xs: Numbers | None,
        ys: Float32,
        count: int,
        rows: NDArray[np.int64] | None = None,
        steps: NDArray[np.uint64] | None = None,
    ) -> NDArray[np.int64]:
        """The arguments of `drive`; the caller keeps table and arrays alive, and passes the table's address.

        Args:
            states: core rows (n, core_size), contiguous.
            xs: (count, I) float32 or float64, contiguous; a float64 is rounded to float32 first.
                None: every call of `drive` gets the `id` of an array: (I,) if `rows` is None,
                else (count, I). Where arrays cannot be read so, it finds them UNFIT.
            ys: float32 (count, O), contiguous; filled.
            count: steps.
            rows: int64 (count,), which row takes step t; None: all steps go to row 0.
            steps: counters (n,), one more for every step of a row; None: not counted.
        """
        words = self._constants.copy()
        words[at.STATES_AT] = address(states)
        words[at.ROW_BYTES] = states.strides[0]
        words[at.ROW_LIST] = 0 if rows is None else address(rows)
        if xs is not None:
            words[at.XS_AT] = address(xs)
            words[at.WIDE] = xs.dtype == np.float64
        elif readable():
            words[at.ARRAY_TYPE] = id(np.ndarray)
            words[at.ARRAY_FLOAT32], words[at.ARRAY_FLOAT64] = id(_FLOAT32), id(_FLOAT64)
            words[at.ARRAY_INT64], words[at.ARRAY_DIMENSIONS] = id(_INT64), 1 if rows is None else 2
        words[at.YS_AT] = address(ys)
        words[at.STEPS_AT] = 0 if steps is None else address(steps)
        words[at.COUNT] = count
        return words

    def __call__(
        self,
        states: Float32,
        xs: Numbers,
        ys: Float32,
        rows: NDArray[np.int64] | None = None,
        steps: NDArray[np.uint64] | None = None,
    ) -> None:
        """Step through all of `xs`; arguments as in `table`.

        Raises:
            ValueError: an input is not finite as float32; then nothing was stepped.
        """
        table = self.table(states, xs, ys, len(xs), rows, steps)
        self.refuse(self.drive(address(table), 0), xs)

    def refuse(self, bad: int, xs: NDArray[np.generic]) -> None:
        """Raise ValueError for the input (flat index) that the loop refused, if it is one."""
        if bad >= 0:
            row, column = divmod(bad, self.model.input_size)
            raise ValueError(f"xs[{row}, {column}]: {not_finite(xs[row, column])}; nothing was stepped")

    def __reduce__(self) -> NoReturn:
        """No copy and no pickle: a copied table of addresses would still lead into this one's memory."""
        raise TypeError(
            "a stepper cannot be copied or pickled; make another one of the same model and carry the state "
            "over with snapshot() and restore()"
        )

    def at_rest(self, rows: int) -> Float32:
        """A state table (rows, core_size), every row at the model's resting state."""
        states = aligned(rows, self.layout.core_size)
        states[:] = self.layout.rest(self.model)
        return states


def not_finite(value: np.generic) -> str:
    """What is wrong with an input the loop refused."""
    what = "out of float32's range" if np.isfinite(value) else "not finite"
    return f"expected a finite float32, got {value} ({what})"
