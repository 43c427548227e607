"""The payload is one number as text."""

from __future__ import annotations

from edge_rnn.errors import ConfigError
from edge_rnn.service.codecs.base import MAX_BYTES, Decoder, Field, TimeField
from edge_rnn.service.codecs.values import parse_number
from edge_rnn.stream.types import Message


class NumberDecoder(Decoder):
    """See the module; one field, no time."""

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

    def _messages(self, _topic: str, payload: bytes, stream: str, arrival_ns: int, /) -> list[Message]:
        return [Message(stream, self.channels, arrival_ns, [parse_number(payload)])]
