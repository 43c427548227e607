"""Everything that hangs on the daemon beside scores: Home Assistant, command topic, sinks, record, mutes.

The daemon tells an `Outlets` what happens (a connection, a message, a change of state, an event, a second
that has passed, a commit) and publishes what it gets back. So the loop knows none of the parts, and a part
that is not configured costs nothing, not even its import.

A reload makes a new `Outlets` and hands it the old one's memory (`inherit`): mutes and acknowledgements go
on, devices that are no longer announced are removed, sinks and recorder finish what they have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn import __version__
from edge_rnn.files.config_types import Config
from edge_rnn.service.control import Actions, Control
from edge_rnn.service.event_shape import BeforeAfter
from edge_rnn.service.logs import Log
from edge_rnn.service.outputs import Publication
from edge_rnn.service.quiet import Quiet
from edge_rnn.stream.types import Event

if TYPE_CHECKING:
    from edge_rnn.service.homeassistant import Discovery
    from edge_rnn.service.record import Recorder
    from edge_rnn.service.sinks import Sink

# Positions in the store.
QUIET = "quiet"
ANNOUNCED = "homeassistant"

Publish = Callable[..., bool]
"""`Connection.publish`: (topic, payload, *, retain) -> whether it was taken."""


def filters(config: Config) -> dict[str, bool]:
    """Topics to subscribe beside the streams' own; what is retained there is not wanted."""
    wanted: dict[str, bool] = {}
    if config.homeassistant is not None:
        wanted[f"{config.homeassistant.prefix}/status"] = False
    if config.commands is not None:
        wanted[config.commands.topic] = False
    return wanted


