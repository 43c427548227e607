"""The payload is packed binary numbers, described by a format of Python's `struct` with a byte order.

`layout = "<Ihhf"` is little-endian: an unsigned 32-bit, two signed 16-bit, one float. Columns count the
numbers from 0; `x` is a filler byte and no column. With `each = "records"` a payload is one or more such
records.
"""

from __future__ import annotations

import re
import struct

from edge_rnn.errors import ConfigError, DecodeError
from edge_rnn.service.codecs.base import MAX_BYTES, Decoder, Field, TimeField, in_order, numbered
from edge_rnn.stream.types import Message

_LAYOUT = re.compile(r"[<>!](?:[0-9]{0,4}[bBhHiIlLqQefdx])+")


def parse_layout(text: str) -> struct.Struct:
    """The compiled layout; `ConfigError` unless it is one with a byte order, of numbers and fillers alone."""
    if not _LAYOUT.fullmatch(text):
        raise ConfigError(
            f"layout {text[:40]!r}: expected a byte order (< or >) and numbers of b B h H i I l L q Q e f d, "
            'with x for a filler byte, such as "<Ihhf"'
        )
    layout = struct.Struct(text)
    if not 0 < layout.size <= 1 << 20 or not layout.unpack(bytes(layout.size)):
        raise ConfigError(f"layout {text[:40]!r}: expected at least one number and at most 1 MiB")
    return layout


class BinaryDecoder(Decoder):
    """See the module; `records`: whether a payload may hold several records, a reading each."""

    def __init__(
        self,
        fields: tuple[Field, ...],
        time: TimeField | None = None,
        max_bytes: int = MAX_BYTES,
        *,
        layout: str,
        records: bool = False,
    ) -> None:
        super().__init__(fields, time, max_bytes)
        self._layout = parse_layout(layout)
        self._records = records
        self._columns = tuple(field.column for field in fields)
        self._time_column = None if time is None else time.column
        self._number: int | None = None
        self._text = layout
        for column in (*self._columns, self._time_column or 0):
            self._check(column)

    def _check(self, column: int) -> None:
        count = len(self._layout.unpack(bytes(self._layout.size)))
        if column >= count:
            raise ConfigError(
                f"layout {self._text[:40]!r}: expected at least {column + 1} numbers, as there is a "
                f"column {column}; got {count}"
            )

    def number_by(self, place: Field) -> None:
        """See `Decoder.number_by`."""
        self._check(place.column)
        self._number = place.column

    def _messages(self, _topic: str, payload: bytes, stream: str, arrival_ns: int, /) -> list[Message]:
        size, got = self._layout.size, len(payload)
        if got != size and not (self._records and got and got % size == 0):
            several = " or a multiple of it" if self._records else ""
            raise DecodeError(f"expected {size} bytes{several}, got {got}")
        columns, time = self._columns, self._time_column
        messages: list[Message] = []
        for row in self._layout.iter_unpack(payload):
            moment = arrival_ns
            if self.time is not None and time is not None:
                moment = self.time.read(row[time])
            message = Message(stream, self.channels, moment, [float(row[i]) for i in columns])
            messages += [message] if self._number is None else numbered([message], row[self._number])
        return in_order(messages) if len(messages) > 1 else messages
