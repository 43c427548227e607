"""Events in the shape that Frigate made usual: what was before, what is after, start and end time.

    {"type": "new" | "update" | "end", "before": {...} or null, "after": {...}}

`before` is what the message before about the same event had as `after`; null with the first one that this
process sends about it (so after a restart, too). Times are seconds since 1970; `end_time` is null while the
event is open.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from edge_rnn.stream.types import Event

_TYPES: Final = {"open": "new", "update": "update", "close": "end"}
_MOST_OPEN: Final = 10_000


class BeforeAfter:
    """Remembers the last message about each open event."""

    def __init__(self) -> None:
        self._last: dict[str, dict[str, Any]] = {}

    def payload(self, event: Event) -> bytes:
        """The message of an event."""
        after = {
            "id": event.id,
            "stream": event.stream,
            "kind": event.kind,
            "start_time": event.start_ns / 1e9,
            "end_time": None if event.end_ns is None else event.end_ns / 1e9,
            "time": event.time_ns / 1e9,
            "score": _finite(event.score),
            "threshold": _finite(event.threshold),
            "peak_score": _finite(event.peak),
            "peak_time": event.peak_ns / 1e9,
            "shares": {name: _finite(share) for name, share in event.shares},
        }
        before = self._last.pop(event.id, None)
        if event.type != "close":
            if len(self._last) >= _MOST_OPEN:
                del self._last[next(iter(self._last))]
            self._last[event.id] = after
        return msgspec.json.encode({"type": _TYPES[event.type], "before": before, "after": after})


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
