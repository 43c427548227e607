"""JSON documents.

Most payloads are one object with all its fields, so that case has a short way: the paths become a msgspec
struct type, the parser skips what nobody asked for and gives floats directly (a third of the time of a whole
parse). Whatever does not fit that type, for whichever reason, goes the long way of `documents.py`, which
alone decides what is missing, what is refused, and in which words.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from edge_rnn.errors import DecodeError
from edge_rnn.service.codecs.base import Field
from edge_rnn.service.codecs.documents import DocumentDecoder
from edge_rnn.service.codecs.paths import Path
from edge_rnn.stream.types import Message

# A tree of the asked-for names: a leaf is the place in the result.
_Tree = dict[str, "int | _Tree"]


class JsonDecoder(DocumentDecoder):
    """See the module.

    Attributes:
        quick: the short way, see `quick_reader`; None if there is none.
        names: where all that is asked for are names of one object: these, the time's last; else None.
    """

    quick: Callable[[bytes], list[Any]] | None
    names: tuple[str, ...] | None

    def _prepare(self) -> None:
        paths = [path for path, _ in self._paths]
        if self.time is not None:
            paths.append(self._time_path)
        plain = self._each is None and not self._keys
        self.quick = quick_reader(paths, timed=self.time is not None) if plain else None
        self.names = None
        if self.quick is not None and all(len(path) == 1 for path in paths):
            self.names = tuple(str(path[0]) for path in paths)

    def number_by(self, place: Field) -> None:
        """See `Decoder.number_by`; such messages go the long way."""
        super().number_by(place)
        self.quick = self.names = None

    def _messages(self, _topic: str, payload: bytes, stream: str, arrival_ns: int, /) -> list[Message]:
        quick = self.quick
        if quick is not None:
            try:
                values = quick(payload)
            except (ValueError, RecursionError):
                pass
            else:
                time = self.time
                if time is not None:
                    arrival_ns = time.read(values.pop())
                return [Message(stream, self.channels, arrival_ns, values)]
        return super()._messages(_topic, payload, stream, arrival_ns)

    def _parse(self, payload: bytes) -> object:
        return parse_json(payload)


def parse_json(payload: bytes) -> object:
    """The document; `DecodeError` if it is none."""
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


def quick_reader(paths: list[Path], *, timed: bool) -> Callable[[bytes], list[Any]] | None:
    """What reads the numbers at `paths` (the last one a time if `timed`) of a payload that has them all.

    None where the paths have no such type: indexes, the document itself, or one path inside another. The
    reader raises a ValueError or RecursionError for any payload that is not exactly so.
    """
    tree: _Tree = {}
    for place, path in enumerate(paths):
        if not path or not all(type(step) is str for step in path):
            return None
        node = tree
        for step in path[:-1]:
            below = node.setdefault(str(step), {})
            if not isinstance(below, dict):
                return None
            node = below
        if str(path[-1]) in node:
            return None
        node[str(path[-1])] = place
    last = len(paths) - 1 if timed else -1
    decode = msgspec.json.Decoder(_type(tree, last)).decode
    if all(isinstance(leaf, int) for leaf in tree.values()):
        # The leaves stand in the order of the paths.
        astuple = msgspec.structs.astuple
        return lambda payload: list(astuple(decode(payload)))
    ways = [_way(tree, path) for path in paths]

    def read(payload: bytes) -> list[Any]:
        document = decode(payload)
        found = []
        for way in ways:
            value = document
            for name in way:
                value = getattr(value, name)
            found.append(value)
        return found

    return read


def _type(tree: _Tree, time: int) -> Any:
    fields: list[tuple[str, Any]] = []
    for number, below in enumerate(tree.values()):
        if isinstance(below, dict):
            kind: Any = _type(below, time)
        else:
            kind = int | float | str if below == time else float
        fields.append((f"f{number}", kind))
    names = {f"f{number}": name for number, name in enumerate(tree)}
    return msgspec.defstruct("Payload", fields, rename=names, gc=False)


def _way(tree: _Tree, path: Path) -> tuple[str, ...]:
    names: list[str] = []
    node = tree
    for step in path:
        names.append(f"f{list(node).index(str(step))}")
        below = node[str(step)]
        if isinstance(below, dict):
            node = below
    return tuple(names)
