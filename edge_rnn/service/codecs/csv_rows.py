"""The payload is a line of cells, or with `each = "lines"` several.

The separator is `;` or tab where a line has one, else a comma.
"""

from __future__ import annotations

from edge_rnn.errors import DecodeError
from edge_rnn.service.codecs.base import MAX_BYTES, Decoder, Field, TimeField, in_order, numbered
from edge_rnn.service.codecs.values import BLANK, MAX_DIGITS, NUMBER, parse_number
from edge_rnn.stream.types import Message


class CsvDecoder(Decoder):
    """See the module; `lines`: whether a payload may hold several lines, a reading each."""

    def __init__(
        self,
        fields: tuple[Field, ...],
        time: TimeField | None = None,
        max_bytes: int = MAX_BYTES,
        *,
        lines: bool = False,
    ) -> None:
        super().__init__(fields, time, max_bytes)
        self.time_column = None if time is None else time.column
        self.lines = lines
        self._number: int | None = None

    def number_by(self, place: Field) -> None:
        """See `Decoder.number_by`."""
        self._number = place.column

    def _messages(self, _topic: str, payload: bytes, stream: str, arrival_ns: int, /) -> list[Message]:
        # Not tabs: at an end of the line they stand for empty cells.
        text = payload.strip(b" \r\n")
        if not self.lines:
            if b"\n" in text or b"\r" in text:
                raise DecodeError("expected one line, got several")
            return self._line(text, stream, arrival_ns)
        messages: list[Message] = []
        for number, line in enumerate(text.splitlines()):
            if line.strip(b" "):
                try:
                    messages += self._line(line, stream, arrival_ns)
                except DecodeError as error:
                    raise DecodeError(f"line {number}: {error}") from None
        return in_order(messages)

    def _line(self, line: bytes, stream: str, arrival_ns: int) -> list[Message]:
        separator = next((s for s in (b";", b"\t") if s in line), b",")
        cells = [cell.strip(BLANK) for cell in line.split(separator)]
        found = [self._value(cells, field.column) for field in self.fields]
        moment = self._moment(cells)
        messages = self._message(stream, found, arrival_ns if moment is None else moment)
        if self._number is None:
            return messages
        text = self._cell(cells, self._number)
        if not text.isdigit() or len(text) > MAX_DIGITS:
            raise DecodeError(f"column {self._number}: expected a sequence, a whole number")
        return numbered(messages, int(text))

    def _value(self, cells: list[bytes], column: int) -> float | None:
        text = self._cell(cells, column)
        if not text:
            return None
        try:
            return parse_number(text)
        except DecodeError as error:
            raise DecodeError(f"column {column}: {error}") from None

    def _moment(self, cells: list[bytes]) -> int | None:
        if self.time is None or self.time_column is None:
            return None
        text = self._cell(cells, self.time_column)
        if len(text) <= MAX_DIGITS and NUMBER.fullmatch(text):
            return self.time.read(int(text) if text.isdigit() else float(text))
        return self.time.read(text.decode("ascii", "backslashreplace"))

    @staticmethod
    def _cell(cells: list[bytes], column: int) -> bytes:
        if column >= len(cells):
            raise DecodeError(f"expected a column {column} (counted from 0), got {len(cells)} columns")
        return cells[column]
