"""Score messages of a burst as MQTT packets, in one compiled pass over the verdict records.

`write` is given a table of int64, mostly addresses (the words below). For each record it finds its stream's
row among the outputs, decides as `Outputs.judged` does whether a message is due, and writes the whole PUBLISH
packet: the same bytes that msgspec and the connection make. Records that are not usual (a stream that is not
known yet, another status than before, a fault) end the pass: the caller deals with that one and goes on.

The text of a group's message is prepared once: the pieces that stand between its numbers (see `Pieces`).
"""

from __future__ import annotations

import functools
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core import wide
from edge_rnn.core.jit import EntryPoint, inlined, jit, source_digest
from edge_rnn.detect import memory
from edge_rnn.detect import verdict as verdicts
from edge_rnn.detect.memory import f8_at, i8_at, u1_at
from edge_rnn.detect.verdict import STATUSES
from edge_rnn.service.wire import decimals, words
from edge_rnn.service.wire.decimals import put_integer, put_number

Bytes = NDArray[np.uint8]
FAULT: Final = STATUSES.index("fault")
_SECOND: Final = 10**9


@inlined
def _copy(out: Bytes, at: int, source: Bytes, begin: int, end: int) -> int:
    for i in range(begin, end):
        out[at] = source[i]
        at += 1
    return at


@inlined
def _put_piece(out: Bytes, at: int, texts: Bytes, ends: NDArray[np.int64], number: int) -> int:
    return _copy(out, at, texts, ends[number], ends[number + 1])


@inlined
def _put_fixed(out: Bytes, at: int, value: int, digits: int) -> int:
    """A number with leading zeros."""
    for i in range(at + digits - 1, at - 1, -1):
        out[i] = 48 + value % 10
        value //= 10
    return at + digits


