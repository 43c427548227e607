"""Verdicts from raw readings: `DetectorTable` for many streams, `Detector` for one, `score` for none.

All three run the same compiled loop on the same record of state, so their bits are equal however the readings
are cut into calls. A table and a `Detector` belong to one thread at a time; `score` may be called from any.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_rnn.core.backend import LibraryLike, backend
from edge_rnn.core.jit import Numeric
from edge_rnn.core.layout import aligned, padded
from edge_rnn.core.library import Library
from edge_rnn.core.model import Model
from edge_rnn.core.pack import pack
from edge_rnn.detect import fields as at
from edge_rnn.detect import snapshot
from edge_rnn.detect.entries import REFUSED, STEP_ROWS, STEP_ROWS_OF_ANY
from edge_rnn.detect.plan import Plan
from edge_rnn.detect.verdict import Verdict, explained_dtype

Reading = tuple[int, Sequence[float]] | tuple[int, Sequence[float], Sequence[bool]]


class DetectorTable:
    """The state of many streams of one model, one record each.

    Args:
        model: a model with a detector section.
        capacity: number of streams.
        numeric: "F" (fused network arithmetic), "U", or "auto": F where the CPU has it.
        library: a folder made by `edge-rnn build`, or a `Library`: its code runs, nothing is compiled.

    Attributes:
        states: record array (capacity,) of `record_dtype(model)`; copy or assign rows freely.
        plan: the constants; `plan.dtype`, `plan.fresh`, digests.

    Raises:
        ModelFileError: the model has no detector section.
        ValueError: capacity below 1, or an unknown numeric class.
        LibraryError: the library is not for this model, CPU or version.

    Everything is compiled, or loaded from the cache, by the constructor; stepping allocates nothing.
    """

    def __init__(
        self,
        model: Model,
        capacity: int,
        numeric: Numeric = "auto",
        library: LibraryLike | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity: expected at least 1, got {capacity}")
        self.model = model
        self.plan = Plan(model)
        code = backend(model, numeric, library=library)
        if isinstance(code, Library):
            code.check_detector(self.plan.layout_digest)
        self.fused = code.fused
        self._packed = pack(model, code.lanes)
        self._run = code.code(STEP_ROWS_OF_ANY if self.plan.general else STEP_ROWS)
        plan, c = self.plan, self.plan.channels
        memory = aligned(capacity, plan.dtype.itemsize // 4)
        self.states: NDArray[np.void] = memory.reshape(-1).view(plan.dtype)
        self.states[:] = plan.fresh
        self.verdict_dtype = explained_dtype(c)
        self._scratch = aligned(1, self._packed.scratch_size)
        self._work = np.zeros(plan.work_size)
        self._table = np.zeros(at.WORDS, np.int64)
        self._network_x = aligned(1, padded(model.input_size))
        for word, value in {
            at.PLAN_WORD: plan.record.ctypes.data, at.VECTORS_WORD: plan.vectors.ctypes.data,
            at.FRESH_WORD: plan.fresh.ctypes.data, at.NETWORK_WORD: self._packed.plan.ctypes.data,
            at.WEIGHTS_WORD: self._packed.weights.ctypes.data, at.SCRATCH_WORD: self._scratch.ctypes.data,
            at.X_WORD: self._network_x.ctypes.data, at.WORK_WORD: self._work.ctypes.data,
            at.STATES_WORD: self.states.ctypes.data, at.CAPACITY_WORD: capacity,
            at.OUT_SIZE_WORD: self.verdict_dtype.itemsize,
        }.items():  # fmt: skip
            self._table[word] = value
        self._table_at = self._table.ctypes.data

    def __reduce__(self) -> NoReturn:
        """No copy and no pickle: compiled code would still be led into this one's memory."""
        raise TypeError(
            "a detector cannot be copied or pickled; make another one of the same model and carry the state "
            "over with snapshot() and restore()"
        )

    def reset(self, row: int) -> None:
        """Make `row` a stream that has seen nothing."""
        self.states[row] = self.plan.fresh[0]

    def step_rows(
        self,
        rows: NDArray[np.int64],
        time_ns: NDArray[np.int64],
        x: NDArray[np.float64],
        present: NDArray[np.bool_] | NDArray[np.uint8],
        out: NDArray[np.void],
    ) -> None:
        """Judge n samples in order; a row may come several times.

        Args:
            rows: int64 (n,), the stream of each sample.
            time_ns: int64 (n,), strictly increasing per row.
            x: float64 (n, C), raw readings.
            present: (n, C) bool, or uint8 with 0 absent, 1 a new reading, 2 an old one held (see guard.py).
            out: (n,) records of `explained_dtype(C)`, written.

        Raises:
            ValueError: an array of another dtype or shape (nothing is changed), or a time that is not after
                the row's last one, or no such row (the samples before it are taken, see the message).
        """
        n, c = len(rows), self.plan.channels
        self._expect("rows", rows, np.int64, (n,))
        self._expect("time_ns", time_ns, np.int64, (n,))
        self._expect("x", x, np.float64, (n, c))
        self._expect("present", present, present.dtype, (n, c))
        self._expect("out", out, self.verdict_dtype, (n,))
        if present.dtype not in (np.bool_, np.uint8):
            raise ValueError(f"present: expected bool or uint8, got {present.dtype}")
        self._fill(self._table, rows.ctypes.data, time_ns, x, present, out)
        done = int(self._run(self._table_at, 0))
        if done < n:
            row = int(rows[done])
            if not 0 <= row < len(self.states):
                raise ValueError(f"rows[{done}]: expected 0..{len(self.states) - 1}, got {row}")
            raise ValueError(
                f"time_ns[{done}]: expected later than the last sample of row {row}, got {time_ns[done]}; "
                "samples before it were taken"
            )

    def snapshot(self, row: int) -> bytes:
        """The row as bytes, see snapshot.py."""
        return snapshot.dump(self.plan, self.states[row], self.fused)

    def restore(self, row: int, content: bytes) -> None:
        """Bring `row` to a saved state; `SnapshotError` if it is not one of this model, row unchanged."""
        self.states[row] = snapshot.load(self.plan, content)[0]

    def call(
        self,
        rows_at: int,
        time_ns: NDArray[np.int64],
        x: NDArray[np.float64],
        present: NDArray[np.bool_] | NDArray[np.uint8],
        out: NDArray[np.void],
    ) -> Callable[[], int]:
        """A prepared call on arrays that are as `step_rows` wants them: unchecked, as often as one likes.

        rows_at: address of the row numbers, or 0: all samples are of row 0. The call reads and writes the
        arrays as they are at that moment, and returns how many samples were taken.
        """
        table = self._table.copy()
        self._fill(table, rows_at, time_ns, x, present, out)
        run, address, kept = self._run, table.ctypes.data, (table, time_ns, x, present, out)

        def prepared(_kept: object = kept) -> int:
            return int(run(address, 0))

        return prepared

    def judge_one(
        self, x: NDArray[np.float64], present: NDArray[np.uint8], out: NDArray[np.void]
    ) -> tuple[Callable[[int, int], float], NDArray[np.int64]]:
        """The compiled function and its table: called with the table's address and a time, it judges what
        x (C,) and present (C,) hold then as a sample of row 0, writes out (1,), and returns the score, NaN
        where there is none, or `REFUSED` for a time that is not after the last one. The caller keeps them.
        """
        table = self._table.copy()
        table[at.ROWS_WORD] = table[at.TIMES_WORD] = 0
        table[at.XS_WORD], table[at.PRESENT_WORD] = x.ctypes.data, present.ctypes.data
        table[at.OUT_WORD], table[at.COUNT_WORD] = out.ctypes.data, 1
        return self._run, table

    @staticmethod
    def _fill(
        table: NDArray[np.int64],
        rows_at: int,
        time_ns: NDArray[np.int64],
        x: NDArray[np.float64],
        present: NDArray[np.bool_] | NDArray[np.uint8],
        out: NDArray[np.void],
    ) -> None:
        table[at.ROWS_WORD] = rows_at
        table[at.TIMES_WORD] = time_ns.ctypes.data
        table[at.XS_WORD] = x.ctypes.data
        table[at.PRESENT_WORD] = present.ctypes.data
        table[at.OUT_WORD] = out.ctypes.data
        table[at.COUNT_WORD] = len(time_ns)

    @staticmethod
    def _expect(name: str, array: NDArray[np.generic], dtype: object, shape: tuple[int, ...]) -> None:
        if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
            raise ValueError(
                f"{name}: expected C-contiguous {np.dtype(dtype)} {shape}, "  # type: ignore[call-overload]
                f"got {array.dtype} {array.shape}"
            )


