"""What a decoder takes as a number. Everything else is a `DecodeError`, in words a person can act on.

Text is ASCII only: "1_000" or the digits of another script, which Python's float() would take, are refused.
"""

from __future__ import annotations

import re
from decimal import Decimal

from edge_rnn.errors import DecodeError

MAX_DIGITS = 64
BLANK = b" \t\r\n"
NUMBER = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SPELLED = re.compile(rb"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_KINDS = {
    "str": "text", "bool": "a boolean", "dict": "an object", "frozendict": "an object", "list": "an array",
    "tuple": "an array", "bytes": "bytes", "NoneType": "nothing",
}  # fmt: skip


def parse_number(text: bytes) -> float:
    """A plain ASCII number, or nan, inf, infinity in any case; `DecodeError` for anything else."""
    text = text.strip(BLANK)
    if len(text) > MAX_DIGITS:
        raise DecodeError(f"expected a number of at most {MAX_DIGITS} characters, got {len(text)}")
    if NUMBER.fullmatch(text):
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise DecodeError("expected a number that float64 can hold, got one that is too large")
        return value
    if _SPELLED.fullmatch(text):
        return float(text)
    raise DecodeError("expected a plain number such as -12.5e3" + (", got nothing" if not text else ""))


def as_number(value: object, name: str) -> float:
    """A number of a parsed document as float64; `name` is what it is called there."""
    if type(value) is float:
        return value
    if type(value) is int or type(value) is Decimal:
        try:
            number = float(value)
        except (OverflowError, ValueError):
            number = float("inf")
        # A decimal fraction may have any exponent; infinities and NaN of its own are no numbers a sender
        # means.
        if number - number != 0.0:
            raise DecodeError(f"{name}: expected a number that float64 can hold")
        return number
    raise DecodeError(f"{name}: expected a number, got {kind_of(value)}")


def kind_of(value: object) -> str:
    """What a value of a document is, in a word or two."""
    kind = type(value).__name__
    return _KINDS.get(kind, kind[:40])
