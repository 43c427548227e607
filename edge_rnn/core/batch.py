"""Many streams of one model: one state table, one compiled call for all rows that are ready.

Few rows, or those of a small network, are stepped one after the other inside the call: the streams are
independent, so the CPU overlaps the latency of one with the work of the next. Many rows of a larger network
are stepped in tiles of streams, where each weight is read once for all of them (tiles.py). Either way the
bits are those of n separate steppers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_rnn.core import fields as at
from edge_rnn.core.backend import LibraryLike
from edge_rnn.core.entries import DONE, MANY
from edge_rnn.core.float16 import Weights
from edge_rnn.core.jit import Numeric
from edge_rnn.core.layout import address
from edge_rnn.core.loop import StepLoop, for_kernel, numbers
from edge_rnn.core.model import Float32, Model
from edge_rnn.core.snapshot import read_snapshot, write_snapshot
from edge_rnn.core.state import State, read_state, write_state
from edge_rnn.core.tiling import Tiles, fewest_ready

_FLOAT32 = np.dtype(np.float32)


class StepperBatch:
    """n independent streams of one model; each gives the same bits as a `Stepper` of its own.

    All code is compiled, or loaded from the cache, by the constructor. One batch belongs to one thread.

    Args:
        model: the network.
        n: streams, numbered from 0.
        numeric, lanes, library: as `Stepper`.
        weights: as `Stepper`, with the same bits. A batch keeps the rounded weights as float32, because it
            reads each once for many streams: this is for streams that a `Stepper` with "f16" goes on with.

    Raises:
        ValueError: n < 1, or as `Stepper`.
        LibraryError: as `Stepper`.
    """

    def __init__(
        self,
        model: Model,
        n: int,
        numeric: Numeric = "auto",
        lanes: int | None = None,
        library: LibraryLike | None = None,
        weights: Weights = "f32",
    ) -> None:
        if n < 1:
            raise ValueError(f"n: expected at least one stream, got {n}")
        self._loop = StepLoop(model, numeric, lanes, library, MANY, weights)
        model = self._loop.model
        self._layout = self._loop.layout
        self._states = self._loop.at_rest(n)
        self._steps = np.zeros(n, np.uint64)
        # The arguments are made once; arrays are given by their `id` and read by compiled code.
        self._words = self._loop.table(self._states, None, np.empty(0, np.float32), n, None, self._steps)
        self._words[at.CAPACITY] = n
        packed_lanes = self._loop.packed.lanes
        self._words[at.FEWEST] = fewest = fewest_ready(model, packed_lanes)
        if fewest <= n:
            self._tiles = Tiles(model, packed_lanes, n, fewest)
            self._tiles.write(self._words)
        self._table = address(self._words)
        self._many, self._outputs = self._loop.drive, model.output_size
        self._shape = (n, model.output_size)

    def __repr__(self) -> str:
        return (
            f"<StepperBatch of {self.model.name!r}: {self.model.architecture}; class {self.numeric}, "
            f"{len(self)} stream(s)>"
        )

    @property
    def model(self) -> Model:
        """The model given; with weights="f16", with its weights rounded."""
        return self._loop.model

    @property
    def numeric(self) -> str:
        """The numeric class in use, "F" or "U"."""
        return "F" if self._loop.fused else "U"

    def __len__(self) -> int:
        return len(self._states)

    def steps(self, row: int) -> int:
        """Readings of stream `row` since its last reset or set_state."""
        return int(self._steps[self._row(row)])

    def step(self, xs: ArrayLike) -> Float32:
        """One reading for every stream.

        Args:
            xs: (n, I) numbers in model space, row i for stream i.

        Returns:
            float32 (n, O).

        Raises:
            ValueError: another shape, or a number that is not finite as float32; no stream was stepped.
        """
        many, ys = self._many, np.empty(self._shape, _FLOAT32)
        if many(self._table, 0, id(xs), id(ys)) == DONE:
            return ys
        return self._step(None, numbers(xs, (len(self), self.model.input_size), "xs"))

    def step_some(self, indices: Sequence[int] | NDArray[np.integer], xs: ArrayLike) -> Float32:
        """One reading for some streams, in the order given; a stream named twice takes two steps.

        Args:
            indices: (k,) streams.
            xs: (k, I) numbers in model space, row i for stream indices[i].

        Returns:
            float32 (k, O).

        Raises:
            ValueError: no such stream, another shape, or a number that is not finite as float32; no
                stream was stepped.
        """
        chosen = indices if type(indices) is np.ndarray else np.asarray(indices)
        if chosen.ndim == 1:
            many, ys = self._many, np.empty((len(chosen), self._outputs), _FLOAT32)
            if many(self._table, id(chosen), id(xs), id(ys)) == DONE:
                return ys
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            raise ValueError(
                f"indices: expected whole numbers (k,), got shape {chosen.shape} of dtype {chosen.dtype}"
            )
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < len(self):
            outside = chosen[(chosen < 0) | (chosen >= len(self))][0]
            raise ValueError(f"indices: expected streams 0 to {len(self) - 1}, got {outside}")
        rows = np.ascontiguousarray(chosen, np.int64)
        return self._step(rows, numbers(xs, (len(rows), self.model.input_size), "xs"))

    def _step(self, rows: NDArray[np.int64] | None, xs: NDArray[np.generic]) -> Float32:
        """A step for any readings and for arrays that compiled code cannot read."""
        ys, readings = np.empty((len(xs), self._outputs), np.float32), for_kernel(xs)
        words = self._words.copy()
        words[at.ROW_LIST] = 0 if rows is None else address(rows)
        words[at.XS_AT], words[at.WIDE] = address(readings), readings.dtype == np.float64
        words[at.YS_AT], words[at.COUNT] = address(ys), len(xs)
        bad = self._many(address(words), 0, 0, 0)
        self._words[at.STAMP] = words[at.STAMP]
        self._loop.refuse(bad, xs)
        return ys

    def _row(self, row: int) -> int:
        if not 0 <= row < len(self):
            raise ValueError(f"row: expected a stream from 0 to {len(self) - 1}, got {row}")
        return row

    def get_state(self, row: int) -> State:
        """h and c of one stream, as `Stepper.get_state`."""
        return read_state(self._states[self._row(row)], self.model, self._layout)

    def set_state(
        self,
        row: int,
        h: ArrayLike | Sequence[ArrayLike],
        c: ArrayLike | Sequence[ArrayLike | None] | None = None,
    ) -> None:
        """Take over a state for one stream, as `Stepper.set_state`."""
        self._states[self._row(row)] = write_state(h, c, self.model, self._layout)
        self._steps[row] = 0

    def reset(self, row: int | None = None) -> None:
        """One stream, or all, back to the model's rest_state, or to zeros where it has none."""
        rows = slice(None) if row is None else self._row(row)
        self._states[rows] = self._layout.rest(self.model)
        self._steps[rows] = 0

    def snapshot(self, row: int) -> bytes:
        """The state of one stream as bytes, the same bytes as a `Stepper` in this state gives."""
        return write_snapshot(
            self._states[self._row(row)],
            int(self._steps[row]),
            self._loop.fused,
            self._loop.digest,
            self._layout,
        )

    def restore(self, row: int, data: bytes) -> None:
        """Continue one stream from a snapshot, of a batch or of a `Stepper`.

        Raises:
            SnapshotError: it is damaged or belongs to another model; the state is unchanged.
        """
        self._row(row)
        self._states[row], self._steps[row] = read_snapshot(data, self._loop.digest, self._layout)
