"""Cells of a recorded table: text to numbers and labels, and what counts as missing."""

from __future__ import annotations

import math

__all__ = ["label", "number"]

_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none"})
_TRUE, _FALSE = frozenset({"1", "true", "yes"}), frozenset({"0", "false", "no"})


def number(cell: str) -> float | None:
    """The cell as a float, NaN where it is missing, None where it is not a number."""
    text = cell.strip()
    if text.lower() in _MISSING:
        return math.nan
    if not text.isascii() or "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def label(cell: str) -> bool | None:
    """The cell as a label, None where it is neither 0 nor 1, true nor false, yes nor no."""
    text = cell.strip().lower()
    value = number(text)
    if text in _TRUE or value == 1:
        return True
    if text in _FALSE or value == 0:
        return False
    return None