class Detector:
    """One stream: raw readings in, verdicts out.

    Two ways of asking, with the same bits: `step` takes any sequence and makes a `Verdict`; `advance`
    takes what the caller has written into `input` and returns the score alone, in a tenth of the time.

    Args:
        model: a model with a detector section.
        numeric, library: see `DetectorTable`.

    Raises:
        ModelFileError: the model has no detector section.
        LibraryError: the library is not for this model, CPU or version.
    """

    def __init__(self, model: Model, numeric: Numeric = "auto", library: LibraryLike | None = None) -> None:
        self.model = model
        self._use(DetectorTable(model, 1, numeric, library))

    def _use(self, table: DetectorTable) -> None:
        self.table = table
        c = table.plan.channels
        self._x, self._present = np.zeros(c), np.ones(c, np.uint8)
        self._time, self._out = np.zeros(1, np.int64), np.zeros(1, table.verdict_dtype)
        self._one = table.call(0, self._time, self._x, self._present, self._out)
        self._input, self._input_present = np.zeros(c), np.ones(c, np.uint8)
        self._judge, self._words = table.judge_one(self._input, self._input_present, self._out)
        self._words_at = self._words.ctypes.data

    def __repr__(self) -> str:
        names = ", ".join(channel.name for channel in self.model.inputs)
        return (
            f"<Detector of {self.model.name!r}: {self.model.architecture}; class "
            f"{'F' if self.table.fused else 'U'}, readings ({names})>"
        )

    def step(self, x: ArrayLike, time_ns: int, present: ArrayLike | None = None) -> Verdict:
        """Judge one sample.

        Args:
            x: (C,) raw readings; NaN and infinities are allowed, the guard calls them faults.
            time_ns: event time, int64 nanoseconds, later than the last one.
            present: (C,) which readings there are (bool, or 2 for a held one); default all.

        Raises:
            ValueError: x or present of another length, or a time that is not after the last one; the state
                is unchanged.
        """
        try:
            values = np.asarray(x, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"x: expected {self._expected()}, got {type(x).__name__}: {error}") from error
        flags = 1 if present is None else np.asarray(present)
        if values.shape != self._x.shape:
            raise ValueError(f"x: expected {self._expected()}, got shape {values.shape}")
        if present is not None and np.shape(flags) != self._x.shape:
            raise ValueError(
                f"present: expected one flag for each of {self._expected()}, got shape {np.shape(flags)}"
            )
        if not -(2**63) <= time_ns < 2**63:
            raise ValueError(f"time_ns: expected a 64-bit number of nanoseconds, got {time_ns}")
        self._x[:], self._present[:], self._time[0] = values, flags, time_ns
        if not self._one():
            last = int(self.table.states["marks"][0, at.TIME])
            raise ValueError(f"time_ns: expected later than the last sample's {last}, got {time_ns}")
        return Verdict.from_record(self._out[0], "", self.table.plan.scorer_names)

    @property
    def input(self) -> NDArray[np.float64]:
        """The readings (C,) that `advance` judges; always the same array, fill it in place."""
        return self._input

    @property
    def present(self) -> NDArray[np.uint8]:
        """Which readings of `input` there are, (C,): 0 absent, 1 a new reading, 2 an old one held.

        All 1 at the start; always the same array, fill it in place. It stays as the caller left it.
        """
        return self._input_present

    def advance(self, time_ns: int) -> float:
        """Judge what is in `input` and `present`, as `step` would.

        Args:
            time_ns: event time, int64 nanoseconds, later than the last one.

        Returns:
            The score, NaN while warming and where every channel is faulty. The rest is in `verdict`.

        Raises:
            ValueError: a time that is not after the last one, or not an int64; the state is unchanged.
        """
        judge = self._judge  # a local name: called as an attribute it would cost 20 ns more
        try:
            score = judge(self._words_at, time_ns)
        except (OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"time_ns: expected a 64-bit number of nanoseconds, got {time_ns!r}") from error
        if score != REFUSED:
            return score
        return self._refused(time_ns)

    def _refused(self, time_ns: int) -> float:
        last, score = self._out["time_ns"][0], float(self._out["score"][0])
        if last == time_ns and score == REFUSED:  # constants so large that a score overflowed
            return score
        taken = int(self.table.states["marks"][0, at.TIME])
        raise ValueError(f"time_ns: expected later than the last sample's {taken}, got {time_ns}")

    @property
    def verdict(self) -> Verdict:
        """The verdict on the last sample, of `advance` or `step`; made when it is asked for.

        Raises:
            ValueError: no sample was judged since this detector was made, reset or restored.
        """
        if self._out["step"][0] == 0:
            raise ValueError("verdict: no sample was judged yet; call advance() or step() first")
        return Verdict.from_record(self._out[0], "", self.table.plan.scorer_names)

    def _expected(self) -> str:
        names = ", ".join(channel.name for channel in self.model.inputs)
        return f"{self._x.size} readings ({names})"

    def run(self, times_ns: ArrayLike, X: ArrayLike, present: ArrayLike | None = None) -> NDArray[np.void]:  # noqa: N803
        """Judge T samples: times_ns (T,), X (T, C), present (T, C) -> records (T,) of `explained_dtype(C)`.

        The same bits as T calls of `step`.

        Raises:
            ValueError: a shape does not fit or times do not increase; the state is unchanged.
        """
        c = self.model.channels
        times = np.ascontiguousarray(times_ns, np.int64)
        xs = np.ascontiguousarray(X, np.float64)
        n = len(times)
        flags = np.ones((n, c), np.uint8)
        if present is not None:
            flags = np.ascontiguousarray(present).astype(np.uint8)
        if times.shape != (n,) or xs.shape != (n, c) or flags.shape != (n, c):
            raise ValueError(
                f"times_ns, X, present: expected ({n},), ({n}, {c}), ({n}, {c}), "
                f"got {times.shape}, {xs.shape}, {flags.shape}"
            )
        late = np.flatnonzero(times[1:] <= times[:-1])
        if late.size:
            row = late[0] + 1
            raise ValueError(f"times_ns[{row}]: expected later than the one before; sort the readings")
        out = np.zeros(n, self.table.verdict_dtype)
        self.table.step_rows(np.zeros(n, np.int64), times, xs, flags, out)
        return out

    def reset(self) -> None:
        """Forget everything: a stream that has seen nothing."""
        self.table.reset(0)
        self._out[:] = np.zeros(1, self._out.dtype)

    def snapshot(self) -> bytes:
        """The whole state as bytes; the detector can go on from it anywhere, bit for bit."""
        return self.table.snapshot(0)

    def restore(self, content: bytes) -> None:
        """Go on from a snapshot; `SnapshotError` if it is damaged or another model's, state unchanged."""
        self.table.restore(0, content)
        self._out[:] = np.zeros(1, self._out.dtype)


