"""Recorded readings (CSV, NDJSON or Parquet) to arrays.

A file is a table: a header with column names (CSV) or one flat or nested JSON object a line (NDJSON, nested
keys joined by dots), one row per moment, one column with the time, the others numbers. `read_table` finds
the delimiter, the time column and its format from the first rows, says in `notes` what it decided, and
gives int64 nanoseconds and a float64 matrix. An empty cell, NaN, NA, null or a missing key is a missing
value (NaN). Anything else that is not a number is an error that names its line: a table that is silently
misread would train a silently wrong detector.

Columns whose name says that they are labels (`anomaly`, `changepoint`, `label`, ...) are never taken as
inputs by default, asked for or not: a detector that sees its own answer is worthless.

Files that end in `.gz` are unpacked on the way. Columns called `verdict.*`, which the daemon's `[record]`
writes beside the readings, are left out unless they are asked for.

`csv_table`, `ndjson_table` and `parquet_file` open a file; each gives `names`, a `sample` of rows for finding
out what the columns are, `notes`, the chosen columns in `blocks`, and `line_of` a row for messages.
"""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_rnn.errors import DataError
from edge_rnn.files import time_column
from edge_rnn.files.cells import label, number
from edge_rnn.files.csv_table import CsvTable
from edge_rnn.files.ndjson_table import NdjsonTable
from edge_rnn.files.parquet_file import ParquetTable, looks_like_parquet
from edge_rnn.files.text_file import binary
from edge_rnn.files.time_column import BadTimeError, TimeFormat

__all__ = ["LABEL_NAMES", "Table", "read_table"]

LABEL_NAMES = frozenset(
    {
        "anomaly", "anomalies", "is_anomaly", "anomaly_label", "changepoint", "change_point", "label",
        "labels", "is_outlier", "outlier", "ground_truth", "attack", "normal/attack",
    }
)  # fmt: skip
_TIME_NAMES = ("timestamp", "datetime", "time", "date_time", "date", "ts", "t", "time_ns", "_time")
_VERDICT = "verdict."

