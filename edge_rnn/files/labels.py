"""Labels for recorded rows: stretches of time in which something was wrong, from a CSV or a JSON file.

    CSV     a header with `start` and `end` (also: begin, from, stop, to), one stretch a line; or a time
            column and a column of 0/1 named anomaly or label
    JSON    [["2024-05-01 10:00", "2024-05-01 11:00"], ...], or objects with `start` and `end`, or
            {"file.csv": [[start, end], ...], ...} as NAB's `combined_windows.json`

Times are written as in a time column (`time_column.py`); both ends belong to the stretch. Labels that do not
match the data (no stretch meets any row) are an error, because everything would count as a false alarm.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.errors import DataError
from edge_rnn.files import time_column
from edge_rnn.files.time_column import BadTimeError

__all__ = ["Windows", "flags", "read_windows"]

Windows = list[tuple[int, int]]
"""Stretches as (first, last) nanoseconds since 1970 UTC, both inclusive, in order of their starts."""

_STARTS = ("start", "begin", "from", "start_time", "anomaly_start")
_ENDS = ("end", "stop", "to", "end_time", "anomaly_end")
_FLAGS = ("anomaly", "label", "labels", "is_anomaly", "anomalies")
_TRUE, _FALSE = frozenset({"1", "1.0", "true", "yes"}), frozenset({"0", "0.0", "false", "no", ""})
_LARGEST = 64 << 20


def read_windows(path: str | Path, data: str | Path) -> Windows:
    """The labelled stretches of a file.

    Args:
        path: the CSV or JSON file.
        data: the recorded data they belong to; its name chooses among several in a JSON file.

    Raises:
        DataError: not such a file; one line with file, place, expected and got.
    """
    file = Path(path)
    try:
        if file.stat().st_size > _LARGEST:
            raise DataError(f"{file.name}: more than {_LARGEST >> 20} MB of labels; is this the data itself?")
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DataError(f"{file.name}: expected UTF-8 text, a CSV or a JSON file with labels") from None
    if file.suffix.lower() == ".json" or text.lstrip()[:1] in ("[", "{"):
        return _json(file, text, Path(data))
    return _csv(file, text)


def flags(windows: Windows, times_ns: NDArray[np.int64], name: str) -> tuple[NDArray[np.bool_], int]:
    """(T,) bool: the row lies in a stretch; and how many stretches meet no row.

    Raises:
        DataError: there are stretches and none meets a row.
    """
    labels = np.zeros(len(times_ns), np.bool_)
    outside = 0
    for start, end in windows:
        inside = (times_ns >= start) & (times_ns <= end)
        outside += not inside.any()
        labels |= inside
    if windows and outside == len(windows):
        raise DataError(
            f"{name}: none of its {len(windows)} stretch(es), {_text(windows[0][0])} to "
            f"{_text(windows[-1][1])}, meets a row of the data, {_text(int(times_ns.min()))} to "
            f"{_text(int(times_ns.max()))}; "
            "check that they belong together, and the time zones"
        )
    return labels, outside


def _text(time_ns: int) -> str:
    return f"{np.datetime64(time_ns, 'ns').astype('M8[s]')}Z"


def _csv(file: Path, text: str) -> Windows:
    try:
        first = text.partition("\n")[0]
        delimiter = max(",;\t|", key=first.count)
        rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter, strict=True) if row]
    except csv.Error as error:
        raise DataError(f"{file.name}: not a CSV file: {error}") from None
    names = [name.strip().casefold() for name in rows[0]] if rows else []
    start, end = (next((names.index(n) for n in among if n in names), None) for among in (_STARTS, _ENDS))
    if start is None or end is None:
        return _flagged(file, names, rows[1:])
    cells: list[tuple[str, str]] = []
    for line, row in enumerate(rows[1:], 2):
        if len(row) <= max(start, end):
            raise DataError(f"{file.name}, line {line}: expected {len(names)} columns, got {len(row)}")
        cells.append((row[start], row[end]))
    return _stretches(file, cells, "line", 2)


def _flagged(file: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> Windows:
    """A table of times and 0/1: every stretch of ones, from its first row to its last."""
    column = next((names.index(n) for n in _FLAGS if n in names), None)
    times = [
        i
        for i in range(len(names))
        if i != column and rows and time_column.guess([r[i] for r in rows[:9] if i < len(r)])
    ]
    if column is None or not times:
        raise DataError(
            f"{file.name}: expected columns start and end, or a time column and one named anomaly or label, "
            f"got {', '.join(names[:20]) or 'an empty file'}"
        )
    found: list[tuple[str, str]] = []
    open_before = False
    for line, row in enumerate(rows, 2):
        if len(row) <= max(column, times[0]):
            raise DataError(f"{file.name}, line {line}: expected {len(names)} columns, got {len(row)}")
        text = row[column].strip().casefold()
        if text not in _TRUE and text not in _FALSE:
            raise DataError(
                f"{file.name}, line {line}, column {names[column]!r}: expected 0 or 1, got "
                f"{row[column][:40]!r}"
            )
        on = text in _TRUE
        if on:
            found.append((found.pop()[0] if open_before else row[times[0]], row[times[0]]))
        open_before = on
    return _stretches(file, found, "labelled stretch", 1)


def _json(file: Path, text: str, data: Path) -> Windows:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file.name}: not JSON: {error}") from None
    if isinstance(document, dict):
        document = _of_file(file, document, data)
    if not isinstance(document, list):
        raise DataError(f"{file.name}: expected a list of [start, end], got {type(document).__name__}")
    return _stretches(file, [_pair(file, i, entry) for i, entry in enumerate(document)], "stretch", 0)


def _of_file(file: Path, document: dict[str, Any], data: Path) -> Any:
    """The entry whose key is the data's path, or as much of its end as the key has."""
    parts = data.parts
    best = [key for key in document if parts[-len(PurePosixPath(key).parts) :] == PurePosixPath(key).parts]
    if not best:
        shown = ", ".join(list(document)[:5]) + (", ..." if len(document) > 5 else "")
        raise DataError(
            f"{file.name}: no entry for {data.name}; expected its name as a key, got {shown or 'none'}"
        )
    return document[max(best, key=len)]