@functools.lru_cache(maxsize=8)
def _spare(_model: Model) -> deque[Detector]:
    """Detectors that no call is using: calls of other threads, or from within `readings`, need their own."""
    return deque(maxlen=8)


def score(model: Model, state: bytes, readings: Iterable[Reading]) -> tuple[bytes, list[Verdict]]:
    """Verdicts as a pure function of the model, a state and readings.

    Args:
        model: a model with a detector section; its last few are kept compiled between calls.
        state: what the last call returned, or `b""` for a stream that has seen nothing.
        readings: (time_ns, values (C,)) or (time_ns, values, present), times increasing.

    Returns:
        The new state and one verdict per reading: the same bits however the readings are cut into calls.

    Raises:
        SnapshotError: the state is not one of this model.
        ValueError: as `Detector.step`; what is not such a reading; a state that is not bytes.
    """
    if not isinstance(state, bytes | bytearray | memoryview):
        raise ValueError(f'state: expected bytes, b"" for a new stream, got {type(state).__name__}')
    spare = _spare(model)
    try:
        detector = spare.pop()
    except IndexError:
        detector = Detector(model)
    try:
        if state:
            detector.restore(state)
        else:
            detector.reset()
        verdicts: list[Verdict] = []
        for reading in readings:
            try:
                time_ns, values, *present = reading
                verdicts.append(detector.step(values, time_ns, *present))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"readings[{len(verdicts)}]: {error}; a reading is (time_ns, values[, present])"
                ) from error
        return detector.snapshot(), verdicts
    finally:
        spare.append(detector)
