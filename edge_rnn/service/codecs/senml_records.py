"""SenML records (RFC 8428) resolved: base fields applied, names whole, times absolute.

A pack is an array of records. Base name, base time and base value hold from the record that sets them on; a
record's name, time and number are its own on top of them (section 4.6). A time below 2**28 is relative to the
arrival (section 4.5.3). CBOR packs have small integers as labels (section 6). A field that ends in `_` must
be understood (section 4.4), so a pack with one is refused; so is a version above 10.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from edge_rnn.errors import DecodeError
from edge_rnn.service.codecs.values import as_number, kind_of

VERSION = 10
_RELATIVE = 2**28
_SECOND = 10**9
_LONGEST = 2**63 / _SECOND
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*")
_LABELS: Mapping[object, str] = {
    -1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs", 0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb",
    5: "s", 6: "t", 7: "ut", 8: "vd",
}  # fmt: skip
_VALUES = ("v", "vs", "vb", "vd")


class Record(NamedTuple):
    """One resolved record; `value` is whatever stands there, None if it has none but a sum."""

    base: str
    name: str
    time_ns: int
    value: object


def resolve(pack: object, arrival_ns: int) -> Iterator[Record]:
    """The records of a parsed pack, in its order; `DecodeError` where it breaks a rule of the RFC."""
    if type(pack) is not list:
        raise DecodeError(f"expected a SenML pack (an array of records), got {kind_of(pack)}")
    base_name, base_time, base_value = "", 0.0, 0.0
    has_base = False
    for raw in pack:
        if not isinstance(raw, dict):
            raise DecodeError(f"expected SenML records (objects), got {kind_of(raw)}")
        record = {_LABELS.get(label, label) if type(label) is int else label: raw[label] for label in raw}
        for label in record:
            if type(label) is str and label.endswith("_"):
                raise DecodeError(f"expected no field that must be understood, got {label[:20]!a}")
        if as_number(record.get("bver", VERSION), "bver") > VERSION:
            raise DecodeError(f"bver: expected a SenML version of at most {VERSION}")
        base_name = _text(record, "bn", base_name)
        base_time = _time(record, "bt", base_time)
        if "bv" in record:
            base_value, has_base = as_number(record["bv"], "bv"), True
        name = base_name + _text(record, "n", "")
        if not _NAME.fullmatch(name):
            raise DecodeError(f"expected a SenML name (letters, digits, - : . / _), got {name[:40]!a}")
        present = [label for label in _VALUES if label in record]
        if len(present) > 1:
            raise DecodeError(f"{name[:40]}: expected one value, got {' and '.join(present)}")
        value = record[present[0]] if present else None
        if has_base and (value is None or present[0] == "v") and ("s" not in record or value is not None):
            # Section 4.6: the base value is added; a record without a value then has the base value itself.
            value = as_number(0.0 if value is None else value, name[:40]) + base_value
        time_ns = _moment(base_time, _time(record, "t", 0.0), arrival_ns)
        yield Record(base_name, name, time_ns, value)


def _text(record: Mapping[object, object], label: str, default: str) -> str:
    value = record.get(label, default)
    if type(value) is not str:
        raise DecodeError(f"{label}: expected text, got {kind_of(value)}")
    return value


def _time(record: Mapping[object, object], label: str, default: float) -> float:
    """Seconds; whole ones stay integers, because a float of today's date has no nanoseconds."""
    value = record.get(label, default)
    if type(value) is int and abs(value) < 2**40:
        return value
    number = as_number(value, label)
    if not abs(number) < _LONGEST:
        raise DecodeError(f"{label}: expected seconds from 1970 to 2262 or relative to now")
    return number


def _moment(base: float, own: float, arrival_ns: int) -> int:
    # Whole and broken parts apart: their float sum would round a broken time to a quarter of a microsecond.
    whole = int(base) + int(own)
    rest = (base - int(base)) + (own - int(own))
    moment = whole * _SECOND + round(rest * 1_000_000) * 1000
    if base + own < _RELATIVE:
        moment += arrival_ns
    if not 0 <= moment < 2**63:
        raise DecodeError("time: expected a moment from 1970 to 2262")
    return moment
