"""The decoder of a route: which of the payload formats in `codecs/`, with which of its options.

`decoder` is the one place that knows all formats. To add one, write a subclass of `Decoder` in a file of its
own in `codecs/`, give it a line in `decoder`, and its name to `PayloadFormat` in `files/config_types.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_rnn.errors import ConfigError
from edge_rnn.files.config_types import PayloadFormat
from edge_rnn.service.codecs.base import MAX_BYTES, Decoder, Field, PayloadError, TimeField, escape
from edge_rnn.service.codecs.binary import BinaryDecoder
from edge_rnn.service.codecs.cbor_document import CborDecoder
from edge_rnn.service.codecs.csv_rows import CsvDecoder
from edge_rnn.service.codecs.json_document import JsonDecoder
from edge_rnn.service.codecs.msgpack_document import MsgpackDecoder
from edge_rnn.service.codecs.number import NumberDecoder
from edge_rnn.service.codecs.paths import parse_path
from edge_rnn.service.codecs.senml import SenmlDecoder
from edge_rnn.service.codecs.sparkplug import SparkplugDecoder
from edge_rnn.service.codecs.values import parse_number

__all__ = [
    "MAX_BYTES", "Decoder", "Field", "PayloadError", "TimeField", "decoder", "escape", "parse_number",
    "parse_path",
]  # fmt: skip

_DOCUMENTS: dict[str, Callable[..., Decoder]] = {
    "json": JsonDecoder,
    "msgpack": MsgpackDecoder,
    "cbor": CborDecoder,
}


def decoder(
    format_: PayloadFormat,
    fields: tuple[Field, ...],
    time: TimeField | None = None,
    max_bytes: int = MAX_BYTES,
    *,
    each: str | None = None,
    key: tuple[str, ...] = (),
    partial: bool = False,
    layout: str | None = None,
    rebirth: bool = True,
    tail: bool = False,
) -> Decoder:
    """The decoder of `format_`.

    Args:
        fields, time, max_bytes: see `Decoder`.
        each: several readings in a payload: a path to their array (json, msgpack, cbor), `lines` (csv),
            `records` (binary).
        key: paths of what names the sender in the payload (json, msgpack, cbor), or `bn` (senml).
        partial: a payload with none of the fields is no reading, not a refusal (json, msgpack, cbor, senml).
        layout: how a binary payload is laid out.
        rebirth, tail: see `SparkplugDecoder`.

    Raises:
        ConfigError: the format cannot hold what is asked of it, or needs a package that is not installed.
    """
    if format_ in _DOCUMENTS:
        return _DOCUMENTS[format_](fields, time, max_bytes, each=each, key=key, partial=partial)
    if format_ in ("senml", "senml-cbor"):
        return SenmlDecoder(fields, time, max_bytes, key=key, partial=partial, cbor=format_ == "senml-cbor")
    if format_ == "sparkplug":
        return SparkplugDecoder(fields, time, max_bytes, rebirth=rebirth, tail=tail)
    if format_ == "csv":
        return CsvDecoder(fields, time, max_bytes, lines=each is not None)
    if format_ == "binary":
        if layout is None:
            raise ConfigError("format binary: expected a layout such as '<Ihhf', got none")
        return BinaryDecoder(fields, time, max_bytes, layout=layout, records=each is not None)
    return NumberDecoder(fields, time, max_bytes)
