"""A recorded table through the engine, and what its labels say about the alarms.

Each row is one message of one stream, given to the same `Engine.feed` that the daemon calls, with the
recorded time as the clock: a pause in the file is a pause for the engine, which reports silence as it would
live. An empty cell is a value that did not come; the engine holds the last one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.backend import LibraryLike
from edge_rnn.core.integers import Quantized
from edge_rnn.core.model import Model
from edge_rnn.detect.verdict import STATUSES, Verdict
from edge_rnn.files.readings import Table
from edge_rnn.stream.engine import Engine, Group
from edge_rnn.stream.types import Counters, Event, Message

__all__ = ["Alarm", "Judgement", "Replay", "alarms", "judge", "replay", "runs"]

STREAM = "replay"
_CHUNK = 2048


@dataclass(slots=True, eq=False)
class Replay:
    """What the engine said, row by row; T rows, C channels.

    score, threshold: (T,) float64, NaN where nothing was judged; expected: (T, C) float64, in the readings'
    unit; status: (T,) uint8, index into `STATUSES`; alarm, judged: (T,) bool, the alarm is on, the row gave a
    verdict; events: in order; seconds: time it took.
    """

    table: Table
    score: NDArray[np.float64]
    threshold: NDArray[np.float64]
    expected: NDArray[np.float64]
    status: NDArray[np.uint8]
    alarm: NDArray[np.bool_]
    judged: NDArray[np.bool_]
    events: list[Event]
    counters: Counters
    seconds: float


@dataclass(frozen=True, slots=True)
class Alarm:
    """The life of one alarm or fault: end_ns is None if it is still on at the end of the data."""

    kind: str
    start_ns: int
    end_ns: int | None
    peak: float
    peak_ns: int
    threshold: float
    shares: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Alarms against labels, by rows and by events.

    f1, precision, recall: of rows under alarm against labelled rows, NaN where undefined; far: part of the
    normal rows under alarm; mar: part of the labelled rows not under alarm. found of labelled: stretches of
    labelled rows with an alarm in them; false_alarms: stretches under alarm that touch no labelled row.
    """

    f1: float
    precision: float
    recall: float
    far: float
    mar: float
    labelled: int
    found: int
    false_alarms: int


def replay(
    model: Model,
    table: Table,
    progress: Callable[[int], None] = lambda _: None,
    quantized: Quantized | None = None,
    library: LibraryLike | None = None,
) -> Replay:
    """Run `table`, whose channels are the model's inputs in order, through an engine.

    Args:
        progress: called with the number of rows done.
        quantized: the model's network in integers, judged in its place.
        library: see `DetectorTable`.

    Raises:
        ModelFileError: the model has no detector section.
    """
    rows, channels = table.values.shape
    engine = Engine([Group(STREAM, model, quantized=quantized, library=library)])
    result = Replay(
        table=table,
        score=np.full(rows, np.nan),
        threshold=np.full(rows, np.nan),
        expected=np.full((rows, channels), np.nan),
        status=np.zeros(rows, np.uint8),
        alarm=np.zeros(rows, np.bool_),
        judged=np.zeros(rows, np.bool_),
        events=[],
        counters=engine.counters,
        seconds=0.0,
    )
    times = table.times_ns
    # Times may step back in a file; the engine drops such rows, and its clock does not go back.
    clock = np.maximum.accumulate(times)
    silent_after = 0 if model.detector is None else model.detector.guard.silent_after_ns
    pauses = np.flatnonzero(np.diff(clock) > silent_after) + 1 if silent_after else np.empty(0, np.int64)
    stops = np.unique(np.concatenate([pauses, np.arange(_CHUNK, rows, _CHUNK), [rows]])).tolist()
    silent = set(pauses.tolist())
    begun = time.perf_counter()
    start = 0
    for stop in stops:
        if start in silent:
            # Just before the reading that ends the pause: what a clock beside the live stream would see.
            engine.tick(int(clock[start]) - 1)
        _store(result, clock, engine.feed(_messages(table, start, stop), int(clock[stop - 1])))
        result.events.extend(engine.take_events())
        progress(stop)
        start = stop
    result.seconds = time.perf_counter() - begun
    return result


def _messages(table: Table, start: int, stop: int) -> list[Message]:
    """Rows as messages; a missing value is left out, a row without any is no message."""
    whole = tuple(range(len(table.channels)))
    times = table.times_ns[start:stop].tolist()
    values = table.values[start:stop]
    missing = np.flatnonzero(np.isnan(values).any(axis=1))
    incomplete = set(missing.tolist())
    found: list[Message] = []
    for at, (time_ns, row) in enumerate(zip(times, values.tolist(), strict=True)):
        if at in incomplete:
            some = tuple(c for c in whole if not math.isnan(row[c]))
            if some:
                found.append(Message(STREAM, some, time_ns, [row[c] for c in some]))
        else:
            found.append(Message(STREAM, whole, time_ns, row))
    return found


def _store(result: Replay, clock: NDArray[np.int64], verdicts: list[Verdict]) -> None:
    if not verdicts:
        return
    times = np.array([v.time_ns for v in verdicts], np.int64)
    # The first row of that time. A sample that shares its row's time with the one before was moved on by a
    # nanosecond, which is no row's time: it belongs to the row before.
    at = np.searchsorted(clock, clock[np.searchsorted(clock, times, side="right") - 1], side="left")
    result.score[at] = [v.score for v in verdicts]
    result.threshold[at] = [v.threshold for v in verdicts]
    result.expected[at] = [v.expected for v in verdicts]
    result.status[at] = [STATUSES.index(v.status) for v in verdicts]
    result.alarm[at] = [v.alarm for v in verdicts]
    result.judged[at] = True


def alarms(events: list[Event]) -> list[Alarm]:
    """The events of one stream put together, one entry for each id, in the order of their opening."""
    last: dict[str, Event] = {}
    limits: dict[str, float] = {}
    for event in events:
        last[event.id] = event
        if event.type == "open":
            limits[event.id] = event.threshold
    return [
        Alarm(e.kind, e.start_ns, e.end_ns, e.peak, e.peak_ns, limits.get(i, math.nan), e.shares)
        for i, e in last.items()
    ]


def runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Stretches of True as (first, last + 1)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    pairs: list[list[int]] = edges.reshape(-1, 2).tolist()
    return [(a, b) for a, b in pairs]


def judge(alarm: NDArray[np.bool_], labels: NDArray[np.bool_]) -> Judgement:
    """Compare alarms (T,) with labels (T,)."""
    hit = int((alarm & labels).sum())
    false = int((alarm & ~labels).sum())
    missed = int((~alarm & labels).sum())
    quiet = int((~alarm & ~labels).sum())
    stretches = runs(labels)
    return Judgement(
        f1=_ratio(2 * hit, 2 * hit + false + missed),
        precision=_ratio(hit, hit + false),
        recall=_ratio(hit, hit + missed),
        far=_ratio(false, false + quiet),
        mar=_ratio(missed, missed + hit),
        labelled=len(stretches),
        found=sum(bool(alarm[a:b].any()) for a, b in stretches),
        false_alarms=sum(not labels[a:b].any() for a, b in runs(alarm)),
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
