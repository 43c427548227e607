"""SenML packs (RFC 8428), as JSON or CBOR: several measurements, each with its name, value and time.

A channel's `path` is a name: the whole one (base name and name), or the record's name without the base name.
Records of one time are one reading; their times are the pack's own. With `key = ["bn"]` the base name is the
stream's key, for a topic on which several devices speak; without it, a pack in which two devices give the
same channel a value at the same time is refused.
"""

from __future__ import annotations

from edge_rnn.errors import ConfigError, DecodeError
from edge_rnn.service.codecs.base import MAX_BYTES, Decoder, Field, TimeField, in_order, substream
from edge_rnn.service.codecs.cbor_document import cbor_reader
from edge_rnn.service.codecs.json_document import parse_json
from edge_rnn.service.codecs.senml_records import resolve
from edge_rnn.service.codecs.values import as_number
from edge_rnn.stream.types import Message

BASE_NAME = "bn"


class SenmlDecoder(Decoder):
    """See the module; `cbor`: the packs are CBOR."""

    def __init__(
        self,
        fields: tuple[Field, ...],
        time: TimeField | None = None,
        max_bytes: int = MAX_BYTES,
        *,
        key: tuple[str, ...] = (),
        partial: bool = False,
        cbor: bool = False,
    ) -> None:
        super().__init__(fields, time, max_bytes)
        if time is not None:
            raise ConfigError("format senml: its records carry their times; remove 'time'")
        if key not in ((), (BASE_NAME,)):
            raise ConfigError(f'format senml: expected key = ["{BASE_NAME}"] or none, got {list(key)}')
        self._parse = cbor_reader("senml-cbor", text_keys=False) if cbor else parse_json
        self._places = {field.path: place for place, field in enumerate(fields)}
        self._by_base = bool(key)
        self._partial = partial

    def _messages(self, _topic: str, payload: bytes, stream: str, arrival_ns: int, /) -> list[Message]:
        # By device and time: one value for each field.
        rows: dict[tuple[str, int], list[float | None]] = {}
        known = False
        for record in resolve(self._parse(payload), arrival_ns):
            place = self._places.get(record.name)
            if place is None:
                place = self._places.get(record.name[len(record.base) :])
            if place is None:
                continue
            known = True
            if record.value is None:
                continue
            value = as_number(record.value, record.name[:80])
            row = rows.setdefault(
                (record.base if self._by_base else "", record.time_ns), [None] * len(self.fields)
            )
            if row[place] is not None:
                raise DecodeError(
                    f"{record.name[:80]}: expected one value at one time, got two; if the pack is of "
                    f'several devices, set key = ["{BASE_NAME}"]'
                )
            row[place] = value
        if not known and not self._partial:
            names = ", ".join(field.path for field in self.fields[:8])
            raise DecodeError(f"expected a record of {names}, got none")
        messages: list[Message] = []
        for (base, time_ns), row in rows.items():
            messages += self._message(substream(stream, [base]) if base else stream, row, time_ns)
        return in_order(messages)
