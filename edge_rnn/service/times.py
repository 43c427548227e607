"""Event times in payloads, to integer nanoseconds since 1970 UTC.

With unit `auto` the size of each value says its unit (the ranges do not overlap: seconds until the year 5138,
milliseconds from 1973, and so on). Nothing is remembered from one value to the next, so a broken clock cannot
change what another sender's times mean, and a restart reads the same. A float is rounded to the microsecond,
because a float64 of today's date in seconds holds no more; integers and ISO 8601 text are exact.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone

from edge_rnn.errors import DecodeError
from edge_rnn.files.config_types import TimeUnit

_NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_SMALLEST: dict[str, float] = {"s": 1e8, "ms": 1e11, "us": 1e14, "ns": 1e17}
_LIMIT = 2**63
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9})[0-9]*)?)?"
    r" ?(Z|z|[+-][0-9]{2}:?[0-9]{2})?"
)


def iso_to_ns(text: str) -> int:
    """ISO 8601 date and time to ns since 1970; UTC where it has no offset; `DecodeError` if unfit."""
    match = _ISO.fullmatch(text)
    if match is None:
        raise DecodeError(f"time: expected ISO 8601 such as 2026-01-31T12:00:00Z, got {text[:40]!r}")
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    zone = UTC
    try:
        if offset and offset not in "Zz":
            minutes = int(offset[1:3]) * 60 + int(offset[-2:])
            zone = timezone(timedelta(minutes=minutes if offset[0] == "+" else -minutes))
        moment = datetime(
            int(year), int(month), int(day), int(hour), int(minute), int(second or 0), tzinfo=zone
        )
        whole = moment - _EPOCH
    except (ValueError, OverflowError) as error:
        raise DecodeError(f"time: no such moment {text[:40]!r} ({error})") from None
    return (whole.days * 86_400 + whole.seconds) * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))


class TimeReader:
    """Values of one route's time field to ns; `unit` is the configured one."""

    __slots__ = ("unit",)

    def __init__(self, unit: TimeUnit = "auto") -> None:
        self.unit: TimeUnit = unit

    def read(self, value: object) -> int:
        """Nanoseconds since 1970 for a number or ISO 8601 text; `DecodeError` for anything else."""
        if type(value) is str:
            if self.unit not in ("auto", "iso8601"):
                raise DecodeError(f"time: expected a number in {self.unit}, got text {value[:40]!r}")
            moment = iso_to_ns(value)
        elif type(value) is int and not -_LIMIT < value < _LIMIT:
            raise DecodeError("time: expected a moment from 1970 to 2262")
        elif type(value) is int or type(value) is float:
            moment = _scale(value, _NANOSECONDS[self._unit(value)])
        else:
            raise DecodeError(f"time: expected a number or ISO 8601 text, got {type(value).__name__}")
        if not 0 <= moment < _LIMIT:
            raise DecodeError("time: expected a moment from 1970 to 2262")
        return moment

    def _unit(self, value: float) -> TimeUnit:
        if not math.isfinite(value):
            raise DecodeError(f"time: expected a finite number, got {value}")
        if self.unit == "iso8601":
            raise DecodeError(f"time: expected ISO 8601 text, got {value!r:.40}")
        if self.unit != "auto":
            return self.unit
        found: TimeUnit | None = None
        for unit in ("s", "ms", "us", "ns"):
            if value >= _SMALLEST[unit]:
                found = unit
        if found is None:
            raise DecodeError(
                f"time: cannot tell the unit of {value!r:.40}; set time.unit to s, ms, us or ns"
            )
        return found


def _scale(value: float, factor: int) -> int:
    if type(value) is int:
        return value * factor
    whole = int(value)
    return whole * factor + round((value - whole) * factor / 1000) * 1000