def _pair(file: Path, number: int, entry: Any) -> tuple[str, str]:
    where = f"{file.name}, stretch {number}"
    if isinstance(entry, dict):
        keys = {str(key).casefold(): value for key, value in entry.items()}
        found = [next((keys[n] for n in among if n in keys), None) for among in (_STARTS, _ENDS)]
    elif isinstance(entry, list) and len(entry) == 2:
        found = entry
    else:
        found = [None]
    if len(found) != 2 or not all(
        isinstance(v, str | int | float) and not isinstance(v, bool) for v in found
    ):
        raise DataError(f"{where}: expected [start, end] or an object with start and end, got {entry!r:.50}")
    return str(found[0]), str(found[1])


def _stretches(file: Path, cells: Sequence[tuple[str, str]], what: str, first: int) -> Windows:
    if not cells:
        return []
    flat = [cell for pair in cells for cell in pair]
    form = time_column.guess(flat) or time_column.guess(flat[:1])
    if form is None:
        got = next((c for c in flat if c.strip()), "")
        raise DataError(f"{file.name}: not times: expected {time_column.ACCEPTED}, got {got[:40]!r}")
    try:
        times = time_column.parse(flat, form).reshape(-1, 2)
    except BadTimeError as error:
        raise DataError(f"{file.name}, {what} {first + error.row // 2}: {error}") from None
    back = np.flatnonzero(times[:, 1] < times[:, 0])
    if back.size:
        raise DataError(
            f"{file.name}, {what} {first + int(back[0])}: the end {_text(int(times[back[0], 1]))} lies "
            f"before the start {_text(int(times[back[0], 0]))}"
        )
    return sorted((int(a), int(b)) for a, b in times.tolist())
