"""Lines on stderr: one an event, as text or as JSON.

    2026-01-31T12:00:00.123Z warning decode: 3 payloads refused, ... stream=press

A line never holds a control character (they are escaped), so nothing from a payload or a topic can start a
new line or move a terminal's cursor; secrets are `Secret` values, which print as ***. What can happen once a
message goes through `limited`: the first of its kind is written and says that repeats are summed up; then
comes at most one a minute, the latest, with the number of those since the line before. `sum_up`, which the
daemon calls once a second, writes what is due, so that the last ones of a burst are told too.
"""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Literal, TextIO, get_args

from edge_rnn.service.clock import Clock

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)
_REPEAT_S = 60.0
REPEATS = "repeats are summed up once a minute"
_MAX_KINDS = 1000
_MAX_TEXT = 2000


def printable(text: str) -> str:
    """`text` with every control or unprintable character escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class _Kind:
    """One kind of rate-limited line: when it was last written, what came since, and the latest of that."""

    __slots__ = ("fields", "level", "since", "text", "written")

    def __init__(self, written: float) -> None:
        self.written = written
        self.since = 0
        self.level: Level = "info"
        self.text = ""
        self.fields: dict[str, object] = {}


class Log:
    """Writes lines of at least `level`; a stream that cannot be written never disturbs the daemon."""

    __slots__ = ("_clock", "_json", "_kinds", "_least", "_stream")

    def __init__(
        self,
        level: Level = "info",
        format_: Literal["text", "json"] = "text",
        stream: TextIO | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._stream = stream
        self._clock = clock or Clock()
        self._kinds: OrderedDict[tuple[str, str], _Kind] = OrderedDict()
        self.configure(level, format_)

    def configure(self, level: Level, format_: Literal["text", "json"]) -> None:
        """Change level and format, e.g. after a reload."""
        self._least = LEVELS.index(level)
        self._json = format_ == "json"

    def debug(self, event: str, text: str, **fields: object) -> None:
        """What only someone looking for a fault wants to see."""
        self._write("debug", event, text, fields)

    def info(self, event: str, text: str, **fields: object) -> None:
        """What an operator wants to see: starts, connections, commits gone well again."""
        self._write("info", event, text, fields)

    def warning(self, event: str, text: str, **fields: object) -> None:
        """Something is not as it should be, and the daemon goes on."""
        self._write("warning", event, text, fields)

    def error(self, event: str, text: str, **fields: object) -> None:
        """Something does not work until somebody acts."""
        self._write("error", event, text, fields)

    def limited(
        self, level: Level, event: str, kind: str, text: str, *, repeats: str = REPEATS, **fields: object
    ) -> None:
        """The first line of (event, kind) with `repeats` at its end, then at most one a minute."""
        now = self._clock.monotonic()
        known = self._kinds.get((event, kind))
        if known is None:
            self._kinds[event, kind] = _Kind(now)
            if len(self._kinds) > _MAX_KINDS:
                self._kinds.popitem(last=False)
            self._write(level, event, f"{text} ({repeats})", fields)
            return
        known.since += 1
        known.level, known.text, known.fields = level, text, fields
        if now - known.written >= _REPEAT_S:
            self._sum_up(event, known, now)
        self._kinds.move_to_end((event, kind))

    def sum_up(self) -> None:
        """Write the kinds that came again and whose last line is a minute old."""
        now = self._clock.monotonic()
        # A copy: a backup's thread may have a line of its own.
        for (event, _), known in list(self._kinds.items()):
            if known.since and now - known.written >= _REPEAT_S:
                self._sum_up(event, known, now)

    def settled(self, event: str, kind: str) -> None:
        """Forget a kind whose cause is gone: its repeats are not told any more, the next one is a first."""
        self._kinds.pop((event, kind), None)

    def _sum_up(self, event: str, known: _Kind, now: float) -> None:
        self._write(known.level, event, f"{known.text} ({known.since} more since)", known.fields)
        known.written, known.since = now, 0

    def _write(self, level: Level, event: str, text: str, fields: dict[str, object]) -> None:
        if LEVELS.index(level) < self._least:
            return
        moment = datetime.fromtimestamp(self._clock.wall_ns() // 1_000_000 / 1000, UTC)
        stamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        shown = {key: _plain(value) for key, value in fields.items()}
        if self._json:
            record = {"time": stamp, "level": level, "event": event, "text": _plain(text), **shown}
            # ASCII but for DEL, which JSON lets through.
            line = json.dumps(record).replace("\x7f", "\\u007f")
        else:
            line = f"{stamp} {level} {event}: {_plain(text)}"
            line = printable(line + "".join(f" {key}={value}" for key, value in shown.items()))
        stream = self._stream or sys.stderr
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):
            pass  # A closed or full stderr must not end the daemon, and there is nowhere left to say so.


def _plain(value: object) -> str | int | float | bool | None:
    """A value as JSON knows it; all else, secrets among them, as its own text, cut to a sane length."""
    if value is None or isinstance(value, int | float):
        return value
    text = str(value)
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "..."
