"""From verdicts to events: one alarm is one `open`, a few `update`s and one `close`, not a message per row.

An anomaly opens when a verdict's alarm turns on and closes when it turns off. In between, an update is made
when the peak exceeds the one told last by the factor `rise`, at most once in `update_ns` of event time.
Shares are those at the peak.

A fault event belongs to one kind of fault of one stream, whatever number of channels have it. It opens with
the first faulty verdict, is updated when another channel joins (so at most once a channel), and closes when
`CLEAN` verdicts in a row are without it: a sensor that fails every other reading is one event, not hundreds.
Its end is the first of these. Silence ends with the first reading.

Nothing but the verdicts decides, all state is in one record per stream (`record_dtype`), and an id is made of
start, kind and stream: the same readings give the same events with the same ids, after a restart too.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_rnn.detect.verdict import FAULT_KINDS, GUARD_KINDS, Verdict
from edge_rnn.stream.types import Event

__all__ = ["CLEAN", "Tracker", "event_id", "record_dtype"]

CLEAN = 3
MAX_SHARES = 32
# Places in `marks`: whether an anomaly is open, or any fault; its start, peak and last message; the last
# verdict's step and time.
OPEN, FAULTS, START, PEAK_AT, TOLD_AT, STEP, LAST, MARKS = range(8)
# Places in `numbers`: highest score, highest score told, last threshold.
PEAK, TOLD, LIMIT, NUMBERS = range(4)
# The other kinds of faults have their events from `watch.py`.
_KINDS = len(GUARD_KINDS)
_SILENT = FAULT_KINDS.index("silent")


def record_dtype(channels: int) -> np.dtype[np.void]:
    """The tracker's record of one stream; its size is a multiple of 8 bytes.

    numbers f8, share f8 (C,): the anomaly's; marks i8; per kind of fault: clean i8 (clean verdicts in a row),
    start i8, end i8 (time of the first clean one), open u1, faulty u1 (C,).
    """
    fields = [
        ("numbers", ("<f8", (NUMBERS,)), 8 * NUMBERS), ("share", ("<f8", (channels,)), 8 * channels),
        ("marks", ("<i8", (MARKS,)), 8 * MARKS), ("clean", ("<i8", (_KINDS,)), 8 * _KINDS),
        ("start", ("<i8", (_KINDS,)), 8 * _KINDS), ("end", ("<i8", (_KINDS,)), 8 * _KINDS),
        ("open", ("u1", (_KINDS,)), _KINDS), ("faulty", ("u1", (_KINDS, channels)), _KINDS * channels),
    ]  # fmt: skip
    offsets = np.cumsum([0] + [size for _, _, size in fields]).tolist()
    return np.dtype(
        {
            "names": [name for name, _, _ in fields],
            "formats": [kind for _, kind, _ in fields],
            "offsets": offsets[:-1],
            "itemsize": (offsets[-1] + 7) // 8 * 8,
        }
    )


def event_id(stream: str, kind: str, start_ns: int) -> str:
    """The same for the same stream, kind and start; sorts by start."""
    return f"{start_ns}-{kind}-{hashlib.blake2s(stream.encode(), digest_size=8).hexdigest()}"


class Tracker:
    """The open events of all streams of one group, one record each.

    Args:
        names: the model's input names.
        capacity: number of streams.
        rise: factor above the last told score that is worth an update.
        update_ns: shortest event time between two messages about one anomaly.
    """

    def __init__(self, names: Sequence[str], capacity: int, rise: float, update_ns: int) -> None:
        self._names = tuple(names)
        self._rise = rise
        self._pause = update_ns
        self.records = np.zeros(capacity, record_dtype(len(names)))
        self._look()

    def _look(self) -> None:
        self.marks: NDArray[np.int64] = self.records["marks"]
        self._i8 = memoryview(self.records.view(np.uint8).data).cast("q")
        self._stride = self.records.dtype.itemsize // 8
        self._marks_at = self.records.dtype.fields["marks"][1] // 8  # type: ignore[index]

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` streams."""
        # Not np.concatenate: it gives a record without its padding, another layout.
        wider = np.zeros(capacity, self.records.dtype)
        wider[: len(self.records)] = self.records
        self.records = wider
        self._look()

    def note(self, rows: NDArray[np.int64], out: NDArray[np.void]) -> None:
        """Remember step and time of the last verdict of each row; rows i8 (n,), out (n,) verdict records."""
        self.marks[rows, STEP] = out["step"]
        self.marks[rows, LAST] = out["time_ns"]

    def follow(self, row: int, verdict: Verdict) -> list[Event]:
        """The events this verdict makes, faults by number of kind, then the anomaly."""
        at = row * self._stride + self._marks_at
        events: list[Event] = []
        if verdict.faults or self._i8[at + FAULTS]:
            events += self._faults(row, verdict)
        if verdict.alarm or self._i8[at + OPEN]:
            event = self._anomaly(row, verdict)
            if event is not None:
                events.append(event)
        return events

    def close_all(self, row: int, stream: str) -> list[Event]:
        """Close what is open, at the time of the last verdict: the stream is being forgotten."""
        record, now = self.records[row], int(self.marks[row, LAST])
        events = [
            self._fault(record, stream, kind, "close", now, now)
            for kind in range(_KINDS)
            if record["open"][kind]
        ]
        if record["marks"][OPEN]:
            events.append(self._event(record, stream, "close", now, math.nan, record["numbers"][LIMIT]))
        self.records[row] = np.zeros((), self.records.dtype)
        return events

    def open_ids(self, row: int, stream: str) -> list[str]:
        """Ids of the events that are open."""
        record = self.records[row]
        found = [
            event_id(stream, FAULT_KINDS[kind], int(record["start"][kind]))
            for kind in np.flatnonzero(record["open"]).tolist()
        ]
        if record["marks"][OPEN]:
            found.append(event_id(stream, "anomaly", int(record["marks"][START])))
        return found

    def _anomaly(self, row: int, verdict: Verdict) -> Event | None:
        record = self.records[row]
        marks, numbers = record["marks"], record["numbers"]
        kind: Literal["open", "update", "close"] | None = None
        score, time_ns = verdict.score, verdict.time_ns
        if not verdict.alarm:
            kind = "close"
            marks[OPEN] = 0
        elif not marks[OPEN]:
            kind = "open"
            marks[OPEN] = 1
            marks[START] = marks[PEAK_AT] = marks[TOLD_AT] = time_ns
            numbers[PEAK] = numbers[TOLD] = score
            record["share"] = verdict.share
        else:
            if score > numbers[PEAK]:
                numbers[PEAK] = score
                marks[PEAK_AT] = time_ns
                record["share"] = verdict.share
            risen = float(numbers[PEAK]) > self._rise * float(numbers[TOLD])
            if risen and time_ns - int(marks[TOLD_AT]) >= self._pause:
                kind = "update"
                marks[TOLD_AT] = time_ns
                numbers[TOLD] = numbers[PEAK]
        if not math.isnan(verdict.threshold):
            numbers[LIMIT] = verdict.threshold
        if kind is None:
            return None
        return self._event(record, verdict.stream, kind, time_ns, score, numbers[LIMIT])

    def _event(
        self,
        record: np.void,
        stream: str,
        kind: Literal["open", "update", "close"],
        time_ns: int,
        score: float,
        threshold: float,
    ) -> Event:
        share = record["share"]
        order = np.argsort(-share, kind="stable")[:MAX_SHARES]
        start = int(record["marks"][START])
        return Event(
            type=kind,
            id=event_id(stream, "anomaly", start),
            stream=stream,
            kind="anomaly",
            start_ns=start,
            time_ns=time_ns,
            end_ns=time_ns if kind == "close" else None,
            score=score,
            threshold=float(threshold),
            peak=float(record["numbers"][PEAK]),
            peak_ns=int(record["marks"][PEAK_AT]),
            shares=tuple((self._names[i], float(share[i])) for i in order),
        )

    def _faults(self, row: int, verdict: Verdict) -> Iterator[Event]:
        record = self.records[row]
        found: dict[int, list[int]] = {}
        for fault in verdict.faults:
            found.setdefault(FAULT_KINDS.index(fault.kind), []).append(fault.channel)
        for kind in range(1, _KINDS):
            channels = found.get(kind)
            if channels:
                faulty = record["faulty"][kind]
                joined = not faulty[channels].all()
                faulty[channels] = 1
                record["clean"][kind] = 0
                if not record["open"][kind]:
                    record["open"][kind] = 1
                    record["start"][kind] = verdict.time_ns
                    yield self._fault(record, verdict.stream, kind, "open", verdict.time_ns, None)
                elif joined:
                    yield self._fault(record, verdict.stream, kind, "update", verdict.time_ns, None)
            elif record["open"][kind]:
                if record["clean"][kind] == 0:
                    record["end"][kind] = verdict.time_ns
                record["clean"][kind] += 1
                if kind == _SILENT or record["clean"][kind] >= CLEAN:
                    end = int(record["end"][kind])
                    yield self._fault(record, verdict.stream, kind, "close", verdict.time_ns, end)
                    record["open"][kind] = 0
                    record["faulty"][kind] = 0
        record["marks"][FAULTS] = record["open"].any()

    def _fault(
        self,
        record: np.void,
        stream: str,
        kind: int,
        change: Literal["open", "update", "close"],
        time_ns: int,
        end_ns: int | None,
    ) -> Event:
        start = int(record["start"][kind])
        channels = np.flatnonzero(record["faulty"][kind])[:MAX_SHARES]
        return Event(
            type=change,
            id=event_id(stream, FAULT_KINDS[kind], start),
            stream=stream,
            kind=FAULT_KINDS[kind],
            start_ns=start,
            time_ns=time_ns,
            end_ns=end_ns,
            score=math.nan,
            threshold=math.nan,
            peak=math.nan,
            peak_ns=start,
            shares=tuple((self._names[i], math.nan) for i in channels),
        )
