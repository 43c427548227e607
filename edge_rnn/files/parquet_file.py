"""A Parquet file as `readings.py` takes tables: names, a sample, and blocks of cells as text.

pyarrow (extra `parquet`) reads it; nested columns are left out. Cells become the texts that a CSV would
hold: times as integer nanoseconds, numbers with all their digits, missing values empty. So one reader decides
what is a time, a channel and a label, whatever the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_rnn.errors import DataError, MissingExtraError

_SAMPLE = 100
_BLOCK = 1 << 16
_MAGIC = b"PAR1"

Columns = list[tuple[str, ...]]


def looks_like_parquet(start: bytes) -> bool:
    """Whether a file that begins so is Parquet."""
    return start.startswith(_MAGIC)


class ParquetTable:
    """An open Parquet file; `close` it.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DataError: the file is damaged, or has no column that could be read.
    """

    def __init__(self, file: Path) -> None:
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError:
            raise MissingExtraError(
                f"{file.name}: Parquet needs pyarrow: pip install 'edge-rnn[parquet]', or write it as CSV"
            ) from None
        self._error: Any = (pa.ArrowException, OSError)
        self.file = file
        self.notes = ["Parquet"]
        try:
            self._parquet = parquet.ParquetFile(file)
        except self._error as error:
            raise self._damaged(error) from None
        types = pa.types
        schema = self._parquet.schema_arrow
        self.names = tuple(f.name for f in schema if not types.is_nested(f.type))
        left = [f.name for f in schema if types.is_nested(f.type)]
        self.notes += [f"column {name!r} is nested and is left out" for name in left]
        doubles = sorted({n for n in self.names if self.names.count(n) > 1})
        if doubles:
            raise DataError(f"{file.name}: column name {doubles[0]!r} stands there more than once")
        if not self.names:
            raise DataError(f"{file.name}: expected columns of numbers, got none")
        first = next(self._batches(self.names, _SAMPLE), None)
        if first is None:
            raise DataError(f"{file.name}: expected rows, got none")
        self.sample: Columns = first

    def _damaged(self, error: Exception) -> DataError:
        return DataError(
            f"{self.file.name}: not a Parquet file that can be read: {str(error).splitlines()[0]}"
        )

    def _batches(self, names: Sequence[str], size: int) -> Iterator[Columns]:
        try:
            for batch in self._parquet.iter_batches(batch_size=size, columns=list(names)):
                if batch.num_rows:
                    yield [_cells(batch.column(name)) for name in names]
        except self._error as error:
            raise self._damaged(error) from None

    def blocks(self, columns: Sequence[int]) -> Iterator[Columns]:
        """The chosen columns, up to 65,536 rows at a time."""
        return self._batches([self.names[i] for i in columns], _BLOCK)

    def line_of(self, row: int) -> int:
        """Parquet has no lines: the row, counted from 1."""
        return row + 1

    def close(self) -> None:
        """Close the file."""
        self._parquet.close()


def _cells(column: Any) -> tuple[str, ...]:
    """A column of a batch as texts."""
    import pyarrow as pa

    types, kind = pa.types, column.type
    if types.is_timestamp(kind):
        values = column.cast(pa.timestamp("ns", kind.tz)).cast(pa.int64()).to_pylist()
    elif types.is_date(kind):
        nanoseconds = column.cast(pa.timestamp("ns"))
        values = nanoseconds.cast(pa.int64()).to_pylist()
    elif types.is_boolean(kind):
        values = column.cast(pa.int8()).to_pylist()
    else:
        values = column.to_pylist()
    return tuple("" if value is None else value if isinstance(value, str) else str(value) for value in values)
