"""Connected, but nothing arrives: the daemon's own silence is noticed, told and acted on.

A daemon is blind when it is connected and has heard nothing for `AFTER` health intervals. Then it subscribes
again (a broker may have forgotten it), and if that does not help, connects anew (the connection may be dead
on its way here); both is `Connection.renew`. It makes an event of its own (stream "", kind `silent`), which
goes where the events of streams go: the history, `<base>/event`, sinks, unless all streams are muted.
"""

from __future__ import annotations

import math

from edge_rnn.service.intake import Intake
from edge_rnn.service.running import Running
from edge_rnn.stream.events import event_id
from edge_rnn.stream.types import Event

AFTER = 5


class Blind:
    """See the module."""

    def __init__(self, running: Running, intake: Intake) -> None:
        self._running = running
        self._intake = intake
        self._online = running.clock.monotonic()
        self._was = False
        self._since_ns = 0
        self._renew_at = 0.0

    def connected(self) -> None:
        """A new connection."""
        self._online = self._running.clock.monotonic()

    @property
    def limit_s(self) -> float:
        """So long without a message is blind; 0: never."""
        return AFTER * self._running.pipeline.config.health.every_ns / 1e9

    @property
    def open_id(self) -> str:
        """The id of the event that is open, or empty."""
        return event_id("", "silent", self._since_ns) if self._was else ""

    def is_now(self, now: float) -> bool:
        """Whether it is blind at this monotonic moment."""
        quiet = now - max(self._intake.heard, self._online)
        return self._running.link.connected and quiet > self.limit_s > 0

    def look(self, now: float) -> None:
        """Act on it; say once that it begins and once that it ends; the end of a connection says itself."""
        running, blind, was = self._running, self.is_now(now), self._was
        if blind and now >= self._renew_at:
            self._renew_at = now + self.limit_s
            running.link.renew("connected, but nothing arrives")
        if blind == was:
            return
        self._was = blind
        self._tell(blind=blind)
        if blind:
            data = [name for name in running.pipeline.filters if name not in running.outlets.topics]
            running.journal.warning(
                "blind", f"connected, but nothing has arrived for {self.limit_s:g} s; "
                "check the senders, the topics of the configuration and the broker's access rules",
                topics=", ".join(data),
            )  # fmt: skip
        elif running.link.connected:
            running.journal.info("blind", "messages arrive again")

    def _tell(self, *, blind: bool) -> None:
        now = self._running.arrival.next_ns()
        if blind:
            self._since_ns = now
        event = Event(
            type="open" if blind else "close", id=event_id("", "silent", self._since_ns), stream="",
            kind="silent", start_ns=self._since_ns, time_ns=now, end_ns=None if blind else now,
            score=math.nan, threshold=math.nan, peak=math.nan, peak_ns=self._since_ns, shares=(),
        )  # fmt: skip
        self._intake.tell(event, own=True)