class Outlets:
    """See the module; belongs to the daemon's thread.

    Args:
        models: per stream group its model's name and input names.
        positions: what the store remembers.
        actions: what commands can do to the daemon.

    Raises:
        ConfigError: the record's folder cannot be used.
    """

    def __init__(
        self,
        config: Config,
        models: Mapping[str, tuple[str, tuple[str, ...]]],
        positions: Mapping[str, str],
        actions: Actions,
        log: Log,
        wall_ns: Callable[[], int],
    ) -> None:
        self._log = log
        self._wall_ns = wall_ns
        self.topics = frozenset(filters(config))
        self._quiet = Quiet()
        self._quiet.load(positions.get(QUIET, ""))
        self._shape = BeforeAfter() if config.output.events == "before-after" else None
        announced = [topic for topic in positions.get(ANNOUNCED, "").split("\n") if topic]
        self._stale = [] if config.homeassistant is not None else announced
        self._discovery: Discovery | None = None
        if config.homeassistant is not None:
            from edge_rnn.service.homeassistant import Discovery

            groups = {name: model for name, (model, _) in models.items()}
            self._discovery = Discovery(
                config.homeassistant, config.output.base, groups, __version__, announced
            )
        self._topic = "" if config.commands is None else config.commands.topic
        self._control = Control(self._quiet, actions, wall_ns) if config.commands is not None else None
        self._recorder: Recorder | None = None
        if config.record is not None:
            from edge_rnn.service.record import Recorder

            names = {name: inputs for name, (_, inputs) in models.items()}
            self._recorder = Recorder(config.record, names, log)
        self._sinks: list[Sink] = []
        if config.sinks:
            from edge_rnn.service.sinks import Sink

            self._sinks = [Sink(sink, log) for sink in config.sinks]
        self._replies: list[Publication] = []
        self._dirty = False

    # ---- what the daemon tells

    def begin(self, after: Outlets | None = None) -> None:
        """Go to work; `after`: what has been at work in the same place, and is closed."""
        if self._recorder is not None:
            self._recorder.begin(None if after is None else after._recorder)

    def inherit(self, old: Outlets) -> None:
        """Go on with what another one knew, which is closed then; and only then go to work."""
        self._quiet.load(old._quiet.text())
        self._quiet.changed = True
        old.close()
        self.begin(old)

    def take(self, topic: str, payload: bytes, *, retained: bool) -> bool:
        """A message; whether it was for us (a stream may want it all the same)."""
        if self._control is not None and topic == self._topic:
            if not retained:
                reply, kind, line = self._control.take(payload)
                self._replies.append((f"{topic}/reply", reply))
                self._log.limited("info", "command", kind, line)
            return True
        if self._discovery is not None and topic == self._discovery.birth:
            if payload == self._discovery.online:
                self._discovery.again()
            return True
        return False

    def see(self, streams: Iterable[str]) -> None:
        """Streams that have a state."""
        if self._discovery is not None:
            for stream in streams:
                self._discovery.see(stream)

    def forget(self, stream: str) -> None:
        """A stream that has no state any more."""
        if self._discovery is not None:
            self._discovery.forget(stream)
        if self._recorder is not None:
            self._recorder.forget(stream)

    def tells(self, event: Event) -> bool:
        """Whether an event may be told now; see `quiet.py`."""
        return self._quiet.allows(event, self._wall_ns())

    def payload(self, event: Event, plain: bytes) -> bytes:
        """The event's message in the configured shape; sinks are given it, too."""
        body = plain if self._shape is None else self._shape.payload(event)
        if self._sinks and self._quiet.wakes(event):
            for sink in self._sinks:
                if sink.wants(event.type, event.stream):
                    sink.offer(body)
        return body

    def due(self) -> list[Event]:
        """Once a second: events whose mutes have ended, to be told now."""
        return self._quiet.due(self._wall_ns())

    def connected(self) -> None:
        """A new connection: the broker may have lost what it retained."""
        if self._discovery is not None:
            self._discovery.again()

    def reply(self, publish: Publish) -> None:
        """Once a turn: what commands are answered."""
        replies, self._replies = self._replies, []
        for topic, payload in replies:
            publish(topic, payload)

    def announce(self, publish: Publish) -> None:
        """Once a second, while connected: announcements that are due."""
        if self._stale:
            self._dirty = True
            self._stale = [topic for topic in self._stale if not publish(topic, b"", retain=True)]
        if self._discovery is not None:
            for topic, payload in self._discovery.due():
                self._dirty = True
                if not publish(topic, payload, retain=True):
                    self._discovery.again(topic)

    @property
    def tap(self) -> Callable[..., None] | None:
        """What the engine gives judged vectors to, or None: (streams, verdict records, values, present)."""
        return None if self._recorder is None else self._record

    def _record(
        self,
        streams: list[str],
        out: NDArray[np.void],
        x: NDArray[np.float64],
        present: NDArray[np.uint8],
    ) -> None:
        if self._recorder is not None and streams:
            self._recorder.take(streams[0].split("/", 1)[0], streams, out, x, present)

    @property
    def dirty(self) -> bool:
        """Whether there is something new to remember."""
        return self._dirty or self._quiet.changed

    def before_commit(self) -> dict[str, str]:
        """Write what must not be acknowledged before it is written; what the store is to remember."""
        if self._recorder is not None:
            self._recorder.flush()
        announced = list(self._stale) if self._discovery is None else self._discovery.topics()
        self._dirty = self._quiet.changed = False
        return {QUIET: self._quiet.text(), ANNOUNCED: "\n".join(announced)}

    def health(self) -> dict[str, Any]:
        """For the health message; only of what is configured."""
        found: dict[str, Any] = {}
        if self._sinks:
            found["sinks"] = {
                sink.name: {**asdict(sink.counters), "waiting": sink.waiting} for sink in self._sinks
            }
        if self._recorder is not None:
            found["record"] = {**asdict(self._recorder.counters), "bytes": self._recorder.size}
        if self._control is not None:
            found["commands"] = {
                "done": self._control.done,
                "refused": self._control.refused,
                "mutes": len(self._quiet.mutes),
            }
        if self._discovery is not None:
            found["homeassistant"] = {
                "devices": len(self._discovery.topics()),
                "left_out": self._discovery.left_out,
            }
        return found

    def close(self) -> None:
        """Finish: write records, give sinks a moment."""
        if self._recorder is not None:
            self._recorder.close()
        for sink in self._sinks:
            sink.close(0.5 / len(self._sinks))
