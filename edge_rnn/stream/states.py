"""The streams of one group: a bounded table, one row each, and rows as bytes.

A row is four records side by side: the detector's (`detect/plan.py`), the assembler's, the events' and that
of the watch over clocks and flapping (`watch.py`). It is everything that decides the stream's future. Rows
are made as streams appear, up to `max_streams`; the tables double until then. Beyond it the least recently
used stream is forgotten.

A row as bytes, little-endian:

    offset  bytes
    0       4     "ERST"
    4       2     version, 2; a row of version 1 is without a watch, and goes on as one that has seen nothing
    6       2     0
    8       32    digest of the layout: both records here, the assembly's rules, the inputs' names
    40      4 * 3 sizes of the three parts
    52      n     detector (its own header names weights, layout and detector section), assembler, events,
                  then, up to the end, the watch, with a digest of its own of 8 bytes first
    52+n    4     CRC-32 of the stream's id (UTF-8) and all before it

The checksum covers the id, so bytes filed under another stream's name are noticed. `load` accepts only what
this table could have written: counts agree with flags, times with each other and with the detector's.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.backend import LibraryLike
from edge_rnn.core.integers import Quantized
from edge_rnn.core.jit import Numeric
from edge_rnn.core.model import Model
from edge_rnn.detect import fields
from edge_rnn.detect.detector import DetectorTable
from edge_rnn.detect.guard import ABSENT, FRESH, HELD
from edge_rnn.errors import SnapshotError
from edge_rnn.stream import assemble, events
from edge_rnn.stream.assemble import NEVER, TIME_LIMIT, Assembler, Assembly, Batch
from edge_rnn.stream.burst import Burst
from edge_rnn.stream.events import Tracker
from edge_rnn.stream.types import Counters, Event
from edge_rnn.stream.watch import Watch, WatchRules

__all__ = ["StreamTable"]

MAGIC: Final = b"ERST"
VERSION: Final = 2
_HEAD: Final = struct.Struct("<4sHH32s3I")
_FIRST_ROWS: Final = 16
_REMEDY: Final = "start this stream cold"
_MAX_SHAPES: Final = 1024


Tap = Callable[[list[str], NDArray[np.void], NDArray[np.float64], NDArray[np.uint8]], None]
"""Is shown what was judged: ids, verdict records (n,), values (n, C), present (n, C); it keeps no array."""


class StreamTable:
    """The streams of one group.

    Args:
        model: a model with a detector section.
        assembly: when a vector leaves.
        max_streams: most streams at one time.
        counters: shared by all tables of an engine.
        rise, update_ns: see `events.Tracker`.
        watch: see `watch.Watch`.
        numeric: see `DetectorTable`.
        quantized: the network in integers, in place of the model's own.
        library: see `DetectorTable`.

    Attributes:
        rows: row of each stream id; ids: its inverse; detector, assembler, tracker: the three tables;
        batch: samples not judged yet; burst: messages not assembled yet; whole: all channels in order;
        uses: how often its streams have been used, for the order in which they are forgotten;
        changed: rows that differ from what `dump` gave last;
        drops: how many streams have been forgotten, whose rows may be other streams' now.
    """

    def __init__(
        self,
        model: Model,
        assembly: Assembly,
        max_streams: int,
        counters: Counters,
        rise: float,
        update_ns: int,
        watch: WatchRules | None = None,
        numeric: Numeric = "auto",
        quantized: Quantized | None = None,
        library: LibraryLike | None = None,
    ) -> None:
        names = [i.name for i in model.inputs]
        capacity = min(max_streams, _FIRST_ROWS)
        self._numeric: Numeric = numeric
        self._quantized = quantized
        self._library = library
        self.model = model
        self.names = names
        self.tap: Tap | None = None
        self.max_streams = max_streams
        self.detector = self._detector(capacity)
        period = self.detector.plan.spec.period_ns
        self.assembler = Assembler(assembly, names, capacity, counters, period)
        self.tracker = Tracker(names, capacity, rise, update_ns)
        self.watch = Watch(names, capacity, watch or WatchRules())
        self.assembler.refuse = self.refuse
        self.assembler.numbered = self.watch.rules.numbered
        self.batch = Batch(len(names))
        self.burst = Burst()
        self.whole = tuple(range(len(names)))
        self.uses = 0
        self.drops = 0
        self.rows: dict[str, int] = {}
        self.ids: list[str | None] = [None] * capacity
        self.taken: NDArray[np.bool_] = np.zeros(capacity, np.bool_)
        self.changed: set[int] = set()
        self._free = list(range(capacity - 1, -1, -1))
        self._shapes: set[tuple[int, ...]] = set()
        dtypes = (self.assembler.records.dtype.descr, self.tracker.records.dtype.descr)
        facts = (*dtypes, assembly.on, assembly.every_ns, names)
        self._layout = hashlib.sha256(repr(facts).encode()).digest()

    def _detector(self, capacity: int) -> DetectorTable:
        if self._quantized is not None:
            from edge_rnn.detect.integer import IntegerDetectorTable

            return IntegerDetectorTable(self.model, self._quantized, capacity)
        return DetectorTable(self.model, capacity, self._numeric, self._library)

    def is_full(self) -> bool:
        """Whether a new stream needs another one to go."""
        return len(self.rows) >= self.max_streams

    def admit(self, stream: str, now_ns: int) -> int:
        """A fresh row for a stream that has none; the table is not full."""
        row = self._take_row(stream)
        self.assembler.marks[row, assemble.ACTIVE_AT] = now_ns
        return row

    def oldest(self) -> str:
        """The least recently used stream."""
        rows = np.flatnonzero(self.taken)
        stream = self.ids[int(rows[self.assembler.marks[rows, assemble.USED].argmin()])]
        assert stream is not None
        return stream

    def drop(self, stream: str) -> list[Event]:
        """Forget a stream, no sample of which is waiting in `batch`; returns the events this closes."""
        self.drops += 1
        row = self.rows.pop(stream)
        last = int(self.tracker.marks[row, events.LAST])
        closed = self.watch.close_all(row, stream, last) + self.tracker.close_all(row, stream)
        self.detector.reset(row)
        self.assembler.records[row] = self.assembler.fresh[0]
        self.ids[row] = None
        self.taken[row] = False
        self.changed.discard(row)
        self._free.append(row)
        return closed

    def refuse(self, row: int, channels: Sequence[int], time_ns: int, *, late: bool) -> None:
        """Readings of a row that are dropped because of their time; see `watch.Watch.refuse`."""
        if self.watch.rules.clock_limit_ns:
            self.watch.refuse(row, channels, time_ns, late=late)
            self.changed.add(row)

    def has_open(self) -> NDArray[np.bool_]:
        """bool (capacity,): rows with an open event."""
        marks = self.tracker.marks
        found: NDArray[np.bool_] = (marks[:, events.OPEN] | marks[:, events.FAULTS]) != 0
        return found | self.watch.has_open

    def open_ids(self, row: int) -> list[str]:
        """Ids of a row's open events."""
        stream = str(self.ids[row])
        return self.tracker.open_ids(row, stream) + self.watch.open_ids(row, stream)

    def check_channels(self, channels: tuple[int, ...], values: Sequence[float]) -> None:
        """`ValueError` unless these are distinct indices of inputs, with as many values.

        What was fine is remembered, so the second time is cheap.
        """
        if len(values) != len(channels):
            raise ValueError(f"values: expected {len(channels)}, got {len(values)}")
        if channels in self._shapes:
            return
        if not channels or len(set(channels)) != len(channels):
            raise ValueError(f"channels: expected distinct indices and at least one, got {channels}")
        if not all(0 <= c < len(self.names) for c in channels):
            raise ValueError(f"channels: expected 0..{len(self.names) - 1}, got {channels}")
        if len(self._shapes) >= _MAX_SHAPES:
            self._shapes.clear()
        self._shapes.add(channels)

    def step(self) -> NDArray[np.void]:
        """Judge all of `batch`, in order; returns records (n,) of the detector's verdict dtype."""
        batch = self.batch
        n = batch.size
        out = np.zeros(n, self.detector.verdict_dtype)
        rows = batch.rows[:n]
        self.detector.step_rows(rows, batch.times_ns[:n], batch.x[:n], batch.present[:n], out)
        self.tracker.note(rows, out)
        self.watch.judge(rows, self.ids, out, batch.x[:n], batch.present[:n])
        if self.tap is not None:
            streams = [str(self.ids[row]) for row in rows.tolist()]
            self.tap(streams, out, batch.x[:n], batch.present[:n])
        batch.size = 0
        return out

    def dump(self, row: int) -> bytes:
        """The row as bytes; see the module."""
        parts = [
            self.detector.snapshot(row),
            self.assembler.records[row].tobytes(),
            self.tracker.records[row].tobytes(),
        ]
        stream = self.ids[row]
        assert stream is not None
        head = _HEAD.pack(MAGIC, VERSION, 0, self._layout, *map(len, parts))
        content = head + b"".join(parts) + self.watch.dump(row)
        return content + struct.pack("<I", _checksum(stream, content))

    def load(self, stream: str, blob: bytes) -> int:
        """Bring a stream that has no row to a saved state; the table is not full. Returns its row.

        Raises:
            SnapshotError: the bytes are damaged or of another stream, model, version or assembly; nothing
                changed.
        """
        detector, assembler, tracker, watch = self._parse(stream, blob)
        row = self._take_row(stream)
        try:
            self.detector.restore(row, detector)
            marks = self.detector.states["marks"][row]
            last = int(marks[fields.TIME]) if marks[fields.STEPS] else NEVER
            if last != assembler["marks"][0, assemble.EMITTED]:
                raise SnapshotError(f"stream {stream!r}: its parts are of different times; {_REMEDY}")
            if not self.watch.load(row, watch):
                raise SnapshotError(f"stream {stream!r}: its watch contradicts itself; {_REMEDY}")
        except SnapshotError:
            self.drop(stream)
            raise
        self.assembler.records[row] = assembler[0]
        self.tracker.records[row] = tracker[0]
        return row

    def _take_row(self, stream: str) -> int:
        if not self._free:
            self._grow()
        row = self._free.pop()
        self.rows[stream] = row
        self.ids[row] = stream
        self.taken[row] = True
        return row

    def _grow(self) -> None:
        old = len(self.ids)
        capacity = min(2 * old, self.max_streams)
        wider = self._detector(capacity)
        wider.states[:old] = self.detector.states
        self.detector = wider
        self.assembler.grow(capacity)
        self.tracker.grow(capacity)
        self.watch.grow(capacity)
        self.ids += [None] * (capacity - old)
        self.taken = np.concatenate([self.taken, np.zeros(capacity - old, np.bool_)])
        self._free = list(range(capacity - 1, old - 1, -1))

    def _parse(self, stream: str, blob: bytes) -> tuple[bytes, NDArray[np.void], NDArray[np.void], bytes]:
        where = f"stream {stream!r}"
        if len(blob) < _HEAD.size + 4 or blob[:4] != MAGIC:
            raise SnapshotError(
                f"{where}: expected the state of a stream, got {len(blob)} other bytes; {_REMEDY}"
            )
        if _checksum(stream, blob[:-4]) != int.from_bytes(blob[-4:], "little"):
            raise SnapshotError(f"{where}: the checksum of its state does not fit, it is damaged; {_REMEDY}")
        _, version, zero, layout, *sizes = _HEAD.unpack_from(blob)
        if version not in (1, VERSION) or zero:
            raise SnapshotError(f"{where}: expected version {VERSION} of its state, got {version}; {_REMEDY}")
        if layout != self._layout:
            raise SnapshotError(
                f"{where}: its state was made with other channels or another assembly of them; {_REMEDY}"
            )
        expected = [self.assembler.records.itemsize, self.tracker.records.itemsize]
        rest = len(blob) - 4 - _HEAD.size - sum(sizes)
        if sizes[1:] != expected or rest < 0 or (rest == 0) != (version == 1):
            raise SnapshotError(f"{where}: its state has parts of {sizes} bytes, which do not fit; {_REMEDY}")
        first = _HEAD.size
        second = first + sizes[0]
        third = second + sizes[1]
        assembler = np.frombuffer(blob, self.assembler.records.dtype, 1, second)
        tracker = np.frombuffer(blob, self.tracker.records.dtype, 1, third)
        if not _is_sound(assembler, self.assembler) or not _is_sound_tracker(tracker):
            raise SnapshotError(f"{where}: its state contradicts itself; {_REMEDY}")
        return blob[first:second], assembler, tracker, blob[len(blob) - 4 - rest : -4]


