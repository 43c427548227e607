"""Where a value is in a parsed document: `a.b[2]["c.d"]`."""

from __future__ import annotations

import re
from typing import Final

from edge_rnn.errors import ConfigError

_PART = re.compile(r"""\.?([^.\[\]"]+)|\[([0-9]{1,6})\]|\.?\["([^"]+)"\]""")

Path = tuple[str | int, ...]


class _Absent:
    __slots__ = ()


ABSENT: Final = _Absent()
"""What `find` gives where the document has no such place."""


def parse_path(text: str) -> Path:
    """`a.b[2]["c.d"]` to ("a", "b", 2, "c.d"); "" or `$` is the document itself; `ConfigError` if unfit."""
    if text in ("", "$"):
        return ()
    rest = text.removeprefix("$.") if text.startswith("$.") else text
    parts: list[str | int] = []
    position = 0
    while position < len(rest):
        match = _PART.match(rest, position)
        dotted = rest[position] == "."
        if match is None or (dotted and position == 0) or (match[1] and position and not dotted):
            raise ConfigError(f'path {text!r}: expected names and indexes such as a.b[0] or a["b.c"]')
        parts.append(match[1] or match[3] or int(match[2]))
        position = match.end()
    return tuple(parts)


def find(value: object, path: Path) -> object:
    """The value at `path`, None where it or something above it is null, `ABSENT` where there is no such
    place.
    """
    for step in path:
        if isinstance(value, dict) and type(step) is str:
            value = value.get(step, ABSENT)
        elif type(value) is list and type(step) is int:
            value = value[step] if step < len(value) else ABSENT
        elif value is None:
            return None
        else:
            return ABSENT
    return value


def keys_of(document: object) -> str:
    """What a document is and, of an object, its first keys, for a message."""
    if isinstance(document, dict):
        names = [ascii(key)[:40] for key in list(document)[:8]]
        return f"an object with {', '.join(names)}" if names else "an empty object"
    return f"a document of type {type(document).__name__}"
