"""Payloads that are documents of objects, arrays and numbers: each value is found by its path.

JSON, MessagePack and CBOR differ in their bytes alone: a format gives `_parse`, the rest is here.

With `each`, a path to an array, every element of it is a reading: the paths of channels and time start at the
element. With `key`, the sender is named in the payload: each path gives a level of the stream's id (looked up
in the element first, then in the document). With `partial`, a document with none of the fields is no reading
instead of a refusal, for topics on which a device publishes other things, too.
"""

from __future__ import annotations

from abc import abstractmethod

from edge_rnn.errors import DecodeError
from edge_rnn.service.codecs.base import (
    MAX_BYTES,
    Decoder,
    Field,
    TimeField,
    in_order,
    numbered,
    substream,
)
from edge_rnn.service.codecs.paths import ABSENT, Path, find, keys_of, parse_path
from edge_rnn.service.codecs.values import as_number, kind_of
from edge_rnn.stream.types import Message


class DocumentDecoder(Decoder):
    """See the module."""

    def __init__(
        self,
        fields: tuple[Field, ...],
        time: TimeField | None = None,
        max_bytes: int = MAX_BYTES,
        *,
        each: str | None = None,
        key: tuple[str, ...] = (),
        partial: bool = False,
    ) -> None:
        super().__init__(fields, time, max_bytes)
        self._paths = [(parse_path(field.path), field.path or "$") for field in fields]
        self._time_path = () if time is None else parse_path(time.path)
        self._time_name = "" if time is None else time.path
        self._each = None if each is None else parse_path(each)
        self._each_name = each
        self._keys = tuple(parse_path(path) for path in key)
        self._partial = partial
        self._number: tuple[Path, str] | None = None
        self._prepare()

    def _prepare(self) -> None:
        """What a format makes ready once, when all of the above is known."""

    def number_by(self, place: Field) -> None:
        """See `Decoder.number_by`."""
        self._number = (parse_path(place.path), place.path)

    def look(self, payload: bytes) -> object:
        """See `Decoder.look`."""
        try:
            document = self._parse(payload) if len(payload) <= self.max_bytes else None
        except DecodeError:
            return None
        if self._each is None:
            return document
        elements = find(document, self._each)
        return elements[0] if type(elements) is list and elements else None

    @abstractmethod
    def _parse(self, payload: bytes) -> object:
        """The document; `DecodeError` if the payload is none."""

    def _messages(self, _topic: str, payload: bytes, stream: str, arrival_ns: int, /) -> list[Message]:
        document = self._parse(payload)
        if self._each is None:
            return self._reading(document, document, stream, arrival_ns)
        elements = find(document, self._each)
        if type(elements) is not list:
            if self._partial and (elements is ABSENT or elements is None):
                return []
            got = keys_of(document) if elements is ABSENT else kind_of(elements)
            raise DecodeError(f"expected an array of readings at {self._each_name!r}, got {got}")
        messages: list[Message] = []
        for element in elements:
            messages += self._reading(element, document, stream, arrival_ns)
        return in_order(messages)

    def _reading(self, element: object, document: object, stream: str, arrival_ns: int) -> list[Message]:
        values: list[float | None] = []
        absent = 0
        for path, name in self._paths:
            found = find(element, path)
            absent += found is ABSENT
            values.append(None if found is None or found is ABSENT else as_number(found, name))
        if absent == len(self._paths):
            if self._partial:
                return []
            names = ", ".join(name for _, name in self._paths[:8])
            raise DecodeError(f"expected at least one of the fields {names}, got {keys_of(element)}")
        time_ns = arrival_ns
        if self.time is not None:
            moment = find(element, self._time_path)
            if moment is ABSENT or moment is None:
                raise DecodeError(f"expected a time at {self._time_name!r}, got {keys_of(element)}")
            time_ns = self.time.read(moment)
        if self._keys:
            stream = substream(stream, [self._key(element, document, path) for path in self._keys])
        messages = self._message(stream, values, time_ns)
        if self._number is None:
            return messages
        path, name = self._number
        number = find(element, path)
        if number is ABSENT or number is None:
            raise DecodeError(f"expected a sequence at {name!r}, got {keys_of(element)}")
        return numbered(messages, number)

    @staticmethod
    def _key(element: object, document: object, path: tuple[str | int, ...]) -> object:
        found = find(element, path)
        return find(document, path) if found is ABSENT else found
