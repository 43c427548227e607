"""A CSV file as a table: the delimiter is found, every row is as wide as the header.

The file is read in blocks of rows, so memory is a small multiple of the numbers alone.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

from edge_rnn.errors import DataError
from edge_rnn.files.cells import number
from edge_rnn.files.text_file import lines

_DELIMITERS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
_BLOCK = 1 << 16
_SAMPLE = 100


class CsvTable:
    """A CSV file: header, a sample of its columns, and its rows in blocks of columns."""

    def __init__(self, file: Path, delimiter: str | None) -> None:
        self.file = file
        with self._open() as stream:
            lines = [line for line in islice(stream, 20) if line.strip()]
        self.delimiter, note = self._delimiter(lines, delimiter)
        self.notes = [note]
        with self._open() as stream:
            head, *rows = [row for _, row in islice(self._records(stream), _SAMPLE + 1)] or [[]]
        names = [c.strip() for c in head]
        if head and all(number(c) is not None for c in names):
            raise DataError(
                f"{file.name}, line 1: expected a header with column names, got numbers; add a header line"
            )
        self.names = tuple(n or f"column {i + 1}" for i, n in enumerate(names))
        doubles = sorted({n for n in self.names if self.names.count(n) > 1})
        if doubles:
            raise DataError(f"{file.name}, line 1: column name {doubles[0]!r} stands there more than once")
        if not rows:
            raise DataError(f"{file.name}: expected rows after the header, got none")
        self.sample: list[tuple[str, ...]] = list(zip(*rows, strict=True))

    def _open(self) -> TextIO:
        return lines(self.file)

    def _delimiter(self, lines: list[str], given: str | None) -> tuple[str, str]:
        if given is not None:
            character = "\t" if given in {"tab", "\\t"} else given
            if len(character) != 1 or character.isalnum() or character in '"\r\n. -+':
                raise DataError(
                    f"{self.file.name}: expected a delimiter of one character such as ',' ';' or 'tab', "
                    f"got {given!r}"
                )
            return character, f"delimiter {_DELIMITERS.get(character, repr(character))} as given"
        best, most = ",", 0
        for candidate in _DELIMITERS:
            try:
                widths = {len(row) for row in csv.reader(lines, delimiter=candidate) if row}
            except csv.Error:
                continue
            # A decimal comma also splits rows, but not all of them and the header alike.
            if len(widths) == 1 and max(widths) > max(most, 1):
                best, most = candidate, max(widths)
        if not most:
            header = lines[0] if lines else ""
            best = max(_DELIMITERS, key=header.count)
        return best, f"delimiter {_DELIMITERS[best]}"

    def _records(self, stream: TextIO) -> Iterator[tuple[int, list[str]]]:
        """The header and all rows with their last line's number; each as wide as the header."""
        reader = csv.reader(stream, delimiter=self.delimiter, strict=True)
        width = 0
        try:
            for row in reader:
                if len(row) == width and width:
                    yield reader.line_num, row
                elif any(cell.strip() for cell in row):
                    if width:
                        raise DataError(
                            f"{self.file.name}, line {reader.line_num}: expected {width} cell(s) as in the "
                            f"header, got {len(row)}; is {_DELIMITERS.get(self.delimiter, self.delimiter)} "
                            "the right delimiter?"
                        )
                    width = len(row)
                    yield reader.line_num, row
        except csv.Error as error:
            raise DataError(f"{self.file.name}, line {reader.line_num}: not CSV: {error}") from None

    def blocks(self, columns: Sequence[int]) -> Iterator[list[tuple[str, ...]]]:
        """The chosen columns, up to 65,536 rows at a time."""
        with self._open() as stream:
            rows = (row for _, row in islice(self._records(stream), 1, None))
            while block := list(islice(rows, _BLOCK)):
                whole = list(zip(*block, strict=True))
                yield [whole[i] for i in columns]

    def line_of(self, row: int) -> int:
        """The line (from 1) of a data row; reads the file again, for messages only."""
        with self._open() as stream:
            return next(islice(self._records(stream), row + 1, None), (0, []))[0]
