"""Messages as columns: what the compiled way from a burst to its verdicts takes and gives.

A *lane* is a source whose messages carry all channels of one stream: lane numbers stand for stream ids, so
that a burst needs no text and no Python object a message. `Lanes` brings the columns of one group through the
assembler, the detector and the tracker, with three compiled calls; see `columns_loop.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_rnn.detect import fields as detector_words
from edge_rnn.stream import columns_words as words
from edge_rnn.stream.assemble import TIME_LIMIT
from edge_rnn.stream.states import StreamTable

Code = Callable[[int, int], int]
# So many verdict records are made at a time; a burst takes the next ones.
_RECORDS = 1024


class Columns(NamedTuple):
    """Messages of one group in order of arrival.

    Attributes:
        group: its name.
        streams: the stream id of each lane.
        generation: lane numbers of one generation mean the same streams.
        block: i8 (n, at least 2 + C), a row a message: lane, event time, and the bits of its values (float64)
            in the order of the model's inputs.
        address: where the block is, if that is known; 0: it is not.
    """

    group: str
    streams: Sequence[str]
    generation: int
    block: NDArray[np.int64]
    address: int = 0

    def message(self, index: int, channels: int) -> tuple[int, int, list[float]]:
        """Lane, time and values of one of them."""
        row = self.block[index]
        values = row[words.VALUES : words.VALUES + channels].view(np.float64)
        return int(row[words.LANE]), int(row[words.TIME]), values.tolist()


class Stepped(NamedTuple):
    """What `Lanes.step` gives: rows i8 (n,) and records (n,), which nothing writes to again, where they are,
    and the places of verdicts whose events are to be followed (None: there are none).
    """

    rows: NDArray[np.int64]
    records: NDArray[np.void]
    told: NDArray[np.intp] | None
    rows_at: int
    records_at: int


class Lanes:
    """The lanes of one group and the compiled way behind them.

    Args:
        table: the group's streams.
        take, note: see `columns_loop.py`.
    """

    def __init__(self, table: StreamTable, take: Code, note: Code) -> None:
        self._table = table
        self._take, self._note = take, note
        self.rows: NDArray[np.int64] = np.full(64, -1, np.int64)
        self._generation = self._drops = -1
        self._t = np.zeros(words.WORDS, np.int64)
        self._words = memoryview(self._t.data)
        self._table_at = self._t.ctypes.data
        self._marked = np.zeros(0, np.uint8)
        self._seen: tuple[object, ...] = (None,) * 5
        self._records: NDArray[np.void] = np.zeros(0, table.detector.verdict_dtype)
        self._kept_rows: NDArray[np.int64] = np.zeros(0, np.int64)
        self._used = self._records_at = self._rows_at = 0
        self._columns: Columns | None = None
        self._words[words.CHANNELS] = len(table.names)
        self._words[words.OLDEST] = -TIME_LIMIT
        self._words[words.HAS_START] = table.assembler.has_start()
        self._words[words.WATCHED] = table.watch.rules.clock_limit_ns > 0

    def begin(self, columns: Columns, now_ns: int, latest_ns: int) -> None:
        """Take columns; times after `latest_ns` are dropped."""
        table, t = self._table, self._words
        if columns.generation != self._generation or table.drops != self._drops:
            self._generation, self._drops = columns.generation, table.drops
            self.rows[:] = -1
        if len(columns.streams) > len(self.rows):
            wider = np.full(2 * len(columns.streams), -1, np.int64)
            wider[: len(self.rows)] = self.rows
            self.rows = wider
        self._columns = columns
        n = len(columns.block)
        batch = table.batch
        while batch.size + n > len(batch.rows):
            batch.double()
        t[words.COUNT] = n
        t[words.NOW], t[words.LATEST] = now_ns, latest_ns
        t[words.BLOCK] = columns.address or columns.block.ctypes.data
        t[words.WIDTH] = columns.block.shape[1]
        t[words.LATE] = t[words.AHEAD] = 0
        self.look()

    def learn(self, lane: int, row: int) -> None:
        """The lane's stream has this row; other streams may have been forgotten for it."""
        if self._table.drops != self._drops:
            self._drops = self._table.drops
            self.rows[:] = -1
        self.rows[lane] = row

    def look(self) -> None:
        """See where the tables are now: they grow."""
        table, t = self._table, self._words
        batch, assembler, tracker = table.batch, table.assembler, table.tracker
        t[words.SIZE], t[words.USES] = batch.size, table.uses
        rows, records, marks, out, detector = self._seen
        if (
            out is batch.rows
            and rows is self.rows
            and records is assembler.records
            and marks is tracker.records
            and detector is table.detector
        ):
            return
        self._seen = (self.rows, assembler.records, tracker.records, batch.rows, table.detector)
        t[words.LANE_ROWS], t[words.LANE_COUNT] = self.rows.ctypes.data, len(self.rows)
        t[words.RECORDS] = assembler.records.ctypes.data
        t[words.RECORD_SIZE] = assembler.records.itemsize
        t[words.EVENT_MARKS] = tracker.marks.ctypes.data
        t[words.EVENT_SIZE] = tracker.marks.strides[0]
        t[words.ROOM] = len(batch.rows)
        t[words.OUT_ROWS], t[words.OUT_TIMES] = batch.rows.ctypes.data, batch.times_ns.ctypes.data
        t[words.OUT_XS], t[words.OUT_PRESENT] = batch.x.ctypes.data, batch.present.ctypes.data
        self._marked = np.zeros(len(batch.rows), np.uint8)
        t[words.MARKED] = self._marked.ctypes.data
        empty = np.zeros(1, table.detector.verdict_dtype)
        t[words.VERDICT_SIZE] = empty.itemsize
        self._run, judging = table.detector.judge_one(batch.x, batch.present, empty)
        judging[detector_words.ROWS_WORD] = t[words.OUT_ROWS]
        judging[detector_words.TIMES_WORD] = t[words.OUT_TIMES]
        self._judging, self._judging_at = memoryview(judging.data), judging.ctypes.data
        self._kept = judging

    def take(self, index: int) -> int:
        """Go on from message `index`; the first one that was not dealt with."""
        table, t = self._table, self._words
        end = self._take(self._table_at, index)
        size, before = t[words.SIZE], table.batch.size
        if size > before:
            table.batch.size, table.uses = size, t[words.USES]
            table.changed.update(table.batch.rows[before:size].tolist())
        return end

    @property
    def dropped(self) -> tuple[int, int]:
        """Messages that were late, and too far ahead, since `begin`, where clocks are not watched."""
        return self._words[words.LATE], self._words[words.AHEAD]

    def step(self) -> Stepped:
        """Judge the table's batch, in order, as `StreamTable.step` does."""
        table, t = self._table, self._words
        batch, n = table.batch, table.batch.size
        t[words.SIZE] = n
        used = self._used
        if used + n > len(self._records):
            self._records = np.zeros(max(_RECORDS, n), table.detector.verdict_dtype)
            self._kept_rows = np.zeros(len(self._records), np.int64)
            self._records_at, self._rows_at = self._records.ctypes.data, self._kept_rows.ctypes.data
            used = 0
        self._used = used + n
        out, rows = self._records[used : used + n], self._kept_rows[used : used + n]
        records_at, rows_at = self._records_at + used * t[words.VERDICT_SIZE], self._rows_at + 8 * used
        self._judging[detector_words.OUT_WORD] = t[words.VERDICTS] = records_at
        self._judging[detector_words.COUNT_WORD] = n
        t[words.KEPT_ROWS] = rows_at
        done = int(self._run(self._judging_at, 0))
        if done < n:
            raise ValueError(f"times: the detector refused sample {done} of {n}")
        told = None
        if self._note(self._table_at, 0):
            marked = rows[self._marked[:n] != 0]
            # Whatever opens here may close here: every verdict of such a stream is looked at.
            told = np.flatnonzero(np.isin(rows, marked))
        if told is not None or table.watch.is_busy:
            table.watch.judge(rows, table.ids, out, batch.x[:n], batch.present[:n])
        if table.tap is not None:
            ids = table.ids
            table.tap([str(ids[row]) for row in rows.tolist()], out, batch.x[:n], batch.present[:n])
        batch.size = 0
        return Stepped(rows, out, told, rows_at, records_at)