@jit
def _put_second(out: Bytes, at: int, seconds: int) -> int:
    """2026-01-31T12:00:00; the civil date of a count of days, by eras of 400 years that begin in March."""
    days, rest = seconds // 86400, seconds % 86400
    shifted = days + 719468
    era = shifted // 146097
    day = shifted - era * 146097
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5
    year += era * 400
    month += 3
    if month > 12:
        month -= 12
        year += 1
    at = _put_fixed(out, at, year, 4)
    out[at] = 45
    at = _put_fixed(out, at + 1, month, 2)
    out[at] = 45
    at = _put_fixed(out, at + 1, day + 1, 2)
    out[at] = 84
    at = _put_fixed(out, at + 1, rest // 3600, 2)
    out[at] = 58
    at = _put_fixed(out, at + 1, rest // 60 % 60, 2)
    out[at] = 58
    return _put_fixed(out, at + 1, rest % 60, 2)


@inlined
def _put_fraction(out: Bytes, at: int, rest: int) -> int:
    if rest:
        out[at] = 46
        if rest % 1000:
            at = _put_fixed(out, at + 1, rest, 9)
        elif rest % 1_000_000:
            at = _put_fixed(out, at + 1, rest // 1000, 6)
        else:
            at = _put_fixed(out, at + 1, rest // 1_000_000, 3)
    out[at] = 90
    return at + 1


@inlined
def _put_vector(
    out: Bytes, at: int, values: NDArray[np.float64], texts: Bytes, ends: NDArray[np.int64], piece: int
) -> int:
    for c in range(values.size):
        at = _put_piece(out, at, texts, ends, piece + c)
        at = put_number(out, at, values[c])
    return at


@jit
def _put_packet(
    out: Bytes, begin: int, first: int, head: Bytes, texts: Bytes, ends: NDArray[np.int64], record: int,
    size: int, c: int, code: int, scorers: int, second: Bytes, seconds: NDArray[np.int64],
) -> Any:  # fmt: skip
    """One packet; where it ends."""
    body = begin + 3  # two bytes of length
    at = _copy(out, body, head, 0, head.size)
    numbers = i8_at(record, 2)
    levels = f8_at(record + 16, 2 + 3 * c)
    more = record + size - 16 - 8 * c
    further = f8_at(more, 1 + c)
    scorer, severity = u1_at(more + 8 + 8 * c, 2)
    time_ns = numbers[0]
    whole = time_ns // _SECOND
    if whole != seconds[0]:
        _put_second(second, 0, whole)
        seconds[0] = whole
    piece = words.FIRST_PIECE
    at = _put_piece(out, at, texts, ends, piece)
    at = _copy(out, at, second, 0, second.size)
    at = _put_fraction(out, at, time_ns - whole * _SECOND)
    at = _put_piece(out, at, texts, ends, piece + 1)
    at = put_integer(out, at, time_ns)
    at = _put_piece(out, at, texts, ends, words.CODES + code)
    at = put_integer(out, at, numbers[1])
    at = _put_piece(out, at, texts, ends, piece + 2)
    at = put_number(out, at, levels[0])
    at = _put_piece(out, at, texts, ends, piece + 3)
    at = put_number(out, at, levels[1])
    piece += 4
    at = _put_vector(out, at, levels[2 : 2 + c], texts, ends, piece)
    at = _put_vector(out, at, levels[2 + 2 * c :], texts, ends, piece + c)
    piece += 2 * c
    at = _put_piece(out, at, texts, ends, piece)
    at = put_number(out, at, further[0])
    at = _put_vector(out, at, further[1:], texts, ends, piece + 1)
    piece += 1 + c
    # Behind them the names of the scorers, and no name.
    at = _put_piece(out, at, texts, ends, piece + (scorer if scorer < scorers else scorers))
    at = put_integer(out, at, severity)
    out[at] = 125
    at += 1
    # The length takes two bytes, but for very short or long messages.
    length = at - body
    wide = 1 if length < 128 else 2 if length < 16384 else 3
    if wide == 1:
        for i in range(body, at):
            out[i - 1] = out[i]
    elif wide == 3:
        for i in range(at - 1, body - 1, -1):
            out[i + 1] = out[i]
    out[begin] = first
    for i in range(wide):
        out[begin + 1 + i] = length & 127 | (128 if i < wide - 1 else 0)
        length >>= 7
    return at - 2 + wide


def _write(table: int, begin: int) -> int:
    """Records from number `begin` on; the number of the first that is not dealt with.

    Table: see `words`. It ends where all is done, where there is no room for another message, or at a record
    that is not usual; `ROOM` tells these apart.
    """
    t = i8_at(table, words.WORDS)
    n, size, c, every = t[words.COUNT], t[words.ITEM], t[words.CHANNELS], t[words.EVERY]
    rows, ways = i8_at(t[words.ROWS], n), i8_at(t[words.WAYS], t[words.WAY_COUNT])
    out = u1_at(t[words.OUT], t[words.OUT_SIZE])
    ends = i8_at(t[words.ENDS], t[words.PIECES] + 1)
    texts = u1_at(t[words.TEXTS], ends[t[words.PIECES]])
    second, seconds = u1_at(t[words.SECOND], 19), i8_at(t[words.SECONDS], 1)
    records, streams, most = t[words.RECORDS], t[words.STREAMS], t[words.MOST]
    at, written = t[words.OUT_AT], t[words.WRITTEN]
    index = begin
    t[words.ROOM] = 1
    while index < n:
        record = records + index * size
        row = rows[index]
        way = ways[row] if row < ways.size else -1
        if way < 0:
            break
        stream = streams + way * (8 * words.STREAM_WORDS)
        marks, levels = i8_at(stream, words.SCORE), f8_at(stream + 8 * words.SCORE, 2)
        flags = u1_at(record + 32 + 25 * c, 2)
        if marks[words.CODE] != 2 * flags[0] + flags[1] or flags[0] == FAULT:
            break
        if out.size - at < most + marks[words.HEAD_SIZE]:
            t[words.ROOM] = 0
            break
        time_ns = i8_at(record, 1)[0]
        verdict = f8_at(record + 16, 2)
        marks[words.TIME] = time_ns
        levels[0], levels[1] = verdict[0], verdict[1]
        before = marks[words.SCORED]
        # A time before the last one's gives a negative difference: due, too.
        if before == words.NEVER or not 0 <= time_ns - before < every:
            marks[words.SCORED] = time_ns
            head = u1_at(marks[words.HEAD], marks[words.HEAD_SIZE])
            at = _put_packet(
                out, at, t[words.FIRST], head, texts, ends, record, size, c, marks[words.CODE],
                t[words.SCORERS], second, seconds,
            )  # fmt: skip
            written += 1
        index += 1
    t[words.OUT_AT], t[words.WRITTEN] = at, written
    return index


@functools.cache
def writer() -> EntryPoint:
    """`_write`, ready to be compiled."""
    probe: Any = np.zeros(words.WORDS, np.int64)
    empty = np.zeros(8, np.int64)
    for word in (words.ROWS, words.WAYS, words.OUT, words.ENDS, words.TEXTS, words.SECOND, words.SECONDS):
        probe[word] = empty.ctypes.data
    files = (
        __file__, decimals.__file__, wide.__file__, words.__file__, memory.__file__, verdicts.__file__
    )  # fmt: skip
    return EntryPoint(_write, "int64(int64, int64)", f"scores {source_digest(*files)}", probe, 3, (3,))
