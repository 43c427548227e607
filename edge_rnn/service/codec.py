"""The decoder of a route: which of the payload formats in `codecs/`, with which of its options.

`decoder` is the one place that knows all formats. To add one, write a subclass of `Decoder` in a file of its
own in `codecs/`, give it a line in `decoder`, and its name to `PayloadFormat` in `files/config_types.py`.
A format's file is imported when a route has the format: a daemon mostly has one of nine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from edge_rnn.errors import ConfigError
from edge_rnn.files.config_types import PayloadFormat
from edge_rnn.service.codecs.base import MAX_BYTES, Decoder, Field, PayloadError, TimeField, escape
from edge_rnn.service.codecs.paths import parse_path
from edge_rnn.service.codecs.values import parse_number

__all__ = [
    "MAX_BYTES", "Decoder", "Field", "PayloadError", "TimeField", "decoder", "escape", "parse_number",
    "parse_path",
]  # fmt: skip


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
    sequence: Field | None = None,
) -> Decoder:
    """The decoder of `format_`.

    Args:
        sequence: where the sender's own number of a reading is (json, msgpack, cbor, csv, binary).
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
    if sequence is not None:
        made = decoder(
            format_, fields, time, max_bytes, each=each, key=key, partial=partial, layout=layout,
            rebirth=rebirth, tail=tail,
        )  # fmt: skip
        made.number_by(sequence)
        return made
    if format_ in ("json", "msgpack", "cbor"):
        return _documents(format_)(fields, time, max_bytes, each=each, key=key, partial=partial)
    if format_ in ("senml", "senml-cbor"):
        from edge_rnn.service.codecs.senml import SenmlDecoder

        return SenmlDecoder(fields, time, max_bytes, key=key, partial=partial, cbor=format_ == "senml-cbor")
    if format_ == "sparkplug":
        from edge_rnn.service.codecs.sparkplug import SparkplugDecoder

        return SparkplugDecoder(fields, time, max_bytes, rebirth=rebirth, tail=tail)
    if format_ == "csv":
        from edge_rnn.service.codecs.csv_rows import CsvDecoder

        return CsvDecoder(fields, time, max_bytes, lines=each is not None)
    if format_ == "binary":
        from edge_rnn.service.codecs.binary import BinaryDecoder

        if layout is None:
            raise ConfigError("format binary: expected a layout such as '<Ihhf', got none")
        return BinaryDecoder(fields, time, max_bytes, layout=layout, records=each is not None)
    from edge_rnn.service.codecs.number import NumberDecoder

    return NumberDecoder(fields, time, max_bytes)


def _documents(format_: Literal["json", "msgpack", "cbor"]) -> Callable[..., Decoder]:
    if format_ == "msgpack":
        from edge_rnn.service.codecs.msgpack_document import MsgpackDecoder

        return MsgpackDecoder
    if format_ == "cbor":
        from edge_rnn.service.codecs.cbor_document import CborDecoder

        return CborDecoder
    from edge_rnn.service.codecs.json_document import JsonDecoder

    return JsonDecoder
