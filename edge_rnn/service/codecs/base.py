"""What every decoder promises.

A `Decoder` belongs to one route (one topic template of one stream group) and is prepared once: it knows where
each channel and the time are found. `decode` then turns the bytes of one payload into messages for the
engine. Its rules, whatever the format:

* the size is checked before anything is parsed;
* a value is a number, as float64. NaN and infinities are passed on where a sender spells them (`NaN`, `inf`,
  or the bits of a binary float): the guard flags them. A finite literal that float64 cannot hold is refused;
* a field that is absent, null, or an empty CSV cell gives no reading: the channel is missing;
* booleans, text and nested values in a number's place are refused, and with them the whole payload: half a
  payload must not become a vector;
* several readings in one payload leave in the order of their times, whatever order the sender wrote them in.

Every refusal is a `PayloadError` of one line: topic, reason, first bytes escaped. Nothing else is raised, and
only the Sparkplug decoder remembers anything from one payload to the next.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from edge_rnn.errors import ConfigError, DecodeError
from edge_rnn.files.config_types import TimeUnit
from edge_rnn.service.times import TimeReader
from edge_rnn.stream.topics import MAX_ID
from edge_rnn.stream.topics import escape as escape_level
from edge_rnn.stream.types import Message, Numbered

MAX_BYTES = 64 * 1024
_SHOWN_BYTES = 48
# Everything from the first quotation mark or bracket on to the last one, and numbers: a sender chooses these,
# and a kind of error that a sender can vary would not be thinned in the log.
_FOREIGN = re.compile(r"['\"(].*['\")]|[0-9]+|got an (?:empty )?object.*")


@dataclass(frozen=True, slots=True)
class Field:
    """Where a channel's value is.

    path: in a json, msgpack or cbor document ("" is the document itself); the name in senml and sparkplug.
    column: from 0, in csv and binary.
    """

    channel: int
    path: str = ""
    column: int = 0


@dataclass(frozen=True, slots=True)
class TimeField:
    """Where the event time is and its unit; see `Field`."""

    path: str = ""
    column: int = 0
    unit: TimeUnit = "auto"


def escape(data: bytes, limit: int = _SHOWN_BYTES) -> str:
    """The first `limit` bytes as printable ASCII, for messages and logs."""
    shown = repr(bytes(data[:limit]))[1:]
    return shown if len(data) <= limit else f"{shown}... ({len(data)} bytes)"


def substream(stream: str, keys: Sequence[object]) -> str:
    """The stream of a payload that names its sender itself: the route's id and one level a key.

    Raises:
        DecodeError: a key is no text or whole number, is empty, or the id becomes too long.
    """
    for key in keys:
        if type(key) is int:
            stream += f"/{key}" if abs(key) < 10**18 else "/?"
        elif type(key) is str and key:
            stream += f"/{escape_level(key[:MAX_ID])}"
        else:
            raise DecodeError(f"key: expected text or a whole number, got {type(key).__name__}")
    if len(stream.encode()) > MAX_ID:
        raise DecodeError(f"key: expected a stream id of at most {MAX_ID} bytes, got more")
    return stream


class PayloadError(DecodeError):
    """A payload that is not acceptable; `kind` is the reason without what the payload itself put into it."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.kind = _FOREIGN.sub("", reason)


class Decoder(ABC):
    """Messages from the payloads of one route.

    Args:
        fields: where each channel is; at least one.
        time: where the event time is; None takes the arrival time (or the format's own time).
        max_bytes: a longer payload is refused unread.

    Attributes:
        requests: (topic, payload) that the decoder wants published; whoever publishes them clears the list.

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
        self.requests: list[tuple[str, bytes]] = []

    def number_by(self, place: Field) -> None:
        """Make messages `Numbered`, by the whole number found there.

        Raises:
            ConfigError: the format has no such place.
        """
        kind = type(self).__name__
        raise ConfigError(f"sequence: expected a format with a place for {place}, got {kind}")

    def decode(self, topic: str, payload: bytes, stream: str, arrival_ns: int) -> list[Message]:
        """What one payload says, as messages for the engine: none if all its channels are missing.

        Args:
            topic: where it came from.
            stream: the route's stream; a format may add levels for senders named in the payload.
            arrival_ns: the time of readings that carry none.

        Raises:
            PayloadError: the payload is not acceptable; one line: topic, reason, first bytes escaped.
        """
        try:
            if len(payload) > self.max_bytes:
                raise DecodeError(f"expected at most {self.max_bytes} bytes, got {len(payload)}")
            return self._messages(topic, payload, stream, arrival_ns)
        except DecodeError as error:
            text = f"topic {topic!a:.200}: {error}; payload {escape(payload)}"
            raise PayloadError(text, str(error)) from None

    def look(self, payload: bytes) -> object:
        """The document in which the fields' paths are looked up (the first, of several readings), for who
        wants to see what else is there; None if the payload is none or the format has no paths.
        """
        del payload
        return None

    @abstractmethod
    def _messages(self, topic: str, payload: bytes, stream: str, arrival_ns: int, /) -> list[Message]: ...

    def _message(self, stream: str, found: Sequence[float | None], time_ns: int) -> list[Message]:
        """The message of one vector; no message if nothing was found; `found` is in the order of the
        fields.
        """
        values = [value for value in found if value is not None]
        if len(values) == len(found):
            return [Message(stream, self.channels, time_ns, values)]
        pairs = zip(self.channels, found, strict=True)
        channels = tuple(channel for channel, value in pairs if value is not None)
        return [Message(stream, channels, time_ns, values)] if channels else []


def numbered(messages: list[Message], value: object) -> list[Message]:
    """Messages of one reading with its number; `DecodeError` unless that is a whole number."""
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if type(value) is not int or not -(2**62) < value < 2**62:
        raise DecodeError(f"sequence: expected a whole number, got {str(value)[:40]!a}")
    return [Numbered.of(message, value) for message in messages]


def in_order(messages: list[Message]) -> list[Message]:
    """Messages of one payload by their times; equal times stay as they are."""
    if any(a.time_ns > b.time_ns for a, b in pairwise(messages)):
        messages.sort(key=lambda message: message.time_ns)
    return messages