def _checksum(stream: str, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(stream.encode("utf-8", "surrogatepass")))


def _is_sound(records: NDArray[np.void], assembler: Assembler) -> bool:
    """Whether an assembler could have left such a record: (1,) of its dtype."""
    flags, times, marks = records["flags"][0], records["times"][0], records["marks"][0]
    seen = flags != ABSENT
    known = times[seen]
    newest = known.max() if known.size else NEVER
    limit = TIME_LIMIT // max(assembler.every_ns, 1)
    return bool(
        (flags <= max(FRESH, HELD)).all()
        and (times[~seen] == NEVER).all()
        and ((known > -TIME_LIMIT) & (known < TIME_LIMIT)).all()
        and marks[assemble.SEEN] == seen.sum()
        and marks[assemble.NEW] == (flags == FRESH).sum()
        and marks[assemble.NEWEST] == newest
        and (marks[assemble.FIRST] == NEVER) == (newest == NEVER)
        and all(m == NEVER or -TIME_LIMIT < m < TIME_LIMIT for m in marks[[assemble.FIRST, assemble.OPENED]])
        and (
            marks[assemble.EMITTED] == NEVER or -2 * TIME_LIMIT < marks[assemble.EMITTED] < 2 * TIME_LIMIT - 2
        )
        and (marks[assemble.BIN] == NEVER or -limit - 1 <= marks[assemble.BIN] <= limit + 1)
        and 0 <= marks[assemble.KNOWN] <= assemble.LEARNED
        and 0 <= marks[assemble.INTERVAL] < TIME_LIMIT
        and marks[assemble.STARTED] in (0, 1)
        and marks[assemble.QUIET] in (0, 1)
        and 0 <= marks[assemble.USED] < TIME_LIMIT
        and all(-TIME_LIMIT < m < TIME_LIMIT for m in marks[[assemble.OPENED_AT, assemble.ACTIVE_AT]])
    )


def _is_sound_tracker(records: NDArray[np.void]) -> bool:
    record = records[0]
    marks = record["marks"]
    return bool(
        record["open"].max() <= 1
        and record["faulty"].max() <= 1
        and marks[events.OPEN] in (0, 1)
        and marks[events.FAULTS] == record["open"].any()
        and marks[events.STEP] >= 0
        and ((record["clean"] >= 0) & (record["clean"] <= events.CLEAN)).all()
        and np.isfinite(record["numbers"]).all()
        and not np.isinf(record["share"]).any()
    )
