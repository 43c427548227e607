"""MessagePack documents, read by msgspec. Extension types are values nobody can ask a number of."""

from __future__ import annotations

import msgspec

from edge_rnn.errors import DecodeError
from edge_rnn.service.codecs.documents import DocumentDecoder


class MsgpackDecoder(DocumentDecoder):
    """See the module."""

    def _parse(self, payload: bytes) -> object:
        try:
            return msgspec.msgpack.decode(payload)
        except RecursionError:
            raise DecodeError("expected MessagePack, got containers nested too deeply") from None
        except (ValueError, TypeError, OverflowError) as error:
            # TypeError: a map in a map's key.
            raise DecodeError(f"expected MessagePack, got something else ({str(error)[:100]})") from None
