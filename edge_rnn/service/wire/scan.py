"""Readings out of a receive buffer, in one compiled pass: packets, topics and JSON to columns.

`_scan` goes through the bytes that one receive call brought, packet by packet, as long as all is usual: a
whole PUBLISH of QoS 0 or 1 that is not retained, of a topic that is known (`sources.py`), whose payload is a
JSON object with exactly one number for every channel. It ends at the first packet that is not so. Whatever
that is (another kind of packet, half a packet, a malformed one, an unknown topic, a payload that a decoder
might refuse), the way in Python deals with it, so this file decides about nothing: it must only never take
what that way would have read differently.

Of JSON it takes less than there is: no escapes in keys or texts, numbers of at most 19 digits and not very
large or small, no -0, no key twice. Names nobody asked for are passed over, with what they hold.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core import wide
from edge_rnn.core.jit import EntryPoint, inlined, jit, source_digest
from edge_rnn.detect import memory
from edge_rnn.detect.memory import f8_at, i8_at, u1_at
from edge_rnn.service.wire import decimals
from edge_rnn.service.wire import scan_words as words
from edge_rnn.service.wire.decimals import LEAST_POWER, MOST_POWER, Word, read
from edge_rnn.stream import columns_words as columns

Bytes = NDArray[np.uint8]
U8 = np.uint64

_TEN, _ZERO, _ONE = U8(10), U8(0), U8(1)
_DIGITS: Final = 19
_DEEPEST: Final = 60
_BASIS, _PRIME = U8(0xCBF29CE484222325), U8(0x100000001B3)
_NS_FROM, _US_FROM, _MS_FROM, _S_FROM = 10**17, 10**14, 10**11, 10**8
_TRUE, _FALSE, _NULL = (np.frombuffer(word, np.uint8).copy() for word in (b"true", b"false", b"null"))

# Each function that reads gives the place behind what it has read, or -1.


@inlined
def _space(buf: Bytes, at: int, end: int) -> int:
    while at < end and (buf[at] == 32 or buf[at] == 10 or buf[at] == 13 or buf[at] == 9):
        at += 1
    return at


@inlined
def _is_digit(byte: int) -> bool:
    return 48 <= byte <= 57


@jit
def _number(buf: Bytes, at: Any, end: int) -> tuple[Any, Word, Any, bool]:
    """(place behind it, its digits as uint64, power of ten, whether it is negative)."""
    failed = (-1, _ZERO, 0, False)
    negative = at < end and buf[at] == 45
    if negative:
        at += 1
    if at >= end or not _is_digit(buf[at]):
        return failed
    digits: Word = _ZERO
    count, power = 0, 0
    if buf[at] == 48:
        at += 1
        if at < end and _is_digit(buf[at]):
            return failed
    else:
        while at < end and _is_digit(buf[at]):
            digits = digits * _TEN + U8(buf[at] - 48)
            count += 1
            at += 1
    if at < end and buf[at] == 46:
        at += 1
        begin = at
        while at < end and _is_digit(buf[at]):
            digits = digits * _TEN + U8(buf[at] - 48)
            if count or buf[at] != 48:
                count += 1
            at += 1
        if at == begin:
            return failed
        power = begin - at
    if count > _DIGITS:
        return failed
    if at < end and (buf[at] == 101 or buf[at] == 69):
        at += 1
        below = at < end and buf[at] == 45
        if at < end and (buf[at] == 45 or buf[at] == 43):
            at += 1
        begin, exponent = at, 0
        while at < end and at - begin < 4 and _is_digit(buf[at]):
            exponent = exponent * 10 + buf[at] - 48
            at += 1
        if at == begin or (at < end and _is_digit(buf[at])):
            return failed
        power += -exponent if below else exponent
    if digits == _ZERO:
        if negative:
            return failed
        power = 0
    elif power < LEAST_POWER or power > MOST_POWER:
        return failed
    return at, digits, power, negative


@inlined
def _text(buf: Bytes, at: int, end: int) -> int:
    """Behind the text whose quotation mark is at `at`."""
    if at >= end or buf[at] != 34:
        return -1
    at += 1
    while at < end and buf[at] != 34:
        if buf[at] < 32 or buf[at] == 92:
            return -1
        at += 1
    return at + 1 if at < end else -1


@inlined
def _word(buf: Bytes, at: int, end: int, word: Bytes) -> int:
    if end - at < word.size:
        return -1
    for i in range(word.size):
        if buf[at + i] != word[i]:
            return -1
    return at + word.size


@jit
def _pass_over(buf: Bytes, at: Any, end: int) -> Any:
    """Behind any value."""
    depth, objects = 0, _ZERO
    while True:
        at = _space(buf, at, end)
        if at >= end:
            return -1
        byte = buf[at]
        opened = byte == 123 or byte == 91  # noqa: PLR1714 - compiled, a set would cost
        if opened:
            if depth >= _DEEPEST:
                return -1
            depth += 1
            objects = objects << _ONE | U8(byte == 123)
            at = _space(buf, at + 1, end)
            if at < end and buf[at] == byte + 2:  # empty
                opened = False
                depth -= 1
                objects >>= _ONE
                at += 1
        elif byte == 34:
            at = _text(buf, at, end)
        elif byte == 116:
            at = _word(buf, at, end, _TRUE)
        elif byte == 102:
            at = _word(buf, at, end, _FALSE)
        elif byte == 110:
            at = _word(buf, at, end, _NULL)
        else:
            at = _number(buf, at, end)[0]
        if at < 0:
            return -1
        # Behind a value: the next one of what it is in, or its end.
        while not opened and depth:
            at = _space(buf, at, end)
            if at >= end:
                return -1
            if buf[at] == 44:
                at += 1
                opened = True
            elif buf[at] == (125 if objects & _ONE else 93):
                depth -= 1
                objects >>= _ONE
                at += 1
            else:
                return -1
        if not opened:
            return at
        if objects & _ONE:
            at = _text(buf, _space(buf, at, end), end)
            if at < 0:
                return -1
            at = _space(buf, at, end)
            if at >= end or buf[at] != 58:
                return -1
            at += 1


@inlined
def _nanoseconds(digits: Word, unit: int) -> Any:
    """As `times.TimeReader` reads a whole number; -1 where it would not."""
    if digits >> U8(63):
        return -1
    value: Any = np.int64(digits)
    if unit == words.AUTO:
        if value >= _NS_FROM:
            unit = words.NANOSECONDS
        elif value >= _US_FROM:
            unit = words.MICROSECONDS
        elif value >= _MS_FROM:
            unit = words.MILLISECONDS
        elif value >= _S_FROM:
            unit = words.SECONDS
        else:
            return -1
    factor = 1
    if unit == words.MICROSECONDS:
        factor = 1000
    elif unit == words.MILLISECONDS:
        factor = 1_000_000
    elif unit == words.SECONDS:
        factor = 1_000_000_000
    if value > (2**63 - 1) // factor:
        return -1
    return value * factor


@jit
def _object(
    buf: Bytes, at: Any, end: Any, form: NDArray[np.int64], names: Bytes, keys: NDArray[np.int64],
    values: NDArray[np.float64], times: NDArray[np.int64],
) -> Any:  # fmt: skip
    """Whether the payload is usual; then values and, if it has its own, times[0] are set."""
    count, unit = form[words.KEYS], form[words.UNIT]
    at = _space(buf, at, end)
    if at >= end or buf[at] != 123:
        return False
    at += 1
    seen, expected = _ZERO, 0
    while True:
        begin = _space(buf, at, end)
        at = _text(buf, begin, end)
        if at < 0:
            return False
        begin += 1
        size = at - 1 - begin
        key = -1
        # A sender writes its names in one order; so the next one is tried first.
        for tried in range(count):
            number = expected + tried
            number -= count if number >= count else 0
            place = 3 * (form[words.FIRST_KEY] + number)
            if keys[place + 1] == size:
                same, name = True, keys[place]
                for i in range(size):
                    same &= buf[begin + i] == names[name + i]
                if same:
                    key = number
                    break
        at = _space(buf, at, end)
        if at >= end or buf[at] != 58:
            return False
        at = _space(buf, at + 1, end)
        if key < 0:
            at = _pass_over(buf, at, end)
            if at < 0:
                return False
        else:
            bit = _ONE << U8(key)
            if seen & bit:
                return False
            seen |= bit
            expected = key + 1 if key + 1 < count else 0
            begin = at
            at, digits, power, negative = _number(buf, at, end)
            if at < 0:
                return False
            target = keys[3 * (form[words.FIRST_KEY] + key) + 2]
            if target < 0:
                # A time: a whole number, written as one.
                if negative or power != 0 or unit == words.NO_TIME:
                    return False
                for i in range(begin, at):
                    if not _is_digit(buf[i]):
                        return False
                moment = _nanoseconds(digits, unit)
                if moment < 0:
                    return False
                times[0] = moment
            else:
                value = 0.0 if digits == _ZERO else read(digits, power)
                values[target] = -value if negative else value
        at = _space(buf, at, end)
        if at >= end:
            return False
        if buf[at] == 125:
            break
        if buf[at] != 44:
            return False
        at += 1
    return _space(buf, at + 1, end) == end and seen == (_ONE << U8(count)) - _ONE


@jit
def _lane(buf: Bytes, begin: Any, end: Any, t: NDArray[np.int64]) -> Any:
    """The number of a topic's lane, -1 if it is not known."""
    code: Word = _BASIS
    for i in range(begin, end):
        code = (code ^ U8(buf[i])) * _PRIME
    mask = t[words.SLOT_COUNT] - 1
    slots = i8_at(t[words.SLOTS], mask + 1)
    lanes, size = i8_at(t[words.LANE_TABLE], words.LANE_WORDS * t[words.LANE_COUNT]), end - begin
    texts = u1_at(t[words.TOPICS], t[words.TOPICS_SIZE])
    slot = np.int64(code ^ code >> U8(32)) & mask
    for _ in range(words.MOST_PROBES):
        lane = slots[slot]
        if lane < 0:
            return -1
        place = words.LANE_WORDS * lane
        if lanes[place + words.TOPIC_SIZE] == size:
            first, same = lanes[place + words.TOPIC_AT], True
            for i in range(size):
                same &= buf[begin + i] == texts[first + i]
            if same:
                return lane
        slot = (slot + 1) & mask
    return -1


