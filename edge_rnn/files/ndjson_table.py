"""A file of JSON objects, one a line, as a table: nested objects give names joined by dots."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from edge_rnn.errors import DataError
from edge_rnn.files.text_file import lines

_BLOCK = 1 << 16
_SAMPLE = 100


class NdjsonTable:
    """A file with one JSON object a line; nested objects give names joined by dots."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.notes = ["NDJSON"]
        names: dict[str, None] = {}
        rows = list(islice(self._objects(), _SAMPLE))
        for row in rows:
            names.update(dict.fromkeys(row))
        if not names:
            raise DataError(f"{file.name}: expected JSON objects with at least one key, got none")
        self.names = tuple(names)
        self.sample: list[tuple[str, ...]] = [tuple(row.get(n, "") for row in rows) for n in self.names]

    def _objects(self) -> Iterator[dict[str, str]]:
        decode: Callable[[str], object] = msgspec.json.Decoder().decode
        with lines(self.file) as stream:
            for line, text in enumerate(stream, 1):
                if not text.strip():
                    continue
                try:
                    value = decode(text)
                except (msgspec.DecodeError, RecursionError) as error:
                    raise DataError(f"{self.file.name}, line {line}: not JSON: {error}") from None
                if not isinstance(value, dict):
                    raise DataError(
                        f"{self.file.name}, line {line}: expected one JSON object, got {text.strip()[:40]!r}"
                    )
                row: dict[str, str] = {}
                _flatten(value, "", row)
                yield row

    def blocks(self, columns: Sequence[int]) -> Iterator[list[tuple[str, ...]]]:
        """The chosen columns, up to 65,536 rows at a time; a missing key is an empty cell."""
        names = [self.names[i] for i in columns]
        rows = self._objects()
        while block := list(islice(rows, _BLOCK)):
            yield [tuple(row.get(n, "") for row in block) for n in names]

    def line_of(self, row: int) -> int:
        """The line (from 1) of a data row; reads the file again, for messages only."""
        with lines(self.file) as stream:
            found = (n for n, text in enumerate(stream, 1) if text.strip())
            return next(islice(found, row, None), 0)


def _flatten(value: dict[str, object], prefix: str, out: dict[str, str]) -> None:
    # Depth is bounded by the decoder, which refuses deep nesting.
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict):
            _flatten(item, f"{name}.", out)
        elif isinstance(item, str):
            out[name] = item
        elif item is None:
            out[name] = ""
        else:
            out[name] = json.dumps(item)