Columns = list[tuple[str, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A recorded table.

    times_ns: (T,) int64, event times since 1970 UTC, strictly rising unless read with `strict=False`.
    values: (T, C) float64, NaN where a value is missing.
    channels: the C column names, in the order asked for.
    labels: (T,) bool, or None where no label column was asked for.
    time_column: name of the column the times came from.
    notes: what was decided while reading, one line each, for people.
    """

    times_ns: NDArray[np.int64]
    values: NDArray[np.float64]
    channels: tuple[str, ...]
    labels: NDArray[np.bool_] | None
    time_column: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.times_ns.size)


def read_table(
    path: str | Path,
    time: str | None = None,
    channels: Sequence[str] | None = None,
    labels: str | None = None,
    delimiter: str | None = None,
    *,
    min_rows: int = 2,
    strict: bool = True,
) -> Table:
    """Read a CSV, NDJSON (`.ndjson`, `.jsonl`, or a first character `{`) or Parquet file.

    Args:
        path: the file.
        time: name of the time column; None finds it.
        channels: names of the value columns, in this order; None takes every numeric column that is
            neither the time nor a label.
        labels: name of a column with 0/1, true/false or yes/no; never an input.
        delimiter: one character, or `tab`; None finds it. Not for NDJSON.
        min_rows: fewer rows are an error.
        strict: times must rise strictly; with False they are given as they are.

    Raises:
        DataError: anything that does not fit; one line with file, line, column, expected and got.
    """
    file = Path(path)
    suffix = Path(file.name.removesuffix(".gz")).suffix.lower()
    try:
        with binary(file) as stream:
            start = stream.read(4096)
    except (EOFError, zlib.error) as error:
        raise DataError(f"{file.name}: the compressed file is damaged: {error}") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from None
    if not start.strip():
        raise DataError(f"{file.name}: the file is empty; expected a header line and rows")
    ndjson = suffix in {".ndjson", ".jsonl"} or start.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"{"
    if ndjson and delimiter is not None:
        raise DataError(f"{file.name}: a delimiter was given, but this is NDJSON, which has none")
    try:
        if looks_like_parquet(start):
            if delimiter is not None:
                raise DataError(f"{file.name}: a delimiter was given, but this is Parquet, which has none")
            with closing(ParquetTable(file)) as parquet:
                return _read(parquet, file.name, time, channels, labels, min_rows=min_rows, strict=strict)
        source: CsvTable | NdjsonTable = NdjsonTable(file) if ndjson else CsvTable(file, delimiter)
        return _read(source, file.name, time, channels, labels, min_rows=min_rows, strict=strict)
    except UnicodeDecodeError:
        raise DataError(
            f"{file.name}: expected UTF-8 text; convert the file (for example from latin-1) or check that it "
            "is not compressed"
        ) from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{file.name}: the compressed file is damaged: {error}") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from None


Source: TypeAlias = CsvTable | NdjsonTable | ParquetTable


def _read(
    source: Source,
    name: str,
    time: str | None,
    channels: Sequence[str] | None,
    labels: str | None,
    *,
    min_rows: int,
    strict: bool,
) -> Table:
    names, sample = source.names, source.sample
    notes = list(source.notes)
    asked = list(channels) if channels is not None else []
    if len(set(asked)) != len(asked) or (channels is not None and not asked):
        raise DataError(f"{name}: expected distinct channels and at least one, got {asked}")
    time_index = _time_index(name, names, sample, time, {*asked, labels})
    form = time_column.guess(sample[time_index])
    if form is None:
        got = next((c for c in sample[time_index] if c.strip()), "")
        raise DataError(
            f"{name}: column {names[time_index]!r} is not a time: expected {time_column.ACCEPTED}, got "
            f"{got[:40]!r}; name the time column (--time)"
        )
    notes.append(f"time: column {names[time_index]!r}, {form.text}")
    label_index = None if labels is None else _find(name, names, labels, "label column")
    if channels is None:
        value_indices = _default_channels(name, names, sample, {time_index, label_index}, notes)
    else:
        value_indices = [_find(name, names, c, "column") for c in asked]
    for index in value_indices:
        if index == time_index:
            raise DataError(f"{name}: {names[index]!r} is the time column and cannot be a channel as well")
        if index == label_index:
            raise DataError(
                f"{name}: {names[index]!r} is the label column and is never an input; "
                "leave it out of the channels"
            )
    columns = [time_index, *value_indices, *([] if label_index is None else [label_index])]
    times, values, truth = _collect(source, name, names, columns, form, has_labels=label_index is not None)
    if times.size < min_rows:
        raise DataError(f"{name}: expected at least {min_rows} rows, got {times.size}")
    if strict:
        _check_rising(source, name, names[time_index], times)
    missing = int(np.isnan(values).sum())
    if missing:
        notes.append(f"{missing} missing value(s) of {values.size}")
    return Table(
        times_ns=times,
        values=values,
        channels=tuple(names[i] for i in value_indices),
        labels=truth,
        time_column=names[time_index],
        notes=tuple(notes),
    )


def _collect(
    source: Source,
    name: str,
    names: Sequence[str],
    columns: list[int],
    form: TimeFormat,
    *,
    has_labels: bool,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_] | None]:
    """All blocks of the chosen columns (time first, label last) as arrays."""
    times: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float64]] = []
    truth: list[NDArray[np.bool_]] = []
    count = len(columns) - 1 - has_labels
    done = 0
    for block in source.blocks(columns):
        try:
            times.append(time_column.parse(block[0], form, done))
        except BadTimeError as error:
            line = source.line_of(error.row)
            raise DataError(f"{name}, line {line}, column {names[columns[0]]!r}: {error}") from None
        matrix = np.empty((len(block[0]), count))
        for j in range(count):
            matrix[:, j] = _numbers(block[j + 1], source, name, names[columns[j + 1]], done)
        values.append(matrix)
        if has_labels:
            truth.append(_truths(block[-1], source, name, names[columns[-1]], done))
        done += len(block[0])
    if not times:
        return np.empty(0, np.int64), np.empty((0, count)), np.empty(0, np.bool_) if has_labels else None
    return np.concatenate(times), np.concatenate(values), np.concatenate(truth) if has_labels else None


def _check_rising(source: Source, name: str, column: str, times: NDArray[np.int64]) -> None:
    bad = np.flatnonzero(times[1:] <= times[:-1])
    if bad.size:
        row = int(bad[0]) + 1
        same = times[row] == times[row - 1]
        at = np.datetime_as_string(times[row].astype("M8[ns]"), unit="ms")
        raise DataError(
            f"{name}, line {source.line_of(row)}, column {column!r}: the time {at} "
            f"{'is the same as' if same else 'lies before'} the row above ({bad.size} such row(s)); "
            "sort the rows by time and drop repeated ones"
        )


def _numbers(cells: Sequence[str], source: Source, name: str, column: str, offset: int) -> list[float]:
    # float() also takes 1_000 and digits of other scripts: those go the slow way and are refused there.
    joined = "".join(cells)
    if joined.isascii() and "_" not in joined:
        try:
            return list(map(float, cells))
        except ValueError:
            pass
    out: list[float] = []
    for row, cell in enumerate(cells):
        value = number(cell)
        if value is None:
            decimal = number(cell.replace(",", ".", 1)) is not None
            raise DataError(
                f"{name}, line {source.line_of(offset + row)}, column {column!r}: expected a number, got "
                f"{cell[:40]!r}" + ("; write decimals with a point" if decimal else "")
            )
        out.append(value)
    return out


def _truths(cells: Sequence[str], source: Source, name: str, column: str, offset: int) -> NDArray[np.bool_]:
    known = {cell: label(cell) for cell in set(cells)}
    found = [known[c] for c in cells]
    if None in found:
        row = found.index(None)
        raise DataError(
            f"{name}, line {source.line_of(offset + row)}, label column {column!r}: expected 0 or 1, got "
            f"{cells[row][:40]!r}"
        )
    return np.array(found, dtype=np.bool_)


def _find(name: str, names: Sequence[str], wanted: str, what: str) -> int:
    if wanted in names:
        return names.index(wanted)
    folded = [n.casefold() for n in names]
    if folded.count(wanted.strip().casefold()) == 1:
        close = [names[folded.index(wanted.strip().casefold())]]
    else:
        close = difflib.get_close_matches(wanted, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    shown = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
    raise DataError(f"{name}: no such {what} {wanted!r}; {hint}columns: {shown}")


def _time_index(
    name: str, names: Sequence[str], sample: Columns, time: str | None, taken: set[str | None]
) -> int:
    if time is not None:
        return _find(name, names, time, "time column")
    folded = [n.casefold() for n in names]
    for wanted in _TIME_NAMES:
        for index, column in enumerate(folded):
            if column == wanted and names[index] not in taken and time_column.guess(sample[index]):
                return index
    for index, cells in enumerate(sample):
        form = time_column.guess(cells)
        # A number alone is no evidence: every value column would do.
        if form is not None and form.kind == "iso" and names[index] not in taken:
            return index
    shown = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
    raise DataError(
        f"{name}: no time column found (expected {time_column.ACCEPTED}); name it (--time); columns: {shown}"
    )


def _default_channels(
    name: str, names: Sequence[str], sample: Columns, taken: set[int | None], notes: list[str]
) -> list[int]:
    """Every column that holds numbers and is neither the time nor a label."""
    found: list[int] = []
    for index, column in enumerate(names):
        if index in taken or column.startswith(_VERDICT):
            continue
        if column.casefold() in LABEL_NAMES:
            notes.append(f"column {column!r} is a label by its name and not an input")
        elif all(not c.strip() or number(c.replace(",", ".", 1)) is None for c in sample[index]):
            # A decimal comma stays in, to be refused by line: it is meant as a number.
            notes.append(f"column {column!r} holds no numbers and is left out")
        else:
            found.append(index)
    if not found:
        raise DataError(f"{name}: no column with numbers found; columns: {', '.join(names[:40])}")
    return found
