"""Payload bytes to values of channels: JSON, a plain number, or a line of CSV.

A `Decoder` belongs to one route (one topic template of one stream group) and holds where each channel and the
time are found. `decode` is pure. Its rules:

* the size is checked before anything is parsed;
* a value is a number, as float64. NaN and infinities are passed on where a sender spells them (`NaN`, `inf`):
  the guard flags them. A finite literal that float64 cannot hold is refused;
* a field that is absent, null, or an empty CSV cell gives no reading: the channel is missing;
* booleans, text and nested values in a number's place are refused, and with them the whole payload: half a
  payload must not become a vector;
* text is ASCII only: "1_000" or the digits of another script, which Python's float() would take, are refused.

Every refusal is a `PayloadError` of one line: topic, reason, first bytes escaped. To add a format, write a
subclass of `Decoder` with `_extract` and name it in `_FORMATS`.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

import msgspec

from edge_rnn.errors import ConfigError, DecodeError
from edge_rnn.files.config_types import PayloadFormat, TimeUnit
from edge_rnn.service.times import TimeReader
from edge_rnn.stream.types import Message

MAX_BYTES = 64 * 1024
_MAX_NUMBER = 64
_SHOWN_BYTES = 48
_NUMBER = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SPELLED = re.compile(rb"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_PATH_PART = re.compile(r"""\.?([^.\[\]"]+)|\[([0-9]{1,6})\]|\.?\["([^"]+)"\]""")
_BLANK = b" \t\r\n"
# Everything from the first quotation mark or bracket on to the last one, and numbers: a sender chooses these,
# and a kind of error that a sender can vary would not be thinned in the log.
_FOREIGN = re.compile(r"['\"(].*['\")]|[0-9]+|got an (?:empty )?object.*")

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """Where a channel's value is: `path` for json ("" is the document itself), `column` from 0 for csv."""

    channel: int
    path: str = ""
    column: int = 0


@dataclass(frozen=True, slots=True)
class TimeField:
    """Where the event time is and its unit; see `Field`."""

    path: str = ""
    column: int = 0
    unit: TimeUnit = "auto"


def parse_path(text: str) -> Path:
    """`a.b[2]["c.d"]` to ("a", "b", 2, "c.d"); "" or `$` is the document itself; `ConfigError` if unfit."""
    if text in ("", "$"):
        return ()
    rest = text.removeprefix("$.") if text.startswith("$.") else text
    parts: list[str | int] = []
    position = 0
    while position < len(rest):
        match = _PATH_PART.match(rest, position)
        dotted = rest[position] == "."
        if match is None or (dotted and position == 0) or (match[1] and position and not dotted):
            raise ConfigError(f'path {text!r}: expected names and indexes such as a.b[0] or a["b.c"]')
        parts.append(match[1] or match[3] or int(match[2]))
        position = match.end()
    return tuple(parts)


def parse_number(text: bytes) -> float:
    """A plain ASCII number, or nan, inf, infinity in any case; `DecodeError` for anything else."""
    text = text.strip(_BLANK)
    if len(text) > _MAX_NUMBER:
        raise DecodeError(f"expected a number of at most {_MAX_NUMBER} characters, got {len(text)}")
    if _NUMBER.fullmatch(text):
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise DecodeError("expected a number that float64 can hold, got one that is too large")
        return value
    if _SPELLED.fullmatch(text):
        return float(text)
    raise DecodeError("expected a plain number such as -12.5e3" + (", got nothing" if not text else ""))


def escape(data: bytes, limit: int = _SHOWN_BYTES) -> str:
    """The first `limit` bytes as printable ASCII, for messages and logs."""
    shown = repr(bytes(data[:limit]))[1:]
    return shown if len(data) <= limit else f"{shown}... ({len(data)} bytes)"


class PayloadError(DecodeError):
    """A payload that is not acceptable; `kind` is the reason without what the payload itself put into it."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.kind = _FOREIGN.sub("", reason)


# What a decoder found: one value or None per field, and the time, if the route has one.
Extract = tuple[list[float | None], int | None]


class Decoder(ABC):
    """Values from the payloads of one route.

    Args:
        fields: where each channel is; at least one.
        time: where the event time is; None takes the arrival time.
        max_bytes: a longer payload is refused unread.

    Raises:
        ConfigError: a path cannot be parsed, or the format cannot hold what is asked of it.
    """

    def __init__(
        self, fields: tuple[Field, ...], time: TimeField | None = None, max_bytes: int = MAX_BYTES
    ) -> None:
        if not fields:
            raise ConfigError("decoder: expected at least one field, got none")
        self.fields = fields
        self.channels = tuple(field.channel for field in fields)
        self.max_bytes = max_bytes
        self.time = None if time is None else TimeReader(time.unit)

    def decode(self, topic: str, payload: bytes, stream: str, arrival_ns: int) -> list[Message]:
        """What one payload says, as messages for the engine: none if all its channels are missing.

        Raises:
            PayloadError: the payload is not acceptable; one line: topic, reason, first bytes escaped.
        """
        try:
            if len(payload) > self.max_bytes:
                raise DecodeError(f"expected at most {self.max_bytes} bytes, got {len(payload)}")
            found, moment = self._extract(payload)
        except DecodeError as error:
            text = f"topic {topic!a:.200}: {error}; payload {escape(payload)}"
            raise PayloadError(text, str(error)) from None
        time_ns = arrival_ns if moment is None else moment
        values = [value for value in found if value is not None]
        if len(values) == len(found):
            return [Message(stream, self.channels, time_ns, values)]
        pairs = zip(self.channels, found, strict=True)
        channels = tuple(channel for channel, value in pairs if value is not None)
        return [Message(stream, channels, time_ns, values)] if channels else []

    @abstractmethod
    def _extract(self, payload: bytes) -> Extract: ...


class NumberDecoder(Decoder):
    """The payload is one number as text."""

    def __init__(
        self, fields: tuple[Field, ...], time: TimeField | None = None, max_bytes: int = MAX_BYTES
    ) -> None:
        super().__init__(fields, time, max_bytes)
        if len(fields) != 1:
            raise ConfigError(
                f"format number: one value a payload, so each channel needs its own topic; got {len(fields)}"
            )
        if time is not None:
            raise ConfigError(
                "format number: a plain number carries no time; remove 'time' or use json or csv"
            )

    def _extract(self, payload: bytes) -> Extract:
        return [parse_number(payload)], None


class CsvDecoder(Decoder):
    """The payload is one line of cells; the separator is `;` or tab where the line has one, else a comma."""

    def __init__(
        self, fields: tuple[Field, ...], time: TimeField | None = None, max_bytes: int = MAX_BYTES
    ) -> None:
        super().__init__(fields, time, max_bytes)
        self.time_column = None if time is None else time.column

    def _extract(self, payload: bytes) -> Extract:
        # Not tabs: at an end of the line they stand for empty cells.
        line = payload.strip(b" \r\n")
        if b"\n" in line or b"\r" in line:
            raise DecodeError("expected one line, got several")
        separator = next((s for s in (b";", b"\t") if s in line), b",")
        cells = [cell.strip(_BLANK) for cell in line.split(separator)]
        return [self._value(cells, field.column) for field in self.fields], self._moment(cells)

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
        if len(text) <= _MAX_NUMBER and _NUMBER.fullmatch(text):
            return self.time.read(int(text) if text.isdigit() else float(text))
        return self.time.read(text.decode("ascii", "backslashreplace"))

    @staticmethod
    def _cell(cells: list[bytes], column: int) -> bytes:
        if column >= len(cells):
            raise DecodeError(f"expected a column {column} (counted from 0), got {len(cells)} columns")
        return cells[column]


_ABSENT = object()


class JsonDecoder(Decoder):
    """The payload is a JSON document; each value is found by its path."""

    def __init__(
        self, fields: tuple[Field, ...], time: TimeField | None = None, max_bytes: int = MAX_BYTES
    ) -> None:
        super().__init__(fields, time, max_bytes)
        self._paths = [(parse_path(field.path), field.path or "$") for field in fields]
        self._time_path = () if time is None else parse_path(time.path)
        self._time_name = "" if time is None else time.path

    def _extract(self, payload: bytes) -> Extract:
        document = _parse_json(payload)
        values: list[float | None] = []
        absent = 0
        for path, name in self._paths:
            found = _find(document, path)
            absent += found is _ABSENT
            values.append(None if found is None or found is _ABSENT else _number(found, name))
        if absent == len(self._paths):
            names = ", ".join(name for _, name in self._paths[:8])
            raise DecodeError(f"expected at least one of the fields {names}, got {_keys(document)}")
        if self.time is None:
            return values, None
        moment = _find(document, self._time_path)
        if moment is _ABSENT or moment is None:
            raise DecodeError(f"expected a time at {self._time_name!r}, got {_keys(document)}")
        return values, self.time.read(moment)


def _parse_json(payload: bytes) -> object:
    try:
        return msgspec.json.decode(payload)
    except RecursionError:
        raise DecodeError("expected JSON, got brackets nested too deeply") from None
    except ValueError as error:
        # Some senders write NaN and Infinity, which JSON does not have; the guard must see them. The standard
        # library's parser takes them; it is slower, so it only sees such payloads.
        if b"NaN" in payload or b"Infinity" in payload:
            try:
                return json.loads(payload)
            except (ValueError, RecursionError):
                pass
        raise DecodeError(f"expected JSON, got something else ({str(error)[:100]})") from None


def _find(value: object, path: Path) -> object:
    for step in path:
        if type(value) is dict and type(step) is str:
            value = value.get(step, _ABSENT)
        elif type(value) is list and type(step) is int:
            value = value[step] if step < len(value) else _ABSENT
        elif value is None:
            return None
        else:
            return _ABSENT
    return value


def _number(value: object, name: str) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise DecodeError(f"{name}: expected a number that float64 can hold") from None
    kind = {"str": "text", "bool": "a boolean", "dict": "an object", "list": "an array"}
    raise DecodeError(
        f"{name}: expected a number, got {kind.get(type(value).__name__, type(value).__name__)}"
    )


def _keys(document: object) -> str:
    if type(document) is dict:
        names = [ascii(key)[:40] for key in list(document)[:8]]
        return f"an object with {', '.join(names)}" if names else "an empty object"
    return f"a document of type {type(document).__name__}"


_FORMATS: dict[PayloadFormat, type[Decoder]] = {
    "json": JsonDecoder,
    "number": NumberDecoder,
    "csv": CsvDecoder,
}


def decoder(
    format_: PayloadFormat,
    fields: tuple[Field, ...],
    time: TimeField | None = None,
    max_bytes: int = MAX_BYTES,
) -> Decoder:
    """The decoder of `format_`; arguments and errors as in `Decoder`."""
    return _FORMATS[format_](fields, time, max_bytes)
