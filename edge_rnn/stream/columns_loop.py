"""`Assembler.add` and what follows a verdict, for many messages in one compiled call each.

`take` puts messages that carry all channels of their streams into the batch, one after the other, and leaves
in the records what `Assembler.add` would have left. It ends at the first message for which there is more to
do: a stream without a row, a time that is not later, values that wait, a time out of bounds where clocks are
watched. The caller deals with that one in Python and goes on behind it, so nothing depends on how much of a
burst is usual.

`note` remembers the last verdict of each stream and marks those that may open, change or close an event.

Both get the address of a table of int64, mostly addresses again (the words below).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_rnn.core.jit import EntryPoint, inlined, source_digest
from edge_rnn.detect import guard, memory
from edge_rnn.detect import verdict as verdicts
from edge_rnn.detect.guard import FRESH, HELD
from edge_rnn.detect.memory import f8_at, i8_at, u1_at
from edge_rnn.detect.verdict import STATUSES
from edge_rnn.stream import assemble as at
from edge_rnn.stream import columns_words as words
from edge_rnn.stream import events
from edge_rnn.stream.assemble import NEVER

FAULT = STATUSES.index("fault")
DAY = at.DAY


@inlined
def _learn(marks: Any, passed: int) -> None:
    """As `Assembler.learn`."""
    interval, known = marks[at.INTERVAL], marks[at.KNOWN]
    if known == 0:
        interval = min(passed, DAY)
    else:
        step = max(1, interval >> (4 if known == at.LEARNED else 2))
        interval = min(interval + step, DAY) if passed > interval else max(1, interval - step)
    marks[at.INTERVAL] = interval
    marks[at.KNOWN] = min(known + 1, at.LEARNED)


def _take(table: int, begin: int) -> int:
    """Messages from number `begin` on; the number of the first that was not dealt with, or their count."""
    t = i8_at(table, words.WORDS)
    n, c, now = t[words.COUNT], t[words.CHANNELS], t[words.NOW]
    width = t[words.WIDTH]
    block, values = i8_at(t[words.BLOCK], n * width), f8_at(t[words.BLOCK], n * width)
    rows_of = i8_at(t[words.LANE_ROWS], t[words.LANE_COUNT])
    records, size = t[words.RECORDS], t[words.RECORD_SIZE]
    room = t[words.ROOM]
    out_rows, out_times = i8_at(t[words.OUT_ROWS], room), i8_at(t[words.OUT_TIMES], room)
    xs, present = f8_at(t[words.OUT_XS], room * c), u1_at(t[words.OUT_PRESENT], room * c)
    to = t[words.SIZE]
    index = begin
    while index < n:
        message = index * width
        lane = block[message + words.LANE]
        row = rows_of[lane] if lane < rows_of.size else -1
        if row < 0:
            break
        time_ns = block[message + words.TIME]
        if time_ns <= t[words.OLDEST] or time_ns > t[words.LATEST]:
            if t[words.WATCHED]:
                break
            if time_ns < 0:
                t[words.LATE] += 1
            else:
                t[words.AHEAD] += 1
            index += 1
            continue
        record = records + row * size
        marks = i8_at(record + 16 * c, at.MARKS)
        emitted = marks[at.EMITTED]
        if time_ns <= marks[at.NEWEST] or time_ns <= emitted or marks[at.OPENED] != NEVER:
            break
        if marks[at.FIRST] == NEVER:
            marks[at.FIRST] = time_ns
        if emitted != NEVER:
            _learn(marks, time_ns - emitted)
        marks[at.NEWEST] = marks[at.EMITTED] = time_ns
        marks[at.OPENED_AT] = marks[at.ACTIVE_AT] = now
        marks[at.SEEN] = c
        if t[words.HAS_START]:
            marks[at.STARTED] = 1
        marks[at.QUIET] = marks[at.NEW] = 0
        t[words.USES] += 1
        marks[at.USED] = t[words.USES]
        held, newest = f8_at(record, c), i8_at(record + 8 * c, c)
        flags = u1_at(record + 16 * c + 8 * at.MARKS, c)
        for i in range(c):
            value = values[message + words.VALUES + i]
            held[i] = value
            newest[i] = time_ns
            flags[i] = HELD
            xs[to * c + i] = value
            present[to * c + i] = FRESH
        out_rows[to], out_times[to] = row, time_ns
        to += 1
        index += 1
    t[words.SIZE] = to
    return index


def _note(table: int, begin: int) -> int:
    """Verdicts from number `begin` on; how many were marked in the table's MARKED."""
    t = i8_at(table, words.WORDS)
    n, c, size = t[words.SIZE], t[words.CHANNELS], t[words.VERDICT_SIZE]
    rows, marked, kept = i8_at(t[words.OUT_ROWS], n), u1_at(t[words.MARKED], n), i8_at(t[words.KEPT_ROWS], n)
    records, stride = t[words.EVENT_MARKS], t[words.EVENT_SIZE]
    found = 0
    for index in range(begin, n):
        verdict = t[words.VERDICTS] + index * size
        marks = i8_at(records + rows[index] * stride, events.MARKS)
        flags, numbers = u1_at(verdict + 32 + 25 * c, 2), i8_at(verdict, 2)
        told = flags[1] != 0 or flags[0] == FAULT or marks[events.OPEN] != 0 or marks[events.FAULTS] != 0
        marked[index] = told
        kept[index] = rows[index]
        found += told
        marks[events.STEP], marks[events.LAST] = numbers[1], numbers[0]
    return found


@functools.cache
def take() -> EntryPoint:
    """`_take`, ready to be compiled."""
    return _entry(_take)


@functools.cache
def note() -> EntryPoint:
    """`_note`, ready to be compiled."""
    return _entry(_note)


def _entry(function: Callable[[int, int], int]) -> EntryPoint:
    probe = np.zeros(words.WORDS, np.int64)
    modules = (at, words, events, guard, memory, verdicts)
    files = (__file__, *(str(module.__file__) for module in modules))
    answer = 3 if function is _take else 0
    return EntryPoint(function, "int64(int64, int64)", source_digest(*files), probe, answer, (3,))
