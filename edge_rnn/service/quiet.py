"""What operators have said about alarms: acknowledged events, and streams that are muted for a time.

A mute covers one stream, all streams of a group (`pumps`), or all (`*`). While it lasts, events of its
streams are kept in the history but told to nobody; scores and states go on. When it ends, what opened
meanwhile and is still open is told, as an opening; what opened and closed meanwhile is not. Of an event
that had been told before the mute, the newest change is told, its end above all. An acknowledged event is
told to MQTT as before, but no more to sinks, until it closes.

Times are the wall clock's, given by the caller. `text` and `load` carry all of it over a restart, the events
held back too: the text goes into the commit that puts the same events into the history.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec

from edge_rnn.service.store_rows import event_fields, event_of
from edge_rnn.stream.types import Event

MAX_ENTRIES = 1000
ALL = "*"


class Quiet:
    """See the module."""

    def __init__(self) -> None:
        self.mutes: dict[str, int] = {}
        self.acknowledged: dict[str, None] = {}
        self.changed = False
        self._held: dict[str, Event] = {}
        # Nobody has been told that these have opened.
        self._untold: set[str] = set()
        self._text = ""

    def acknowledge(self, event_id: str) -> None:
        """Sinks hear no more of this event."""
        self.acknowledged[event_id] = None
        while len(self.acknowledged) > MAX_ENTRIES:
            del self.acknowledged[next(iter(self.acknowledged))]
        self.changed = True

    def mute(self, stream: str, until_ns: int) -> None:
        """Tell nothing of this stream (or group, or all) until then.

        Raises:
            ValueError: too many are muted already.
        """
        if stream not in self.mutes and len(self.mutes) >= MAX_ENTRIES:
            raise ValueError(f"expected at most {MAX_ENTRIES} mutes, got one more")
        self.mutes[stream] = until_ns
        self.changed = True

    def unmute(self, stream: str) -> bool:
        """End a mute before its time; whether there was one. What it held back comes with the next `due`."""
        self.changed = True
        return self.mutes.pop(stream, None) is not None

    def is_muted(self, stream: str, now_ns: int) -> bool:
        """Whether nothing of this stream is told now."""
        if not self.mutes:
            return False
        names = (stream, stream.split("/", 1)[0], ALL)
        return any(self.mutes.get(name, 0) > now_ns for name in names)

    def allows(self, event: Event, now_ns: int) -> bool:
        """Whether an event may be told; one that may not is held back, or forgotten."""
        untold = event.id in self._untold
        if event.type == "close":
            self._forget(event.id)
            if untold:
                self._untold.discard(event.id)
                self._release(event.id)
                return False
        if not untold and not self.is_muted(event.stream, now_ns):
            self._release(event.id)
            return True
        if event.id in self._held or len(self._held) < MAX_ENTRIES:
            self._held[event.id] = event
            self.changed = True
            if event.type == "open":
                self._untold.add(event.id)
        return False

    def wakes(self, event: Event) -> bool:
        """Whether sinks may hear of an event that is told."""
        return event.id not in self.acknowledged

    def due(self, now_ns: int) -> list[Event]:
        """The newest message about each event held back whose mute has ended."""
        ended = [name for name, until_ns in self.mutes.items() if until_ns <= now_ns]
        for name in ended:
            del self.mutes[name]
        self.changed = self.changed or bool(ended)
        told: list[Event] = []
        for event in list(self._held.values()):
            if not self.is_muted(event.stream, now_ns):
                self._release(event.id)
                untold = event.id in self._untold
                self._untold.discard(event.id)
                told.append(dataclasses.replace(event, type="open") if untold else event)
        return told

    def text(self) -> str:
        """All that must survive a restart; made anew where something has changed."""
        if self.changed or not self._text:
            held = [event_fields(event) for event in self._held.values()]
            saved = _Saved(self.mutes, list(self.acknowledged), held, sorted(self._untold))
            self._text = msgspec.json.encode(saved).decode()
        return self._text

    def load(self, text: str) -> None:
        """What `text` gave; anything else changes nothing."""
        try:
            found: Any = msgspec.json.decode(text, type=_Saved)
        except (msgspec.DecodeError, ValueError):
            return
        self.mutes = dict(list(found.mutes.items())[:MAX_ENTRIES])
        self.acknowledged = dict.fromkeys(found.acknowledged[:MAX_ENTRIES])
        held = [event_of(fields) for fields in found.held[:MAX_ENTRIES]]
        self._held = {event.id: event for event in held if event is not None}
        self._untold = {name for name in found.untold if name in self._held}
        self._text = ""

    def _release(self, event_id: str) -> None:
        self.changed = self._held.pop(event_id, None) is not None or self.changed

    def _forget(self, event_id: str) -> None:
        if event_id in self.acknowledged:
            del self.acknowledged[event_id]
            self.changed = True


class _Saved(msgspec.Struct):
    mutes: Mapping[str, int]
    acknowledged: list[str]
    held: list[tuple[str, str, str, int, int, int | None, str]] = []
    untold: list[str] = []