def _scan(table: int, begin: int) -> Any:
    """Packets of the buffer from place `begin` on; where the first one begins that was not taken."""
    t = i8_at(table, words.WORDS)
    end, five, most, room = t[words.END], t[words.FIVE], t[words.MOST], t[words.ROOM]
    buf = u1_at(t[words.BUFFER], end)
    width = t[words.WIDTH]
    out, numbers = i8_at(t[words.OUT], room * width), f8_at(t[words.OUT], room * width)
    acks = u1_at(t[words.OUT_ACKS], 4 * room)
    lanes = i8_at(t[words.LANE_TABLE], words.LANE_WORDS * t[words.LANE_COUNT])
    forms = i8_at(t[words.FORMS], words.FORM_WORDS * t[words.FORM_COUNT])
    names, keys = u1_at(t[words.NAMES], t[words.NAMES_SIZE]), i8_at(t[words.KEY_TABLE], t[words.KEY_COUNT])
    arrival = t[words.ARRIVAL]
    count, acked, payloads, group = 0, 0, 0, -1
    at: Any = begin
    while count < room:
        if at + 2 > end:
            break
        header = buf[at]
        # 0x30, 0x32, 0x38, 0x3A: QoS 0 or 1, sent again or not, not retained.
        if header & 0xF5 != 0x30:
            break
        body = at + 2
        size: Any = np.int64(buf[at + 1])
        if size > 127:
            size &= 127
            shift = 7
            while True:
                if body >= end or shift > 21:
                    size = -1
                    break
                byte = np.int64(buf[body])
                body += 1
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
        stop = body + size
        if size < 3 or size > most or stop > end:
            break
        first = body + 2
        body = first + (np.int64(buf[body]) << 8 | np.int64(buf[body + 1]))
        last = body
        if header & 2:
            body += 2
        if body + five > stop or last == first:
            break
        if five:
            # Properties: none.
            if buf[body]:
                break
            body += 1
        lane = _lane(buf, first, last, t)
        if lane < 0:
            break
        place = words.FORM_WORDS * lanes[words.LANE_WORDS * lane + words.FORM]
        form = forms[place : place + words.FORM_WORDS]
        if stop - body > form[words.MOST_BYTES]:
            break
        row = count * width
        if form[words.UNIT] == words.NO_TIME:
            out[row + columns.TIME] = arrival + count
        values = numbers[row + columns.VALUES : row + width]
        if not _object(buf, body, stop, form, names, keys, values, out[row + columns.TIME : row + width]):
            break
        out[row + columns.LANE] = lane
        if header & 2:
            acks[acked], acks[acked + 1] = 0x40, 2
            acks[acked + 2], acks[acked + 3] = buf[last], buf[last + 1]
            acked += 4
        if count == 0:
            group = form[words.GROUP]
        elif group != form[words.GROUP]:
            group = -1
        payloads += stop - body
        count += 1
        at = stop
    t[words.COUNT], t[words.ACK_SIZE], t[words.PAYLOADS], t[words.ONE_GROUP] = count, acked, payloads, group
    return at


@functools.cache
def scanner() -> EntryPoint:
    """`_scan`, ready to be compiled."""
    probe: Any = np.zeros(words.WORDS, np.int64)
    files = (
        __file__, decimals.__file__, wide.__file__, words.__file__, memory.__file__, columns.__file__
    )  # fmt: skip
    return EntryPoint(_scan, "int64(int64, int64)", f"scan {source_digest(*files)}", probe, 3, (3,))
