"""How the payloads of one `[[stream]]` are read: formats and the keys that only some of them have."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from edge_rnn.files.config_types import (
    TIME_UNITS,
    ChannelConfig,
    PayloadFormat,
    SequenceConfig,
    TimeConfig,
)
from edge_rnn.files.config_walk import Table
from edge_rnn.files.presets import Preset

STEP = r"[^.\[\]\"]+"
INDEX = r"\[[0-9]{1,6}\]|\[\"[^\"]+\"\]"
PATH: Final = rf"\$|(?:\$\.)?(?:{STEP}|{INDEX})(?:{INDEX}|\.{STEP})*"
DOCUMENTS: Final = ("json", "msgpack", "cbor")
NAMED: Final = ("senml", "senml-cbor", "sparkplug")
COLUMNS: Final = ("csv", "binary")
_LAYOUT: Final = r"[<>!](?:[0-9]{0,4}[bBhHiIlLqQefdx])+"
# What each format needs beyond this package: the module, and the extra that brings it.
_NEEDS: Final = {
    "cbor": ("cbor2", "cbor"), "senml-cbor": ("cbor2", "cbor"), "sparkplug": ("google.protobuf", "sparkplug"),
}  # fmt: skip
PATH_HELP: Final = 'a path in the payload such as "rms" or "sensors.temp[0]"'


def need(table: Table, payload: PayloadFormat) -> None:
    """Note a format whose package is not installed."""
    if payload in _NEEDS:
        module, extra = _NEEDS[payload]
        package, _, inner = module.partition(".")
        if find_spec(package) is None or (inner and find_spec(module) is None):
            table.note(
                "format", f"\"{payload}\" needs a package; install it: pip install 'edge-rnn[{extra}]'"
            )


def only(table: Table, key: str, payload: PayloadFormat, formats: Sequence[str]) -> bool:
    """Whether the key is there and may be; if it may not, that is noted."""
    if not table.has(key):
        return False
    if payload not in formats:
        allowed = " or ".join(f'"{name}"' for name in formats)
        table.note(key, f'expected only with format = {allowed}, got it with "{payload}"')
        return False
    return True


def each_of(table: Table, payload: PayloadFormat) -> str | None:
    """`each`: where several readings of a payload are."""
    if not only(table, "each", payload, (*DOCUMENTS, *COLUMNS)):
        return None
    if payload in DOCUMENTS:
        what = 'the path of an array in the payload ("$" is all of it)'
        return table.text("each", None, what=what, pattern=PATH)
    word = "lines" if payload == "csv" else "records"
    return table.text("each", None, what=f'"{word}"', pattern=word)


def key_of(table: Table, payload: PayloadFormat, preset: Preset) -> tuple[str, ...]:
    """`key`: what names the sender in the payload."""
    default = preset.key if payload in DOCUMENTS else ()
    if not only(table, "key", payload, (*DOCUMENTS, "senml", "senml-cbor")):
        return default
    if payload in DOCUMENTS:
        return table.texts("key", default, what='paths in the payload such as "model"', pattern=PATH)
    return table.texts("key", default, what='"bn", the base name', pattern="bn")


def partial_of(table: Table, payload: PayloadFormat, preset: Preset) -> bool:
    """`partial`: whether other payloads are no readings."""
    if not only(table, "partial", payload, (*DOCUMENTS, "senml", "senml-cbor")):
        return preset.partial
    return table.boolean("partial", preset.partial)


def rebirth_of(table: Table, payload: PayloadFormat) -> bool:
    """`rebirth`: whether Sparkplug nodes are asked for their births."""
    return not only(table, "rebirth", payload, ("sparkplug",)) or table.boolean("rebirth", default=True)


def layout_of(table: Table, payload: PayloadFormat, channels: Sequence[ChannelConfig]) -> str | None:
    """`layout`: how a binary payload is packed."""
    if payload == "binary":
        table.required("layout", 'the numbers of a payload, such as "<Ihhf"')
    if not only(table, "layout", payload, ("binary",)):
        return None
    what = 'a byte order and numbers of b B h H i I l L q Q e f d, x for a filler byte, such as "<Ihhf"'
    layout = table.text("layout", None, what=what, pattern=_LAYOUT)
    if layout is None:
        return None
    size = struct.calcsize(layout)
    count = len(struct.unpack(layout, bytes(size))) if size <= 1 << 20 else 0
    most = max((channel.column or 0 for channel in channels), default=0)
    if not count:
        table.note("layout", f"expected at least one number and at most 1 MiB, got {size} bytes")
    elif most >= count:
        table.note(
            "layout", f"expected at least {most + 1} numbers, as there is a column {most}; got {count}"
        )
    return layout


def time_of(table: Table, payload: PayloadFormat, preset: Preset) -> TimeConfig | None:
    """`time`: where a payload holds its event time."""
    inner = table.table("time", "{ column = 0 }" if payload in COLUMNS else '{ path = "ts" }')
    if inner is None:
        return preset.time if payload in DOCUMENTS else None
    if payload == "number":
        table.note("time", 'a plain number has no time; leave it out, or use format = "json"')
    if payload in NAMED:
        table.note("time", f'"{payload}" carries its own times; leave it out')
    path, column = _place(inner, payload, "the time")
    config = TimeConfig(path=path, column=column, unit=inner.choice("unit", "auto", TIME_UNITS))
    inner.close()
    return config


def sequence_of(table: Table, payload: PayloadFormat) -> SequenceConfig | None:
    """`sequence`: where a payload holds its number."""
    inner = table.table("sequence", "{ column = 1 }" if payload in COLUMNS else '{ path = "n" }')
    if inner is None:
        return None
    if payload not in (*DOCUMENTS, *COLUMNS):
        table.note("sequence", f'"{payload}" has no place for a number of one\'s own; leave it out')
        return None
    path, column = _place(inner, payload, "a whole number, one higher with every reading")
    config = SequenceConfig(path=path, column=column)
    inner.close()
    return config


def _place(table: Table, payload: PayloadFormat, content: str) -> tuple[str | None, int | None]:
    """Path and column of `content` in a payload, the one of them that its format has."""
    columns = payload in COLUMNS
    key, other, what = ("column", "path", "a column") if columns else ("path", "column", "a path")
    table.required(key, f"{what} that holds {content}")
    table.forbid(other, f'expected only with format = "{"json" if columns else "csv"}"')
    if columns:
        return None, table.integer("column", None, 0, 100_000)
    return table.text("path", None, what=PATH_HELP, pattern=PATH), None


def clock_limit_of(table: Table, *, timed: bool) -> int:
    """`clock_limit`, 0 where readings have no time of their own."""
    limit = table.duration("clock_limit", 600 * 10**9, 0)
    if table.has("clock_limit") and limit and not timed:
        table.note("clock_limit", "expected only where readings carry a time of their own; name it in `time`")
    return limit if timed else 0
