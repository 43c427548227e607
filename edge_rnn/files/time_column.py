"""Cells of a time column to integer nanoseconds since 1970 UTC.

The format is decided once, from the first cells, and then holds for the whole column: a later cell of
another format is an error with its row, never a new guess. Formats:

    ISO 8601        2024-05-01T10:00:00.25Z, 2024-05-01 10:00:00+02:00, 2024-05-01 10:00; without a zone
                    it is taken as UTC, and `TimeFormat.text` says so
    epoch           a number; its size tells the unit: below 1e11 seconds, below 1e14 milliseconds, below
                    1e17 microseconds, else nanoseconds (each covers 1973 to 5138, so they cannot meet)

Integers and decimal fractions are converted exactly, never through a float: at 1.7e9 seconds a float64
is only good to 2e-7 s, and two readings could fall on one time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["BadTimeError", "TimeFormat", "guess", "parse"]

ACCEPTED = "ISO 8601 (2024-05-01 10:00:00) or an epoch number in s, ms, us or ns"
_ISO = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?)?\s*(Z|z|UTC|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII,
)
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?", re.ASCII)
_UNITS: tuple[tuple[Literal["s", "ms", "us", "ns"], int, int], ...] = (
    ("s", 9, 10**11),
    ("ms", 6, 10**14),
    ("us", 3, 10**17),
    ("ns", 0, 2**63),
)
# int64 nanoseconds reach from 1677 to 2262.
_LIMIT_NS = 2**63 - 1
_SAMPLE = 100


class BadTimeError(ValueError):
    """A cell that is not a time of the decided format: `row` is its index, the text says why."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(why)
        self.row = row


@dataclass(frozen=True, slots=True)
class TimeFormat:
    """How a column's times are written; `digits`: decimal digits from its unit to nanoseconds."""

    kind: Literal["iso", "epoch"]
    digits: int
    zone: bool
    text: str


def guess(cells: Sequence[str]) -> TimeFormat | None:
    """The format of the first cells of a column, or None if they are not times at all."""
    first = [c.strip() for c in cells[:_SAMPLE] if c.strip()]
    if not first:
        return None
    if all(_NUMBER.fullmatch(c) for c in first):
        largest = max(abs(float(c)) for c in first)
        for unit, digits, limit in _UNITS:
            if largest < limit:
                return TimeFormat("epoch", digits, zone=True, text=f"epoch numbers in {unit}")
        return None
    matches = [_ISO.fullmatch(c) for c in first]
    if not all(matches):
        return None
    zone = any(m is not None and m[1] is not None for m in matches)
    return TimeFormat(
        "iso", 0, zone=zone, text="ISO 8601" if zone else "ISO 8601 without a zone, taken as UTC"
    )


def parse(cells: Sequence[str], form: TimeFormat, offset: int = 0) -> NDArray[np.int64]:
    """All cells as int64 (T,) nanoseconds since 1970 UTC.

    Raises:
        BadTimeError: a cell of another format or outside 1678-2261; its row counts from `offset`.
    """
    return _epoch(cells, form, offset) if form.kind == "epoch" else _iso(cells, form, offset)


def _epoch(cells: Sequence[str], form: TimeFormat, offset: int) -> NDArray[np.int64]:
    factor = 10**form.digits
    out = np.empty(len(cells), np.int64)
    for row, cell in enumerate(cells):
        text = cell.strip()
        if not _NUMBER.fullmatch(text):
            raise BadTimeError(offset + row, f"expected {form.text}, got {cell[:40]!r}")
        whole = text.removeprefix("-").removeprefix("+")
        if len(whole) < 20 and whole.isdigit():
            value = int(text) * factor
        else:
            try:
                exact = Decimal(text[:80])
                # Compared before it is scaled: 1e999999 would become an integer of a million digits.
                value = int(exact.scaleb(form.digits)) if abs(exact) < 2**63 else 2**63
            except (InvalidOperation, OverflowError):
                value = 2**63
        if abs(value) > _LIMIT_NS:
            raise BadTimeError(offset + row, f"{cell[:40]!r} in {form.text} is outside 1678 to 2261")
        out[row] = value
    return out


def _iso(cells: Sequence[str], form: TimeFormat, offset: int) -> NDArray[np.int64]:
    zones: dict[str, int] = {}
    bare: list[str] = []
    shift = np.zeros(len(cells), np.int64)
    fractions = False
    for row, cell in enumerate(cells):
        match = _ISO.fullmatch(cell.strip())
        if match is None:
            raise BadTimeError(offset + row, f"expected {form.text}, got {cell[:40]!r}")
        zone = match[1]
        if (zone is not None) != form.zone:
            expected = "with a zone" if form.zone else "without a zone"
            raise BadTimeError(
                offset + row, f"expected a time {expected} like the first ones, got {cell[:40]!r}"
            )
        text = match[0]
        if zone is not None:
            text = text[: match.start(1)].rstrip()
            if zone not in zones:
                zones[zone] = _zone_seconds(zone)
            shift[row] = zones[zone]
        fractions = fractions or len(text) > 19
        bare.append(text.replace(",", "."))
    texts = np.array(bare, dtype="U29")
    try:
        seconds = texts.astype("U19").astype("M8[s]").astype(np.int64)
    except ValueError:
        row = next(i for i, text in enumerate(bare) if not _is_date(text))
        raise BadTimeError(offset + row, f"there is no such date or time: {cells[row][:40]!r}") from None
    seconds -= shift
    out_of_range = np.flatnonzero(np.abs(seconds) >= _LIMIT_NS // 10**9)
    if out_of_range.size:
        row = int(out_of_range[0])
        raise BadTimeError(offset + row, f"{cells[row][:40]!r} is outside 1678 to 2261")
    times: NDArray[np.int64] = seconds * 10**9
    if fractions:
        digits = [text[20:].ljust(9, "0") if len(text) > 19 else "0" for text in bare]
        times += np.array(digits, dtype="U9").astype(np.int64)
    return times


def _zone_seconds(zone: str) -> int:
    if zone[0] not in "+-":
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    seconds = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return -seconds if zone[0] == "-" else seconds


def _is_date(text: str) -> bool:
    try:
        np.datetime64(text[:19], "s")
    except ValueError:
        return False
    return True
