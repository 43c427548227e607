"""CBOR documents (RFC 8949), read by cbor2 (extra `cbor`).

cbor2 turns many tags into objects: it would compile a sender's regular expression, or build a list that holds
itself. So every tag is taken off and its content stays (a time's number, an address's bytes), but for
numbers, which cbor2 reads well, and references, which are refused: their content is an index, no reading.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

from edge_rnn.errors import ConfigError, DecodeError
from edge_rnn.service.codecs.documents import DocumentDecoder

MAX_DEPTH = 64
# Tags cbor2 knows (RFC 8949 and the registry), without 2 and 3 (large integers) and 4 (decimal fraction).
_CONTENT = (0, 1, 5, 30, 35, 36, 37, 43000, 52, 54, 100, 258, 260, 261, 1004, 55799)
_REFERENCES = (25, 28, 29, 256)


class CborDecoder(DocumentDecoder):
    """See the module."""

    def _prepare(self) -> None:
        self._read = cbor_reader("cbor")

    def _parse(self, payload: bytes) -> object:
        return self._read(payload)


def cbor_reader(format_: str, *, text_keys: bool = True) -> Callable[[bytes], object]:
    """What turns the bytes of one CBOR item into a document; `ConfigError` where cbor2 is not installed.

    text_keys: a map with other keys is refused (they could be made to collide); SenML's keys are small
    numbers.
    """
    try:
        import cbor2
    except ImportError:
        raise ConfigError(
            f"format {format_}: expected the package cbor2, got none; install it: "
            "pip install 'edge-rnn[cbor]'"
        ) from None

    tags = dict.fromkeys(_CONTENT, _content) | dict.fromkeys(_REFERENCES, _refuse)

    def read(payload: bytes) -> object:
        stream = BytesIO(payload)
        try:
            found: object = cbor2.CBORDecoder(
                stream, semantic_decoders=tags, max_depth=MAX_DEPTH, strict_hashable_types=text_keys
            ).decode()
        except Exception as error:  # noqa: BLE001 - whatever a parser makes of hostile bytes is a refused payload
            raise DecodeError(f"expected CBOR, got something else ({str(error)[:100]})") from None
        if stream.tell() != len(payload):
            raise DecodeError(f"expected one CBOR item, got {len(payload) - stream.tell()} bytes after it")
        return found

    return read


def _content(value: object, _immutable: object) -> object:
    return value


def _refuse(_value: object, _immutable: object) -> object:
    raise DecodeError("a reference to another part")
